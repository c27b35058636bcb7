"""Inputs, outputs and their descriptions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx

from tests.hostile.attacks.graphs import (
    FLOAT,
    WIDTH,
    Write,
    changed,
    info,
    model,
    op,
    saved,
)


def attacks() -> Iterator[tuple[str, Write]]:
    relu = [op("Relu", ["a"])]

    def inputs(*values: Any) -> Write:
        return saved(model(relu, inputs=[info("x"), *values]))

    bare = onnx.ValueInfoProto(name="u")
    for kind in ("sequence_type", "optional_type", "map_type", "sparse_tensor_type"):
        value = onnx.ValueInfoProto(name="u")
        getattr(value.type, kind).SetInParent()
        yield f"input-{kind}", inputs(value)
        yield f"output-{kind}", saved(model(relu, outputs=[info("y", FLOAT, None), value]))
    yield "input-without-type", inputs(bare)
    yield "only-input-without-type", saved(model(relu, inputs=[onnx.ValueInfoProto(name="x")]))
    yield "output-without-type", saved(model(relu, outputs=[onnx.ValueInfoProto(name="y")]))
    for kind in (0, 8, 14, 16, 17, 22, 99, 2**31 - 1):
        yield f"input-element-{kind}", inputs(info("u", kind, ["batch"]))
        yield f"output-element-{kind}", saved(model(relu, outputs=[info("y", kind, None)]))
    negative, huge = ["batch", -1, WIDTH], ["batch", 2**62, 2**62]
    shapes = {
        "negative": negative, "65-dims": [1] * 65, "33-dims": [1] * 33, "100000-dims": [1] * 100_000, "huge": huge,
        "zero": [0, WIDTH], "scalar": [], "large": [2**20, 2**20], "named-alike": ["batch"] * 5,
        "odd-name": ["a b\n\x1b[31m"],
    }  # fmt: skip
    for name, dims in shapes.items():
        yield f"input-{name}", inputs(info("u", FLOAT, dims))
        yield f"only-input-{name}", saved(model(relu, inputs=[info("x", FLOAT, dims)]))
        yield f"output-{name}", saved(model(relu, outputs=[info("y", FLOAT, dims)]))
    yield "input-twice", inputs(info("x"))
    yield "output-twice", saved(model(relu, outputs=[info("y", FLOAT, None)] * 2))
    yield "output-of-nobody", saved(model(relu, outputs=[info("nobody", FLOAT, None)]))
    yield "output-is-input", saved(model(relu, outputs=[info("x")]))
    yield "output-is-weight", saved(model(relu, outputs=[info("w", FLOAT, None)]))
    yield "no-outputs", saved(changed(model(relu), lambda m: m.graph.ClearField("output")))
    yield "no-inputs", saved(changed(model(relu), lambda m: m.graph.ClearField("input")))
