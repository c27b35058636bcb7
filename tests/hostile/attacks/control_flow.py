"""Loops and branches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import onnx
from onnx import helper

from tests.hostile.attacks.graphs import (
    BOOL,
    FLOAT,
    INT64,
    Write,
    constant,
    info,
    model,
    op,
    saved,
)


def attacks() -> Iterator[tuple[str, Write]]:
    same, work = op("Identity", ["c"], "c2"), op("Relu", ["s"], "s2")
    many = constant("m", 2**62)

    def loop(inputs: Sequence[str], body: Any, *constants: Any) -> Write:
        return saved(model([op("Loop", inputs, body=body)], constants=constants))

    yield "loop-endless", loop(["", "", "a"], _body([same, work]))
    yield "loop-huge-count", loop(["m", "", "a"], _body([same, work]), many)
    yield "loop-without-work", loop(["m", "", "a"], _body([op("Identity", ["s"], "s2")], "c"), many)
    yield (
        "loop-while-data",
        loop(
            ["", "", "a"],
            _body(
                [
                    op("ReduceSum", ["s"], "t", keepdims=0),
                    op("IsNaN", ["t"], "n"),
                    op("Not", ["n"], "c2"),
                    work,
                ]
            ),
        ),
    )
    inner = op("Loop", ["m", "", "s"], "s2", body=_renamed(_body([same, work])))
    yield "loop-nested", loop(["m", "", "a"], _body([same, inner]), constant("m", 100_000_000))
    grown = [same, op("Concat", ["s", "s"], "s2", axis=1)]
    yield "loop-that-grows", loop(["m", "", "a"], _body(grown), constant("m", 60))
    yield "loop-no-body", saved(model([op("Loop", ["m", "", "a"])], constants=[many]))
    yield "loop-empty", saved(model([op("Loop", ["", "", ""], body=_body([same, work]))]))
    for depth in (5, 14, 30):
        yield f"if-nested-{depth}", saved(_branches(depth))


def _body(nodes: Sequence[Any], condition: str = "c2") -> Any:
    inputs = [info("i", INT64, []), info("c", BOOL, []), info("s", FLOAT, None)]
    return helper.make_graph(
        list(nodes), "body", inputs, [info(condition, BOOL, []), info("s2", FLOAT, None)]
    )


def _renamed(body: Any) -> Any:
    text = body.SerializeToString()
    out = onnx.GraphProto.FromString(text)
    for node in out.node:
        node.input[:] = [f"{name}_" for name in node.input]
        node.output[:] = [f"{name}_" for name in node.output]
    for value in (*out.input, *out.output):
        value.name += "_"
    return out


def _branches(depth: int) -> onnx.ModelProto:
    out = helper.make_graph([op("Relu", ["a"], "v0")], "b0", [], [info("v0", FLOAT, None)])
    for index in range(1, depth):
        node = op("If", ["yes"], f"v{index}", then_branch=out, else_branch=out if depth < 8 else _leaf(index))
        out = helper.make_graph([node], f"b{index}", [], [info(f"v{index}", FLOAT, None)])
    last = op("If", ["yes"], then_branch=out, else_branch=_leaf(0))
    return model([last], constants=[constant("yes", True, bool)])


def _leaf(index: int) -> Any:
    return helper.make_graph([op("Neg", ["a"], f"e{index}")], "e", [], [info(f"e{index}", FLOAT, None)])
