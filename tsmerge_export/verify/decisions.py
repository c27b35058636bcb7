"""Merge decisions of an artefact: how to read them, and how to compare them with those of the eager model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx

from tsmerge_export.methods.similarity import RANK_PADDING
from tsmerge_export.ops import DOMAIN, merge_op_types

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_KEPT, _TARGET = 2, 3


@dataclass(frozen=True)
class Tap:
    """Where one merge layer's decision can be read in a graph, and how many tokens lead the first a."""

    kept: str
    target: str
    protect_first: int


@dataclass(frozen=True)
class Decision:
    """What the eager model decided at one merge layer, and the scores behind it.

    Attributes:
        kept: ``[B, M]``, index among the layer's N input tokens. target: ``[B, N]``, output index of each of them.
        rank: ``[B, P]``, cosine of each a_i with its best b, or a RANK_* number.
        gap: ``[B, P]``, distance to its second best b (infinite where there is none).
        margin: ``[B]``, of a method that decides by other numbers: the smallest difference that the row hangs on.
        allows: with a margin: whether noise explains another decision (see ``Evidence`` in methods/method.py).
        count: of a method whose number of removed tokens comes from the data: how far scores must move before it is
            another number for the whole batch; None for all other methods.
    """

    kept: Ints
    target: Ints
    rank: Floats
    gap: Floats
    margin: Floats | None = None
    allows: Callable[[int, Ints, Ints, float], bool] | None = None
    count: float | None = None


class Step(Protocol):
    """A record of ``MergeRun.steps``, made with ``MergeRun.record`` on."""

    kept: Any
    target: Any
    evidence: Any


def from_steps(steps: Sequence[Step]) -> list[Decision]:
    """The decisions of an eager forward, as arrays. ``run.record`` must have been True."""
    out = []
    for step in steps:
        rank, gap, margin = (
            None if value is None else value.numpy()
            for value in (step.evidence.rank, step.evidence.gap, step.evidence.margin)
        )
        nothing = np.empty((len(step.kept), 0), np.float32)
        rank, gap = (nothing if value is None else value for value in (rank, gap))
        count = None if step.evidence.count is None else float(step.evidence.count)
        out.append(
            Decision(step.kept.numpy(), step.target.numpy(), rank, gap, margin, step.evidence.allows, count)
        )
    return out


def rows(decisions: Sequence[Decision], batch: int) -> int:
    """Rows that were decided one by one: the batch, or a multiple of it where a model has several in each of its rows
    (channels), those of one row side by side."""
    found = {len(decision.kept) for decision in decisions}
    return found.pop() if len(found) == 1 and min(found) % batch == 0 else batch


def moved_away(want: Sequence[tuple[Ints, Ints]], got: Sequence[tuple[Ints, Ints]]) -> list[tuple[int, int]]:
    """How two runs over the same tokens differ in what they merge, layer by layer.

    Tokens are followed back to those that went into the first layer, or into the one behind which they were unmerged.

    Args:
        want, got: ``(kept [B, M], target [B, N])`` of each layer.

    Returns:
        By layer, over all rows: the tokens that ``want`` has merged away behind it, and how many of them ``got`` has
        still.
    """
    out, left = [], []
    for run in (want, got):
        before: Ints | None = None
        survivors: list[tuple[Ints, int]] = []
        for kept, target in run:
            first = before is None or before.shape != target.shape
            before = kept if first or before is None else np.take_along_axis(before, kept, axis=1)
            survivors.append((before, target.shape[1] if first else survivors[-1][1]))
        left.append(survivors)
    for (mine, tokens), (theirs, _) in zip(*left, strict=True):
        gone = len(mine) * (tokens - mine.shape[1])
        still = sum(len(np.setdiff1d(b, a)) for a, b in zip(mine, theirs, strict=True))
        out.append((gone, still))
    return out


class Verdict(IntEnum):
    """How a row's decisions compare, over all merge layers."""

    EQUAL = 0
    FLIP = 1  # the first difference lies within float noise: both are right
    MISMATCH = 2


