"""Brings a lagging operand to the stage that its consumer needs, on demand and once per operand and stage."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from tsmerge_export.rewrite.dims import Dim, dims
from tsmerge_export.rewrite.emit import Emitter
from tsmerge_export.rewrite.stages import Stage
from tsmerge_export.rewrite.vacuous import is_vacuous

Moves = Mapping[int, tuple[Stage, Stage]]
"""Axis -> (the stage it is at, the stage it is to come to)."""


class CannotAlign(Exception):
    """The operand cannot follow the merge; the message says why. The walk turns this into a barrier."""


class Aligner:
    """Aligns operands. ``compact`` cuts what does not depend on the batch (positions) instead of gathering it."""

    def __init__(self, emit: Emitter, *, compact: bool = False) -> None:
        self._emit = emit
        self._compact = compact

    def align(self, value: ir.Value, moves: Moves, rank: int) -> ir.Value:
        """Gather the given axes of ``value`` for a consumer that broadcasts it to ``rank`` axes, batch first.

        Returns:
            The aligned value. Where surviving tokens differ from row to row it has a batch axis and rank ``rank``.

        Raises:
            CannotAlign: its axis 0 is neither the batch nor 1.
        """
        found = dims(value)
        if found is None:
            raise CannotAlign("an operand has unknown dims")
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

    def unmerge(self, value: ir.Value, axis: int, stage: Stage) -> ir.Value:
        """Copy merged tokens back along ``axis``: from ``stage`` to its root."""
        found = dims(value)
        if found is None:
            raise CannotAlign("a merged value has unknown dims")
        target = stage.target_from(stage.root, self._emit)
        perm = [0, axis, *(a for a in range(1, len(found)) if a != axis)]
        moved = self._emit.transpose(value, perm)
        shape = [found[a] for a in perm]
        shape[1] = stage.root.dim
        full = self._emit.op("Unmerge", [moved, target], {}, value.dtype, shape, "unmerge", domain="tsmerge")
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

    def _gather_shared(self, value: ir.Value, moves: Moves, rank: int) -> ir.Value:
        """Gather an operand that is the same for every row of the batch; the result has a batch axis."""
        emit, shape = self._emit, list(dims(value) or ())
        if len(shape) == rank:  # axis 0 has length 1
            value = emit.op("Squeeze", [value, emit.const([0])], {}, value.dtype, shape[1:], "shared")
            shape, moves = shape[1:], {axis - 1: move for axis, move in moves.items()}
        axes = sorted(moves)
        rest = [axis for axis in range(len(shape)) if axis not in axes]
        source, stage = moves[axes[0]]
        if len(axes) == 2 and moves[axes[1]] == (source, stage):
            # [N, N, rest] as [N*N, rest]: one gather of contiguous rows instead of two strided ones.
            flat = emit.transpose(value, [*axes, *rest])
            sizes = [shape[axis] for axis in rest]
            if all(isinstance(size, int) for size in sizes):
                target = emit.const([-1, *sizes])
            else:
                tail = emit.op("Shape", [flat], {"start": 2}, ir.DataType.INT64, [len(sizes)], "rest")
                target = emit.op(
                    "Concat",
                    [emit.const([-1]), tail],
                    {"axis": 0},
                    ir.DataType.INT64,
                    [1 + len(sizes)],
                    "rest",
                )
            flat = emit.op("Reshape", [flat, target], {}, value.dtype, [None, *sizes], "plane")
            index = stage.pairs_from(source, emit)
            front: list[Dim] = [stage.batch, stage.dim, stage.dim]
        elif len(axes) == 1:
            flat = emit.transpose(value, [*axes, *rest])
            index = stage.kept_from(source, emit)
            front = [stage.batch, stage.dim]
        else:
            raise CannotAlign("an operand has token axes at different stages")
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
