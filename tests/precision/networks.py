"""A small network with every kind of product that a quantiser meets."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tsmerge_export.precision.products import products
from tsmerge_export.precision.quantise import quantised
from tsmerge_export.precision.ranges import read_by
from tsmerge_export.settings.precision import Precision

WIDTH, INNER = 40, 72
#: A range that nothing was measured for.
SPAN = (-3.0, 4.5)
#: The products that can be quantised, by node, with their weights.
PRODUCTS = {"first": "w", "second": "w", "out_MatMul": "v_Transposed"}


def low_of(kind: str, model: onnx.ModelProto, *nodes: str) -> onnx.ModelProto:
    """A model with products at a precision, all of them where none is named; ranges of activations are made up."""
    own = nodes or [product.node for product in products(model)]
    return quantised(model, Precision(kind), own, dict.fromkeys(read_by(model, own), SPAN))


def network(seed: int = 0) -> onnx.ModelProto:
    """``x [batch, 40]``: two products with one weight, one with a weight that is too thin, one of two values, a Gemm.

    A column of ``w`` is nothing but zeros.
    """
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((WIDTH, WIDTH)).astype(np.float32)
    w[:, 3] = 0
    weights = {
        "w": w,
        "thin": rng.standard_normal((WIDTH, 4)).astype(np.float32),
        "v": rng.standard_normal((INNER, WIDTH)).astype(np.float32),
        "bias": rng.standard_normal(INNER).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "w"], ["b"], name="second"),
        helper.make_node("MatMul", ["b", "thin"], ["c"], name="narrow"),
        helper.make_node("Transpose", ["b"], ["bt"], name="turn", perm=[1, 0]),
        helper.make_node("MatMul", ["b", "bt"], ["d"], name="values"),
        helper.make_node("Softmax", ["d"], ["p"], name="softmax"),
        helper.make_node("MatMul", ["p", "b"], ["e"], name="mixed"),
        helper.make_node("Gemm", ["e", "v", "bias"], ["y"], name="out", transB=1),
    ]
    for node in nodes:
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="somewhere " * 50)
    nodes[0].metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'stack', 'stack.0', 'linear']")
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
            for name, size in (("a", WIDTH), ("c", 4), ("y", INNER))
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
