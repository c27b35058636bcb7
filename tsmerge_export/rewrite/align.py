"""Brings a lagging operand to the stage that its consumer needs, on demand and once per operand and stage."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from tsmerge_export.rewrite.batch_first import BatchFirst
from tsmerge_export.rewrite.constants import scalar
from tsmerge_export.rewrite.dims import Dim, dims
from tsmerge_export.rewrite.distances import DistanceTable
from tsmerge_export.rewrite.emit import Emitter
from tsmerge_export.rewrite.stages import FIRST, Rows, Stage
from tsmerge_export.rewrite.vacuous import is_vacuous
from tsmerge_export.settings.domain import DOMAIN

Moves = Mapping[int, tuple[Stage, Stage]]
"""Axis -> (the stage it is at, the stage it is to come to)."""


class CannotAlign(Exception):
    """The operand cannot follow the merge; the message says why. The walk turns this into a barrier."""


class Aligner:
    """Aligns operands. ``compact`` cuts what does not depend on the batch (positions) instead of gathering it."""

    def __init__(
        self, emit: Emitter, *, compact: bool = False, tables: Mapping[ir.Value, DistanceTable] | None = None
    ) -> None:
        self._emit = emit
        self._compact = compact
        self._tables = tables or {}

    def align(
        self, value: ir.Value, moves: Moves, rank: int, rows: Rows = FIRST, whole: Dim = None
    ) -> ir.Value:
        """Gather the given axes of ``value`` for a consumer that broadcasts it to ``rank`` axes.

        Args:
            rows: where the batch is among the ``rank`` axes, and ``whole`` the dim of that axis.

        Returns:
            The aligned value. Where surviving tokens differ from row to row it has a batch axis and rank ``rank``.

        Raises:
            CannotAlign: its axis 0 is neither the batch nor 1.
        """
        found = dims(value)
        if found is None:
            raise CannotAlign("an operand has unknown dims")
        if rows != FIRST and not all(is_vacuous(value, axis) for axis in moves):
            return self._align_batch_first(value, moves, rank, rows, whole)
        shape: list[Dim] = found
        wanted = dict(moves)
        for axis in sorted(moves):
            if is_vacuous(value, axis):
                value = self._first(value, axis)
                del wanted[axis]
        if not wanted:
            return value
        batch = next(iter(wanted.values()))[1].batch
        # Broadcasting puts the batch at axis 0 of the result, so only an operand of full rank can have one.
        batched = len(shape) == rank and shape[0] != 1
        if batched and shape[0] != batch:
            raise CannotAlign(f"axis 0 of an operand is {shape[0]}, not the batch {batch}")
        if not batched and self._compact:
            for axis, (_, stage) in wanted.items():
                value = self._cut(value, axis, stage)
            return value
        if batched:
            for axis, (source, stage) in wanted.items():
                value = self._gather_batched(value, axis, source, stage)
            return value
        return self._gather_shared(value, wanted, rank)

    def _align_batch_first(
        self, value: ir.Value, moves: Moves, rank: int, rows: Rows, whole: Dim
    ) -> ir.Value:
        shape: list[Dim] = list(dims(value) or ())
        missing = rank - len(shape)
        own = None if rows.axis is None else rows.axis - missing
        if own is not None and own >= 0 and shape[own] not in (1, whole):
            raise CannotAlign(f"axis {own} of an operand is {shape[own]}, not the batch {whole}")
        layout = BatchFirst(rank, rows, next(iter(moves.values()))[1].batch)
        first = layout.to(value, self._emit)
        there = {layout.axis(axis + missing): move for axis, move in moves.items()}
        aligned = self.align(first, there, len(dims(first) or ()))
        if (dims(aligned) or [None])[0] == 1 and rows.axis is not None:
            raise CannotAlign("an operand without a batch would have to get one")
        return layout.back(aligned, self._emit, whole)

    def unmerge(
        self, value: ir.Value, axis: int, stage: Stage, rows: Rows = FIRST, whole: Dim = None
    ) -> ir.Value:
        """Copy merged tokens back along ``axis``: from ``stage`` to its root.

        ``rows``: where the batch is; ``whole``: the dim of that axis behind it.
        """
        found = dims(value)
        if found is None:
            raise CannotAlign("a merged value has unknown dims")
        if rows != FIRST or rows.axis == axis:
            layout = BatchFirst(len(found), rows, stage.batch, stage if rows.axis == axis else None)
            full = self.unmerge(layout.to(value, self._emit), layout.axis(axis), stage)
            return layout.back(full, self._emit, whole)
        target = stage.target_from(stage.root, self._emit)
        perm = [0, axis, *(a for a in range(1, len(found)) if a != axis)]
        moved = self._emit.transpose(value, perm)
        shape = [found[a] for a in perm]
        shape[1] = stage.root.dim
        full = self._emit.op("Unmerge", [moved, target], {}, value.dtype, shape, "unmerge", domain=DOMAIN)
        return self._emit.transpose(full, _inverse(perm))

    def _first(self, value: ir.Value, axis: int) -> ir.Value:
        """Entry 0 of an axis along which the value repeats itself; it broadcasts to any length."""
        shape = list(dims(value) or ())
        shape[axis] = 1
        bounds = [self._emit.const([number]) for number in (0, 1, axis)]
        return self._emit.op("Slice", [value, *bounds], {}, value.dtype, shape, "repeated")

    def _cut(self, value: ir.Value, axis: int, stage: Stage) -> ir.Value:
        """The first M entries of an axis."""
        shape = list(dims(value) or ())
        shape[axis] = stage.dim
        inputs = [value, self._emit.const([0]), stage.length, self._emit.const([axis])]
        return self._emit.op("Slice", inputs, {}, value.dtype, shape, "compact")

    def _gather_batched(self, value: ir.Value, axis: int, source: Stage, stage: Stage) -> ir.Value:
        """Rows of ``[B, ..., N, ...]`` by a ``[B, M]`` index: a block copy per row with GatherND."""
        emit, shape = self._emit, list(dims(value) or ())
        index = stage.kept_from(source, emit)
        index = emit.op(
            "Unsqueeze", [index, emit.const([2])], {}, ir.DataType.INT64, [stage.batch, stage.dim, 1], "index"
        )
        perm = [0, axis, *(a for a in range(1, len(shape)) if a != axis)]
        moved = emit.transpose(value, perm)
        out = [shape[a] for a in perm]
        out[1] = stage.dim
        gathered = emit.op("GatherND", [moved, index], {"batch_dims": 1}, value.dtype, out, "aligned")
        return emit.transpose(gathered, _inverse(perm))

    def _gather_pairs(self, value: ir.Value, source: Stage, stage: Stage) -> ir.Value:
        """Both token axes of a shared ``[1, H, N, N]`` (or less: ``[N, N]``), such as a position bias, at once."""
        emit = self._emit
        shape: list[Dim] = list(dims(value) or ())
        if len(shape) < 4:
            new = list(range(4 - len(shape)))
            shape = [*(1 for _ in new), *shape]
            value = emit.op("Unsqueeze", [value, emit.const(new)], {}, value.dtype, shape, "broadcast")
        if not isinstance(shape[1], int):
            raise CannotAlign("a shared operand has an unknown number of heads")
        tokens = shape[2:]
        heads_first = self._without_first(value, shape)
        if heads_first in self._tables:
            known = self._tables[heads_first]
            plane, stride, offset = known.table, emit.const([-1]), known.centre
        else:
            rows = emit.transpose(heads_first, [1, 2, 0])
            plane = emit.op(
                "Reshape", [rows, emit.const([-1, shape[1]])], {}, value.dtype, [None, shape[1]], "plane"
            )
            stride, offset = emit.length(value, 2), emit.const([0])
        kept = stage.kept_from(source, emit)
        # Its axis 0 is the batch, or 1 while nothing is removed: a symbol of its own, as buffers of equal
        # symbolic size are shared.
        out: list[Dim] = [f"{stage.dim}_rows_{tokens[0]}", shape[1], stage.dim, stage.dim]
        inputs = [value, plane, kept, stride, offset]
        attributes = {"always": 1} if stage.pads else {}
        return emit.op("GatherPairs", inputs, attributes, value.dtype, out, "aligned", domain=DOMAIN)

    def _without_first(self, value: ir.Value, shape: list[Dim]) -> ir.Value:
        """``value`` without its axis 0 of length 1: what was unsqueezed, where that is how it came about."""
        producer = value.producer()
        if producer is not None and producer.op_type == "Unsqueeze" and len(producer.inputs) == 2:
            source, axes = producer.inputs[0], producer.inputs[1]
            if source is not None and scalar(axes) == 0:
                return source
        return self._emit.op("Squeeze", [value, self._emit.const([0])], {}, value.dtype, shape[1:], "shared")

    def _gather_shared(self, value: ir.Value, moves: Moves, rank: int) -> ir.Value:
        """Gather an operand that is the same for every row of the batch; the result has a batch axis."""
        emit, shape = self._emit, list(dims(value) or ())
        last_two = [len(shape) - 2, len(shape) - 1]
        if sorted(moves) == last_two and rank == 4 and moves[last_two[0]] == moves[last_two[1]]:
            return self._gather_pairs(value, *moves[last_two[0]])
        if len(shape) == rank:  # axis 0 has length 1
            value = self._without_first(value, shape)
            shape, moves = shape[1:], {axis - 1: move for axis, move in moves.items()}
        axes = sorted(moves)
        rest = [axis for axis in range(len(shape)) if axis not in axes]
        source, stage = moves[axes[0]]
        if len(axes) == 1:
            flat = emit.transpose(value, [*axes, *rest])
            index = stage.kept_from(source, emit)
            front: list[Dim] = [stage.batch, stage.dim]
        else:
            raise CannotAlign("a shared operand has several token axes and is no [heads, tokens, tokens]")
        gathered = emit.op(
            "Gather", [flat, index], {"axis": 0}, value.dtype, [*front, *(shape[a] for a in rest)], "aligned"
        )
        # Now [B, (tokens of `axes`), rest]; put every axis back in its place, with the batch in front.
        order = [0] + [1 + [*axes, *rest].index(axis) for axis in range(len(shape))]
        placed = emit.transpose(gathered, order)
        missing = rank - 1 - len(shape)
        if missing > 0:
            found = list(dims(placed) or ())
            spread = [found[0], *[1] * missing, *found[1:]]
            placed = emit.op(
                "Unsqueeze",
                [placed, emit.const(list(range(1, 1 + missing)))],
                {},
                value.dtype,
                spread,
                "broadcast",
            )
        return placed


def _inverse(perm: list[int]) -> list[int]:
    return [perm.index(axis) for axis in range(len(perm))]