def tap(model: onnx.ModelProto) -> list[Tap]:
    """Make the decisions of every merge node (domain ``tsmerge``, in graph order) outputs of the graph, in place.

    Works on a file that holds merge nodes, not on one whose functions are inlined.
    """
    taps: list[Tap] = []
    outputs = {value.name for value in model.graph.output}
    for node in model.graph.node:
        if node.domain != DOMAIN or node.op_type not in merge_op_types():
            continue
        for slot, name in ((_KEPT, "kept"), (_TARGET, "target")):
            node.output.extend([""] * (slot + 1 - len(node.output)))
            node.output[slot] = node.output[slot] or f"__tsmerge_{len(taps)}_{name}"
            if node.output[slot] not in outputs:
                model.graph.output.append(
                    onnx.helper.make_tensor_value_info(node.output[slot], onnx.TensorProto.INT64, None)
                )
        first = next((a.i for a in node.attribute if a.name == "protect_first"), 0)
        taps.append(Tap(node.output[_KEPT], node.output[_TARGET], first))
    return taps


def compare(
    want: Sequence[Decision], got: Sequence[tuple[Ints, Ints]], taps: Sequence[Tap], noise: float, batch: int
) -> Ints:
    """Compare decisions row by row. Only the first differing layer of a row is judged: what follows it must differ.

    Args:
        want: the eager model's, per layer. got: the artefact's (kept, target), per layer.
        taps: of the artefact. noise: scores this close may be ordered either way. batch: rows B; a layer may decide
            over a multiple of them, or over other rows, which then count for all.

    Returns:
        ``[B]`` of :class:`Verdict`. All rows are mismatches where the number of layers differs, or that of tokens,
        unless that comes from the data and hangs on noise: then all rows flip together.
    """
    verdict = np.zeros(batch, np.int64)
    if len(want) != len(got):
        return np.full(batch, Verdict.MISMATCH, np.int64)
    for w, made, place in zip(want, got, taps, strict=True):
        same = w.kept.shape == made[0].shape and w.target.shape == made[1].shape
        # A count that comes from the data may be another one within float noise, for all rows at once; it also is
        # where a row of the batch flipped before.
        noisy = w.count is not None and (w.count <= noise or bool((verdict == Verdict.FLIP).any()))
        noisy &= w.target.shape == made[1].shape and len(made[0]) == len(w.kept)
        todo = _of_rows(verdict == Verdict.EQUAL, len(w.kept))
        found = np.zeros(len(todo), np.int64)
        for row in np.flatnonzero(todo):
            if same:
                found[row] = _judge_row(w, int(row), *made, place.protect_first, noise)
            else:
                fair = noisy and _other_length(w, int(row), *made, place.protect_first, noise)
                found[row] = Verdict.FLIP if fair else Verdict.MISMATCH
        verdict = np.where(verdict == Verdict.EQUAL, fold_rows(found, batch), verdict)
        if not same:
            return verdict
    return verdict


def _judge_row(want: Decision, row: int, kept: Ints, target: Ints, first: int, noise: float) -> Verdict:
    if np.array_equal(want.kept[row], kept[row]) and np.array_equal(want.target[row], target[row]):
        return Verdict.EQUAL
    if want.margin is not None:
        fair = want.margin[row] <= noise and (
            want.allows is None or want.allows(row, kept[row], target[row], noise)
        )
        return Verdict.FLIP if fair else Verdict.MISMATCH
    own = Decision(want.kept[row], want.target[row], want.rank[row], want.gap[row])
    return _judge(own, kept[row], target[row], first, noise)


