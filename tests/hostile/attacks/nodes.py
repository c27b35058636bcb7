"""Nodes with the wrong inputs, outputs, attributes and names."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import helper

from tests.hostile.attacks.graphs import (
    Write,
    changed,
    function,
    model,
    op,
    saved,
)


def attacks() -> Iterator[tuple[str, Write]]:
    plain = ("Add", "MatMul", "Gemm", "Conv", "Gather", "Reshape", "Slice", "Concat", "Identity", "Split", "Softmax",
             "LayerNormalization", "Attention", "RotaryEmbedding", "Transpose", "Cast", "Constant", "Shape", "Einsum",
             "If", "Scan", "Where", "Expand", "Sum", "Max", "Pad", "Resize", "LSTM", "BatchNormalization")  # fmt: skip
    for op_type in plain:
        opset = 23 if op_type in ("Attention", "RotaryEmbedding") else 18
        yield f"node-{op_type}-no-inputs", saved(model([op(op_type, [])], opset=opset))
        yield f"node-{op_type}-empty-inputs", saved(model([op(op_type, ["", "", ""])], opset=opset))
        yield f"node-{op_type}-many-inputs", saved(model([op(op_type, ["a"] * 40)], opset=opset))
        yield f"node-{op_type}-tokens-everywhere", saved(model([op(op_type, ["a", "a"])], opset=opset))
    yield "node-no-output", saved(model([helper.make_node("Relu", ["a"], []), op("Relu", ["a"])]))
    yield "node-empty-output", saved(model([helper.make_node("Relu", ["a"], [""]), op("Relu", ["a"])]))
    yield "node-two-outputs", saved(model([helper.make_node("Relu", ["a"], ["y", "y"])]))
    yield "node-without-type", saved(model([op("", ["a"])]))
    yield "node-unknown-type", saved(model([op("Relooo", ["a"])]))
    yield "node-unknown-domain", saved(model([op("Relu", ["a"], "y", "nobody")]))
    yield "node-newer-than-opset", saved(model([op("Attention", ["a", "a", "a"])], opset=18))
    yield "node-reads-nobody", saved(model([op("Add", ["a", "nobody"])]))
    yield "node-reads-itself", saved(model([op("Add", ["a", "y"])]))
    yield "value-twice", saved(model([op("Relu", ["a"]), op("Neg", ["a"])]))
    yield "value-named-as-input", saved(model([op("Relu", ["a"], "x"), op("Relu", ["x"])]))
    yield "value-named-as-weight", saved(model([op("Relu", ["a"], "w"), op("Relu", ["w"])]))
    yield "attribute-wrong-type", saved(model([op("Softmax", ["a"], axis="one")]))
    yield "attribute-unknown", saved(model([op("Softmax", ["a"], axes=[1])]))
    yield "attribute-out-of-range", saved(model([op("Softmax", ["a"], axis=2**62)]))
    yield "attribute-reference-in-graph", saved(changed(model([op("Softmax", ["a"], axis=1)]), _refer))
    for name in ("LocalMerge", "DynamicMerge", "Unmerge", "Nothing"):
        for count in (0, 1, 3):
            node = helper.make_node(name, ["a"] * count, ["y"], domain="tsmerge", r=2**60)
            yield f"ours-{name}-{count}", saved(model([node], domains=["tsmerge"]))
    body = function("LocalMerge", [op("Relu", ["a"], "b")], "tsmerge")
    ours = helper.make_node("LocalMerge", ["a"], ["y"], domain="tsmerge")
    yield "ours-forged", saved(model([ours], functions=[body], domains=["tsmerge"]))
    yield (
        "nodes-60000",
        saved(
            model(
                [
                    op("Relu", [f"t{n}" if n else "a"], f"t{n + 1}" if n < 59_999 else "y")
                    for n in range(60_000)
                ]
            )
        ),
    )
    yield "names-long", saved(model([op("Relu", ["a"], "q" * 2**20), op("Relu", ["q" * 2**20])]))
    yield "names-odd", saved(model([op("Relu", ["a"], "\x1b[31m\n\0"), op("Relu", ["\x1b[31m\n\0"])]))
    yield (
        "names-no-text",
        lambda path: path.write_bytes(
            model([op("Relu", ["a"], "QQQQ"), op("Relu", ["QQQQ"])])
            .SerializeToString()
            .replace(b"QQQQ", b"\xff\xfe\xff\xfe")
        ),
    )


def _refer(made: onnx.ModelProto) -> None:
    attribute = made.graph.node[-1].attribute[0]
    attribute.ClearField("i")
    attribute.ref_attr_name = "nobody"
