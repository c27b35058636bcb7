"""Stages: the states of a token axis between merges, as a tree, and the ONNX values that belong to each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from tsmerge_export.merge.run import HIDDEN
from tsmerge_export.rewrite.emit import Emitter

Tags = dict[int, "Stage"]
"""Axis -> stage, for the axes of a value that are merged. Axes at a root stage carry no tag."""


@dataclass(frozen=True)
class Rows:
    """Where the rows of the batch are in a merged value.

    Attributes:
        axis: the axis that has them; None for a batch of one that has no axis.
        each: entries per row, where something is folded behind the batch, such as heads: ``[B * each, ..]``.
        tokens_first: of an axis that holds the tokens too: whether it is ``N * B`` and not ``B * N``.
    """

    axis: int | None = 0
    each: int = 1
    tokens_first: bool = False


FIRST = Rows()
"""The batch on axis 0, alone: what is so unless said."""


@dataclass(eq=False)
class Stage:
    """A token axis after some merges. Two values fit together on an axis only at the same stage.

    Attributes:
        dim: symbol (or number, for a root of fixed length) of the axis at this stage.
        batch: dim of the batch axis.
        length: value ``[1]`` int64, the number of tokens at run time.
        size: value ``[B, M]`` float32.
        pads: rows may end in padding that the model's masks do not know.
        parent: the stage before the merge; None for a root, the axis as the model computes it.
        kept: value ``[B, M]`` int64, index in the parent of each token; None for a root.
        target: value ``[B, N_parent]`` int64; None for a root.
    """

    dim: str | int
    batch: str | int | None
    length: ir.Value
    size: ir.Value
    parent: Stage | None = None
    kept: ir.Value | None = None
    target: ir.Value | None = None
    pads: bool = False
    _kept_from: dict[Stage, ir.Value] = field(default_factory=dict)
    _target_from: dict[Stage, ir.Value] = field(default_factory=dict)

    @property
    def root(self) -> Stage:
        """The unmerged axis that this stage descends from."""
        return self if self.parent is None else self.parent.root

    @property
    def depth(self) -> int:
        """Number of merges since the root."""
        return 0 if self.parent is None else 1 + self.parent.depth

    def lineage(self) -> Iterator[Stage]:
        """This stage, its parent, and so on up to the root."""
        stage: Stage | None = self
        while stage is not None:
            yield stage
            stage = stage.parent

    def kept_from(self, ancestor: Stage, emit: Emitter) -> ir.Value:
        """``[B, M]`` int64: index in ``ancestor`` of each token of this stage."""
        assert self.parent is not None and self.kept is not None
        if self.parent is ancestor:
            return self.kept
        if ancestor not in self._kept_from:
            above = self.parent.kept_from(ancestor, emit)
            self._kept_from[ancestor] = emit.op(
                "GatherElements",
                [above, self.kept],
                {"axis": 1},
                ir.DataType.INT64,
                [self.batch, self.dim],
                "kept",
            )
        return self._kept_from[ancestor]

    def log_size(self, emit: Emitter, rank: int, dtype: ir.DataType | None) -> ir.Value:
        """``[B, 1, .., M]`` of ``rank`` axes, batch first: logarithm of the sizes, 0 for padding (which masks hide)."""
        float32 = ir.DataType.FLOAT
        least = emit.op(
            "Max", [self.size, emit.const(1.0, "float32")], {}, float32, [self.batch, self.dim], "size"
        )
        log = emit.op("Log", [least], {}, float32, [self.batch, self.dim], "log_size")
        if dtype is not None and dtype != float32:
            log = emit.op("Cast", [log], {"to": dtype}, dtype, [self.batch, self.dim], "log_size")
        if rank == 2:
            return log
        axes = emit.const(list(range(1, rank - 1)))
        shape: list[str | int | None] = [self.batch, *[1] * (rank - 2), self.dim]
        return emit.op("Unsqueeze", [log, axes], {}, dtype, shape, "log_size")

    def scores(self, emit: Emitter, rank: int, dtype: ir.DataType | None, proportional: bool) -> ir.Value:
        """``[B, 1, .., M]`` of ``rank`` axes, batch first, to add to the scores of attention on these tokens.

        It hides padding that rows end in (R13.7); if ``proportional`` it is the logarithm of the sizes else (R13.5).
        """
        if not self.pads:
            return self.log_size(emit, rank, dtype)
        shape: list[str | int | None] = [self.batch, *[1] * (rank - 2), self.dim]
        padding = self.padding(emit, rank)
        number = (dtype or ir.DataType.FLOAT).numpy()
        other = self.log_size(emit, rank, dtype) if proportional else emit.const(0.0, number)
        return emit.op("Where", [padding, emit.const(HIDDEN, number), other], {}, dtype, shape, "hidden")

    def padding(self, emit: Emitter, rank: int) -> ir.Value:
        """``[B, 1, .., M]`` of ``rank`` axes, batch first: which tokens are padding."""
        no_size = emit.const(0.0, "float32")
        found = emit.op(
            "Equal", [self.size, no_size], {}, ir.DataType.BOOL, [self.batch, self.dim], "padding"
        )
        if rank == 2:
            return found
        shape: list[str | int | None] = [self.batch, *[1] * (rank - 2), self.dim]
        axes = emit.const(list(range(1, rank - 1)))
        return emit.op("Unsqueeze", [found, axes], {}, ir.DataType.BOOL, shape, "padding")

    def target_from(self, ancestor: Stage, emit: Emitter) -> ir.Value:
        """``[B, N]`` int64: index in this stage that each token of ``ancestor`` went to."""
        assert self.parent is not None and self.target is not None
        if self.parent is ancestor:
            return self.target
        if ancestor not in self._target_from:
            above = self.parent.target_from(ancestor, emit)
            self._target_from[ancestor] = emit.op(
                "GatherElements",
                [self.target, above],
                {"axis": 1},
                ir.DataType.INT64,
                [self.batch, ancestor.dim],
                "target",
            )
        return self._target_from[ancestor]


def deepest(stages: list[Stage]) -> Stage | None:
    """The stage that descends from all others, or None where two have parted."""
    last = max(stages, key=lambda stage: stage.depth)
    line = set(last.lineage())
    return last if all(stage in line for stage in stages) else None
