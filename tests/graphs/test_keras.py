"""Attention as Keras writes it and tf2onnx converts it: projections, scores and mixing are Einsum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.graphs.bundles import bundle_of
from tsmerge_export import MergeConfig

WIDTH, HEADS, EACH = 12, 2, 4


def encoder(layers: int = 2) -> onnx.ModelProto:
    """Pre-norm left out; ``x [batch, steps, 3]`` -> ``y [batch, steps, 1]``, the equations word for word."""
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(np.float32(EACH**-0.5), "scale")]
    nodes = []

    def weight(name: str, *shape: int) -> str:
        values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def op(kind: str, out: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [out], name=out, **attributes))
        return out

    x = op("MatMul", "embedded", "x", weight("embed", 3, WIDTH))
    for layer in range(layers):
        at = f"layer_{layer}/"
        parts = {}
        for part in ("query", "key", "value"):
            kernel = weight(f"{at}{part}/kernel", WIDTH, HEADS, EACH)
            product = op("Einsum", f"{at}{part}/product", x, kernel, equation="abc,cde->abde")
            parts[part] = op("Add", f"{at}{part}", product, weight(f"{at}{part}/bias", HEADS, EACH))
        query = op("Mul", f"{at}scaled", parts["query"], "scale")
        scores = op("Einsum", f"{at}scores", parts["key"], query, equation="aecd,abcd->acbe")
        shares = op("Softmax", f"{at}shares", scores, axis=-1)
        mixed = op("Einsum", f"{at}mixed", shares, parts["value"], equation="acbe,aecd->abcd")
        kernel = weight(f"{at}out/kernel", HEADS, EACH, WIDTH)
        out = op("Einsum", f"{at}out/product", mixed, kernel, equation="abcd,cde->abe")
        x = op("Add", f"{at}attended", op("Add", f"{at}out", out, weight(f"{at}out/bias", WIDTH)), x)
        up = op("Relu", f"{at}relu", op("MatMul", f"{at}up", x, weight(f"{at}up/kernel", WIDTH, 20)))
        x = op("Add", f"{at}fed", x, op("MatMul", f"{at}down", up, weight(f"{at}down/kernel", 20, WIDTH)))
    op("MatMul", "y", x, weight("head", WIDTH, 1))
    ends = [
        [helper.make_tensor_value_info(name, 1, ["batch", "steps", size])]
        for name, size in (("x", 3), ("y", 1))
    ]
    graph = helper.make_graph(nodes, "keras", *ends, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_merges(tmp_path: Path) -> None:
    """By the keys too, which are the left operand of the scores here."""
    file = tmp_path / "keras.onnx"
    onnx.save(encoder(), file)
    bundle = bundle_of(file, MergeConfig(ratio="1/4", metric="key"))
    component = bundle.manifest["components"][0]
    assert bundle.verdicts["parity"]["passed"]
    assert len(component["merges"]) == 2 and component["barriers"] == []