def _of_rows(values: npt.NDArray[np.bool_], rows: int) -> npt.NDArray[np.bool_]:
    """``[rows]``: the entry of each row of decisions; the reverse of :func:`fold_rows`."""
    if rows % len(values):
        return np.full(rows, values.any())
    return np.repeat(values, rows // len(values))


def fold_rows(values: npt.NDArray[Any], batch: int) -> npt.NDArray[Any]:
    """``[B]``: the worst of the rows of decisions that belong to each row of the outputs.

    A model may put channels into the batch: B x C rows, those of one series in a row. Rows that are no multiple of B
    belong to all.
    """
    rows = len(values)
    if rows == batch:
        return values
    if rows % batch:
        return np.full(batch, values.max())
    worst: npt.NDArray[Any] = values.reshape(batch, rows // batch).max(1)
    return worst


def _well_formed(kept: Ints, target: Ints) -> bool:
    """Whether one row's survivors are in order and every token goes to one of them, each survivor to itself."""
    return bool(
        0 < len(kept) <= len(target)
        and (np.diff(kept) > 0).all()
        and kept[0] >= 0
        and kept[-1] < len(target)
        and target.min() >= 0
        and target.max() < len(kept)
        and np.array_equal(target[kept], np.arange(len(kept)))
    )


def _other_length(want: Decision, row: int, kept: Ints, target: Ints, first: int, noise: float) -> bool:
    """Whether one row's decision may be right where the batch was left another number of tokens."""
    if want.margin is not None:  # each row has a count of its own, and the longest one's is the batch's
        return want.allows is None or want.allows(row, kept[row], target[row], noise)
    own = Decision(want.kept[row], want.target[row], want.rank[row], want.gap[row])
    return _other_count(own, kept[row], target[row], first, noise)


def _other_count(want: Decision, kept: Ints, target: Ints, first: int, noise: float) -> bool:
    """Whether one row's decision is right for its own number of tokens: the a's of best rank were merged, no other."""
    if not _well_formed(kept, target):
        return False
    merged = ~np.isin(first + 2 * np.arange(len(want.rank)), kept)
    if merged.sum() != len(target) - len(kept):
        return False
    worst_in = want.rank[merged].min(initial=np.inf)
    return bool(worst_in - want.rank[~merged].max(initial=-np.inf) >= -noise)


def _judge(want: Decision, kept: Ints, target: Ints, first: int, noise: float) -> Verdict:
    """Judge one row's different decision: a flip follows from scores moved by at most ``noise`` / 2 each."""
    if not _well_formed(kept, target):
        return Verdict.MISMATCH
    tokens, pairs = len(target), len(want.rank)
    position = first + 2 * np.arange(pairs)
    merged_want, merged_got = ~np.isin(position, want.kept), ~np.isin(position, kept)
    removed = tokens - len(kept)
    if merged_got.sum() != removed:  # something that is no a was merged
        return Verdict.MISMATCH
    ordered = np.sort(want.rank)[::-1]
    last_in = ordered[removed - 1]
    first_out = ordered[removed] if removed < pairs else -np.inf
    # Padding, NaN and the like have whole numbers for a rank: their order is no matter of noise.
    cosine = np.abs(want.rank) <= 1 + noise
    dropped, added = merged_want & ~merged_got, merged_got & ~merged_want
    fair = (want.rank[dropped] - first_out <= noise).all() and (last_in - want.rank[added] <= noise).all()
    fair &= cosine[dropped | added].all()
    both = merged_want & merged_got
    moved = both & (want.kept[want.target[position]] != kept[target[position]])
    # A dropped padding token has no score itself, but its b is chosen by cosine like any other's.
    padding = want.rank == RANK_PADDING
    fair &= (cosine | padding)[moved].all() and (want.gap[moved] <= noise).all()
    if not fair:
        return Verdict.MISMATCH
    # It weighs nothing: where padding alone went elsewhere, everything that follows must be the same.
    return Verdict.EQUAL if not (dropped | added | moved & ~padding).any() else Verdict.FLIP


def count_tie(want: Sequence[Decision], noise: float, batch: int) -> bool:
    """Whether the number of tokens that any layer leaves hangs on scores that differ by at most ``noise``.

    Never so where the number follows from the length alone; else also where a row of the batch may have flipped before.
    """
    return any(
        w.count is not None and (w.count <= noise or bool(near_tie(want[:layer], noise, batch).any()))
        for layer, w in enumerate(want)
    )


def near_tie(want: Sequence[Decision], noise: float, batch: int) -> npt.NDArray[np.bool_]:
    """``[B]``: whether any layer's decision of the row hangs on scores that differ by at most ``noise``.

    A count that comes from the data is a decision of every row.
    """
    close = np.zeros(batch, np.bool_)
    for w in want:
        if w.count is not None:  # a row that flipped before may change the count, and that all rows
            close |= w.count <= noise or bool(close.any())
        if w.margin is not None:
            close |= fold_rows(w.margin <= noise, batch)
            continue
        removed = w.target.shape[1] - w.kept.shape[1]
        if removed == 0:
            continue
        ordered = -np.sort(-w.rank, axis=1)
        if removed < ordered.shape[1]:
            close |= fold_rows(ordered[:, removed - 1] - ordered[:, removed] <= noise, batch)
        merged = w.rank >= ordered[:, removed - 1 : removed] - noise
        close |= fold_rows(((w.gap <= noise) & merged & (w.rank != RANK_PADDING)).any(axis=1), batch)
    return close
