"""Tokens at the end that stand apart: a merge is given those in front of them alone, so that its N counts no others."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from tsmerge_export.rewrite.dims import Dim, dims
from tsmerge_export.rewrite.emit import Emitter
from tsmerge_export.rewrite.stages import Stage

_INT64 = ir.DataType.INT64
_FAR = 2**63 - 1


class Apart:
    """Takes such tokens away in front of a merge, and puts them back behind it (R13.9).

    Args:
        tokens: a value with one entry for each of them along its axis 0; only its length counts.
    """

    def __init__(self, emit: Emitter, tokens: ir.Value) -> None:
        self._emit, self._tokens = emit, tokens

    def front(self, value: ir.Value, before: Stage) -> ir.Value:
        """``[B, N, ..]`` without the tokens apart."""
        return self._cut(value, [self._emit.const([0]), self._end(before)], f"{before.dim}_merging")

    def joined(self, merged: Sequence[ir.Value], x: ir.Value, before: Stage, symbol: str) -> list[ir.Value]:
        """What a merge gives of the tokens in front (y, size, kept, target), with the others behind.

        Args:
            x: all tokens, as they were. before: their stage. symbol: of as many as there are now.
        """
        y, size, kept, target = merged
        batch = before.batch
        behind = [self._back(value, before) for value in (x, before.size)]
        ends = [self._end(before), self._emit.length(kept, 1)]
        places = [self._places(end, before) for end in ends]
        shapes: list[list[Dim]] = [
            [batch, symbol, *(dims(y) or [])[2:]], [batch, symbol], [batch, symbol], [batch, before.dim]
        ]  # fmt: skip
        return [
            self._emit.op("Concat", [front, back], {"axis": 1}, front.dtype, shape, "joined")
            for front, back, shape in zip((y, size, kept, target), (*behind, *places), shapes, strict=True)
        ]

    def _count(self) -> ir.Value:
        return self._emit.length(self._tokens, 0)

    def _end(self, before: Stage) -> ir.Value:
        """``[1]``: how many tokens stand in front."""
        return self._emit.op("Sub", [before.length, self._count()], {}, _INT64, [1], "in_front")

    def _back(self, value: ir.Value, before: Stage) -> ir.Value:
        return self._cut(value, [self._end(before), self._emit.const([_FAR])], "tokens_apart")

    def _cut(self, value: ir.Value, bounds: list[ir.Value], dim: str) -> ir.Value:
        shape = list(dims(value) or ())
        shape[1] = dim
        return self._emit.op(
            "Slice", [value, *bounds, self._emit.const([1])], {}, value.dtype, shape, "apart"
        )

    def _places(self, first: ir.Value, before: Stage) -> ir.Value:
        """``[B, T]``: ``first`` and the numbers behind it, in every row."""
        emit, dim = self._emit, "tokens_apart"
        count = emit.op("Squeeze", [self._count()], {}, _INT64, [], "count")
        steps = emit.op("Range", [emit.const(0), count, emit.const(1)], {}, _INT64, [dim], "steps")
        row = emit.op("Add", [steps, first], {}, _INT64, [dim], "places")
        batch = emit.length(before.size, 0)
        shape = emit.op("Concat", [batch, self._count()], {"axis": 0}, _INT64, [2], "shape")
        return emit.op("Expand", [row, shape], {}, _INT64, [before.batch, dim], "places")
