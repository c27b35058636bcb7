"""Functions that call each other, or nobody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from onnx import helper

from tests.hostile.attacks.graphs import (
    FLOAT,
    Write,
    chain,
    constant,
    function,
    info,
    model,
    op,
    saved,
)


def attacks() -> Iterator[tuple[str, Write]]:
    relu = [op("Relu", ["a"], "b")]

    def calls(
        last: str, functions: Sequence[Any], domains: Sequence[str] = ("f",), domain: str = "f"
    ) -> Write:
        return saved(model([op(last, ["a"], "y", domain)], functions=functions, domains=domains))

    yield "functions-10-by-10", calls("f9", chain(10, 10))
    yield "functions-2-to-the-30", calls("f30", chain(31, 2))
    yield "functions-2-to-the-90", calls("f90", chain(91, 2))
    yield "functions-chain-50", calls("f49", chain(50, 1))
    yield "functions-chain-99-backwards", calls("f98", chain(99, 1)[::-1])
    yield "functions-chain-5000", calls("f4999", chain(5000, 1))
    yield "functions-recursive", calls("r", [function("r", [op("r", ["a"], "b", "f")])])
    mutual = [function("p", [op("q", ["a"], "b", "f")]), function("q", [op("p", ["a"], "b", "f")])]
    yield "functions-mutual", calls("p", mutual)
    yield "functions-duplicate", calls("d", [function("d", relu), function("d", [op("Sigmoid", ["a"], "b")])])
    yield "functions-shadowing", calls("Relu", [function("Relu", [op("Sigmoid", ["a"], "b")], "")], (), "")
    yield "functions-shadowing-alias", calls("Relu", [function("Relu", relu, "ai.onnx")], (), "")
    yield "functions-not-imported", calls("d", [function("d", relu)], ())
    yield "functions-missing", calls("nobody", [function("d", relu)])
    yield "functions-overloaded", calls("d", [function("d", relu), function("d", relu, overload="other")])
    yield "functions-unused-recursion-free", calls("d", [function("d", relu), function("e", relu)])
    yield (
        "functions-unused-recursion",
        calls("d", [function("d", relu), function("e", [op("e", ["a"], "b", "f")])]),
    )
    yield "functions-no-output", calls("d", [function("d", [op("Relu", ["a"], "c")])])
    yield "functions-of-unknown-operators", calls("d", [function("d", [op("Relooo", ["a"], "b")])])
    wide = op("d", ["a", "a", "a"], "y", "f")
    yield "functions-too-many-inputs", saved(model([wide], functions=[function("d", relu)], domains=["f"]))
    inner = helper.make_graph([op("r", ["a"], "c", "f")], "then", [], [info("c", FLOAT, None)])
    branch = [op("If", ["yes"], "b", then_branch=inner, else_branch=inner)]
    branch.insert(0, op("Constant", [], "yes", value=constant("", True, bool)))
    yield "functions-recursive-in-a-branch", calls("r", [function("r", branch)])
