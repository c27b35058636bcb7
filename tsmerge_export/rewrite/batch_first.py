"""Brings a value with the batch anywhere to the form ``[B, .., ]`` in which tokens are gathered, and back.

Sequence-first models put tokens before the batch, attention is often computed on ``[B * heads, N, N]``, and a linear
layer on ``[N * B, D]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from tsmerge_export.rewrite.dims import Dim, dims
from tsmerge_export.rewrite.emit import Emitter
from tsmerge_export.rewrite.stages import Rows, Stage


@dataclass(frozen=True)
class BatchFirst:
    """The layout of values of ``rank`` axes whose batch is at ``rows``, and of the same with the batch first.

    There the axes are: the batch, what is folded behind it (where that is more than one entry), all others in order.
    ``stage`` is of the tokens that share an axis with the batch, None where none do.
    """

    rank: int
    rows: Rows
    batch: Dim
    stage: Stage | None = None

    @property
    def plain(self) -> bool:
        """Whether the batch is first already."""
        return self.rows == Rows() and self.stage is None

    @property
    def _parts(self) -> list[str]:
        """What the axis of the batch consists of."""
        if self.stage is not None:
            return ["tokens", "batch"] if self.rows.tokens_first else ["batch", "tokens"]
        return ["batch"] if self.rows.each == 1 else ["batch", "each"]

    @property
    def _apart(self) -> list[str | int]:
        """Axes with the parts as axes of their own; numbers are axes of the value."""
        out: list[str | int] = list(range(self.rank))
        if self.rows.axis is None:
            return ["batch", *out]
        out[self.rows.axis : self.rows.axis + 1] = self._parts
        return out

    @property
    def _order(self) -> list[str | int]:
        """Axes with the batch first."""
        folded = [part for part in self._apart if part == "each"]
        return ["batch", *folded, *(part for part in self._apart if part not in ("batch", "each"))]

    def axis(self, axis: int) -> int:
        """Where an axis of the value is with the batch first."""
        own = "tokens" if self.stage is not None and axis == self.rows.axis else axis
        return self._order.index(own)

    def to(self, value: ir.Value, emit: Emitter) -> ir.Value:
        """The value with the batch first. A value that broadcasts may have fewer axes, or a batch of 1."""
        if self.plain:
            return value
        shape: list[Dim] = list(dims(value) or ())
        missing = self.rank - len(shape)
        if missing:
            shape = [*(1 for _ in range(missing)), *shape]
            axes = emit.const(list(range(missing)))
            value = emit.op("Unsqueeze", [value, axes], {}, value.dtype, shape, "spread")
        at = self.rows.axis
        if at is None:
            value = emit.op("Unsqueeze", [value, emit.const([0])], {}, value.dtype, [1, *shape], "rows")
        elif len(self._parts) > 1:
            tokens = self.stage
            sizes: dict[str, Dim] = {"batch": self.batch, "each": self.rows.each}
            if tokens is not None:
                sizes["tokens"] = tokens.dim
            # A batch of one, which broadcasts, is not folded with anything.
            parts: list[Dim] = [1, 1] if shape[at] == 1 else [sizes[part] for part in self._parts]
            entries = [emit.length(value, axis) for axis in range(self.rank)]
            last = emit.const([self.rows.each]) if tokens is None else tokens.length
            if shape[at] == 1:
                pair = [emit.const([1]), emit.const([1])]
            elif self.rows.tokens_first:
                pair = [last, emit.const([-1])]
            else:
                pair = [emit.const([-1]), last]
            entries[at : at + 1] = pair
            target = emit.op("Concat", entries, {"axis": 0}, ir.DataType.INT64, [len(entries)], "apart")
            value = emit.op(
                "Reshape", [value, target], {}, value.dtype, [*shape[:at], *parts, *shape[at + 1 :]], "apart"
            )
        return emit.transpose(value, [self._apart.index(part) for part in self._order])

    def back(self, value: ir.Value, emit: Emitter, whole: Dim) -> ir.Value:
        """The inverse of :meth:`to`, on a value with all its axes. ``whole``: dim of the axis of the batch."""
        if self.plain:
            return value
        value = emit.transpose(value, [self._order.index(part) for part in self._apart])
        shape: list[Dim] = list(dims(value) or ())
        at = self.rows.axis
        if at is None:
            return emit.op("Squeeze", [value, emit.const([0])], {}, value.dtype, shape[1:], "rows")
        if len(self._parts) == 1:
            return value
        if self.stage is None and shape[at + 1] == 1:  # the same for all that is folded behind the batch
            sizes = emit.const([self.rows.each if axis == at + 1 else 1 for axis in range(len(shape))])
            shape[at + 1] = self.rows.each
            value = emit.op("Expand", [value, sizes], {}, value.dtype, shape, "repeated")
        entries = [emit.length(value, axis) for axis in range(len(shape))]
        entries[at : at + 2] = [emit.const([-1])]
        target = emit.op("Concat", entries, {"axis": 0}, ir.DataType.INT64, [len(entries)], "together")
        out: Sequence[Dim] = [*shape[:at], whole, *shape[at + 2 :]]
        return emit.op("Reshape", [value, target], {}, value.dtype, out, "together")
