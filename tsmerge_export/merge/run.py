"""The state of one forward pass that merges: which original token each surviving one is, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from tsmerge_export.console.one_line import by_fields
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.merge import kernels
from tsmerge_export.merge.plan import MergeStep
from tsmerge_export.methods.combine import unmerge
from tsmerge_export.methods.method import Evidence
from tsmerge_export.settings.config import Metric, Positions
from tsmerge_export.settings.run_time import read

#: What is added to the scores of padding: nothing is left of it behind a softmax, and no sum with the lowest float32,
#: which masks add, is infinite.
HIDDEN = -1e30

HIDDEN_NEEDS_BLOCKS = (
    "--metric hidden needs the blocks of a state-space model, and this model has none; use --metric x"
)


@dataclass
class StepRecord:
    """What one merge step of the last forward decided. Shapes as in :class:`~tsmerge_export.methods.combine.Merged`.

    ``evidence`` are the scores behind it and ``compared`` ``[B, N, Dm]`` the features that it was made by, filled only
    while ``MergeRun.record`` is True.
    """

    layer: int
    removed: int
    kept: Tensor
    target: Tensor
    size: Tensor
    evidence: Evidence | None = None
    compared: Tensor | None = None

    def __repr__(self) -> str:
        return by_fields(self)


class MergeRun:
    """Merging inside one eager model. A family's hooks call :meth:`begin`, :meth:`merge` and :meth:`align`.

    Attributes:
        steps: one record per merge step of the last forward, in order.
        prop_attn: proportional attention was asked for.
        pads: rows may come out shorter than others, with padding behind that attention must not see.
        ratio: of a plan whose ratio is chosen at run time, the share of the tokens that each step of the next forwards
            removes; it may be set to anything that :func:`tsmerge_export.settings.run_time.read` reads, and None is the
            default. None for all other plans.
        record: also keep the scores behind each decision (for parity checks; off by default).
        follow: records of another forward of the same shapes, kept with ``record``: every step decides by what that
            one compared, so that both decide alike (for a forward in another precision).
    """

    def __init__(
        self,
        plan: Mapping[int, MergeStep],
        positions: Positions = "gather",
        *,
        metric: Metric = "x",
        prop_attn: bool = False,
    ) -> None:
        self._plan = dict(plan)
        self._ratio: Fraction | None = None
        self._positions = positions
        self._metric = metric
        self.prop_attn = prop_attn
        self.pads = any(step.pads for step in self._plan.values())
        self.record = False
        self.follow: Sequence[StepRecord] | None = None
        self._wide = torch.float32
        self._kernels = kernels.found() if self._plan else None
        self.begin(None)

    def begin(self, size: Tensor | None) -> None:
        """Start a forward. ``size [B, N]``: original tokens per token, 0 is padding; None is all 1.

        Tokens that stand apart (R13.9) are not among the N, here and in all that follows: the family's hooks keep them.
        """
        self.steps: list[StepRecord] = []
        self._size = self._first_size = size
        self._kept: Tensor | None = None
        self._target: Tensor | None = None

    @property
    def ratio(self) -> Fraction | None:
        """See the class."""
        return self._ratio

    @ratio.setter
    def ratio(self, value: Any) -> None:
        """Raises UsageError: no ratio, or one that was fixed beforehand."""
        if value is not None and not (self._plan and all(step.at_run_time for step in self._plan.values())):
            raise UsageError(
                "ratio is chosen at run time only with --ratio runtime; nothing else was planned here"
            )
        self._ratio = None if value is None else read(value)

    def restart(self) -> None:
        """Go on with tokens that have been unmerged, or made anew: all of size 1 (R13.6), as many as there are now."""
        self._size = self._kept = self._target = None

    @property
    def compact(self) -> bool:
        """Whether positions are cut to the first M, and not gathered."""
        return self._positions == "compact"

    @property
    def merged(self) -> bool:
        """Whether a merge step has run since :meth:`begin`."""
        return self._kept is not None

    def began_with(self, mask: Tensor) -> bool:
        """Whether a mask ``[R, N]``, R a multiple of B, is that of the original tokens, though as many came out: where
        the longest row loses none, others have moved."""
        size = self._first_size
        if not self.pads or size is None or mask.dim() != 2 or mask.shape[1] != size.shape[1]:
            return False
        return torch.equal(mask != 0, (size != 0).repeat_interleave(len(mask) // len(size), dim=0))

    @property
    def kept(self) -> Tensor | None:
        """``[B, M]`` int64: index among the original tokens of each surviving one; None before the first step."""
        return self._kept

    def merge(
        self, layer: int, x: Tensor, keys: Tensor | None = None, hidden: Tensor | None = None
    ) -> Tensor:
        """Run the step planned for ``layer``.

        Args:
            layer: index of the merge point.
            x: ``[B, N, D]``, the residual stream after attention.
            keys: ``[B, N, H, d]``, that attention's keys by head, for a metric of keys.
            hidden: ``[B, N, D]``, what the block computed before its residual was added, for a metric of hidden states.

        Returns:
            ``[B, M, D]``, or x where no step is planned.

        Raises:
            UnsupportedError: the metric is the keys or the hidden states, and the family gives none.
        """
        step = self._plan.get(layer)
        if step is None:
            return x
        if self._ratio is not None:
            step = step.at(self._ratio)
        metric = None  # R13.4
        if self._metric == "key":
            if keys is None:
                raise UnsupportedError(
                    "--metric key: this family does not tell its attention keys; use --metric x"
                )
            metric = keys.mean(2)
        elif self._metric == "hidden":
            if hidden is None:
                raise UnsupportedError(HIDDEN_NEEDS_BLOCKS)
            metric = hidden
        if self.follow is not None:
            metric = self.follow[len(self.steps)].compared
        evidence = step.evidence(x, self._size, metric) if self.record else None
        compared = x if metric is None else metric
        if self._kernels is not None and step.op_type == kernels.OP_TYPE and self._kernels.take(x, compared):
            result = kernels.merged(self._kernels, x, compared, self._size, step.attributes)
        else:
            result = step(x, self._size, metric)
        removed = x.shape[1] - result.y.shape[1]
        made = StepRecord(layer, removed, result.kept, result.target, result.size, evidence)
        if self.record:
            made.compared = compared
        self.steps.append(made)
        self._wide = torch.promote_types(x.dtype, torch.float32)
        self._size = result.size  # R13.1
        if self._kept is None or self._target is None:
            self._kept, self._target = result.kept, result.target
        else:  # R13.2
            self._kept = self._kept.gather(1, result.kept)
            self._target = result.target.gather(1, self._target)
        return result.y

    def align(self, value: Tensor, *axes: int, positional: bool = False) -> Tensor:
        """Bring a value with one entry per original token to the surviving tokens (R13.3).

        Along two axes this is what the operator GatherPairs does (R11.1).

        Args:
            value: any dtype; its axis 0 is the batch (1, B, or a multiple of B with rows repeated in place).
            axes: the axes of length N (original tokens). Axes of length 1 are left alone.
            positional: the value encodes positions (not a mask): cut to the first M entries under ``compact``.

        Returns:
            The value with those axes of length M.
        """
        if self._kept is None:
            return value
        kept = self._kept
        if positional and self.compact:
            for axis in axes:
                value = value.narrow(axis, 0, kept.shape[1]) if value.shape[axis] != 1 else value
            return value
        if value.shape[0] not in (1, kept.shape[0]):  # generate() repeats each series once per sample
            kept = kept.repeat_interleave(value.shape[0] // kept.shape[0], dim=0)
        original = 0 if self._target is None else self._target.shape[1]
        for axis in axes:
            # N = 1 keeps its one token, so an axis of length 1 is right as it is, broadcast or not.
            if value.shape[axis] not in (1, original):
                raise ValueError(
                    f"axis {axis} of {list(value.shape)} does not have one entry per token ({original})"
                )
        if value.dim() == 4 and axes == (2, 3) and value.shape[0] == 1 and min(value.shape[2:]) > 1:
            return _pairs(value[0], kept)
        for axis in axes:
            if value.shape[axis] != 1:
                value = _take(value, kept, axis)
        return value

    def proportion(self, batch: int) -> Tensor | None:
        """``[batch, 1, 1, M]`` to add to the scores of attention on the surviving tokens: what hides padding that rows
        end in (R13.7), and with proportional attention the logarithm of the sizes (R13.5).

        Float32, or as wide as the tokens. Source of the latter: ToMe, arXiv 2210.09461, section 3.

        Args:
            batch: rows of the scores: B, or a multiple of B with rows repeated in place.

        Returns:
            None where there is nothing to add, or nothing has merged.
        """
        if not (self.prop_attn or self.pads) or not self.merged or self._size is None:
            return None
        size = self._size.to(self._wide)
        added = self.log_size()
        added = torch.zeros_like(size) if added is None else added
        if self.pads:
            added = added.masked_fill(size == 0, HIDDEN)
        added = added[:, None, None, :]
        return added if batch == len(added) else added.repeat_interleave(batch // len(added), dim=0)

    def log_size(self) -> Tensor | None:
        """``[B, M]`` logarithm of the sizes of the surviving tokens, 0 for padding, which masks hide.

        Returns:
            None where proportional attention is off or nothing has merged.
        """
        if not self.prop_attn or not self.merged or self._size is None:
            return None
        return self._size.to(self._wide).clamp(min=1).log()

    def mask(self, mask: Tensor) -> Tensor:
        """A mask ``[B, N]`` of the original tokens, 0 where one is padding, for the surviving ones: ``[B, M]``."""
        mask = self.align(mask, 1)
        return mask.masked_fill(self._size == 0, 0) if self.pads and self._size is not None else mask

    def unmerge(self, y: Tensor) -> Tensor:
        """``[B, M, ...]`` back to ``[B, N, ...]``: every original token gets a copy of the one it went into."""
        return y if self._target is None else unmerge(y, self._target)


def _take(value: Tensor, kept: Tensor, axis: int) -> Tensor:
    """The entries ``kept [B, M]`` along an axis of ``value [B or 1, ...]``."""
    shape = [len(kept), *value.shape[1:]]
    index = kept.view(len(kept), *(kept.shape[1] if a == axis else 1 for a in range(1, value.dim())))
    # Not take_along_dim: it computes and keeps a remainder of every index.
    return value.expand(shape).gather(axis, index.expand([*shape[:axis], kept.shape[1], *shape[axis + 1 :]]))


def _pairs(value: Tensor, kept: Tensor) -> Tensor:
    """``value [H, N, N]`` at the pairs of ``kept [B, M]``: ``[B, H, M, M]``.

    By one index for all heads. One axis after the other would expand the value to every row of the batch, and its
    gradient too.
    """
    batch, left = kept.shape
    index = (kept[:, :, None] * value.shape[2] + kept[:, None, :]).flatten()
    # The gradient of index_select is a fast sum where there is one axis.
    heads = [one.index_select(0, index).view(batch, left, left) for one in value.flatten(1).unbind()]
    return torch.stack(heads, 1)
