"""Dynamic merging of each series by its own count: the specification, in plain PyTorch.

Source: arXiv 2405.17951, section 3. The paper averages the count over a batch, so that a forecast depends on what is
beside it; here rows lose as many tokens as they have alike, and shorter ones end in padding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tsmerge_export.errors import UsageError
from tsmerge_export.methods.combine import Merged, combine, identity, read_from_before
from tsmerge_export.methods.dynamic import DEFAULT_THRESHOLD, parse_threshold
from tsmerge_export.methods.dynamic.reference import DynamicMethod, count_margin, exceeding
from tsmerge_export.methods.matching import Matching, check_tokens, match, read_matching, scores_of
from tsmerge_export.methods.method import Attributes, Evidence, Ints
from tsmerge_export.methods.pair_attributes import pair_options
from tsmerge_export.methods.similarity import RANK_NONE, SCORE_STEP, in_steps


def series_merge(
    x: Tensor,
    metric: Tensor | None = None,
    size: Tensor | None = None,
    *,
    k: int | str | None = 1,
    similarity: str = "cosine",
    causal: bool = False,
    threshold: float = DEFAULT_THRESHOLD,
    min_tokens: int = 0,
    protect_first: int = 0,
    protect_last: int = 0,
) -> Merged:
    """Merge, in each row by itself, as many neighbouring tokens as are more alike than a threshold.

    Rules R7.6 to R7.11 of docs/specification.md. A row comes out as
    :func:`~tsmerge_export.methods.dynamic.reference.dynamic_merge` gives it in a batch of its own, and then, in front
    of its last ``protect_last`` tokens, padding (size 0) up to the length of the longest row. Padding that a row ends
    in takes no part, so that rows stay independent of each other in the steps that follow.

    Args:
        x, metric, size and the options: as of :func:`~tsmerge_export.methods.dynamic.reference.dynamic_merge`.

    Returns:
        :class:`Merged` with M the tokens of the longest row. ``kept`` repeats a token in padding that was added.

    Raises:
        UsageError: an argument is out of range or of the wrong shape.
    """
    check_tokens(x, metric, size)
    if min_tokens < 0:
        raise UsageError("min_tokens must not be negative")
    how = read_matching(k, similarity, causal, protect_first, protect_last)
    steps = in_steps(parse_threshold(threshold))
    size = x.new_ones(x.shape[:2], dtype=torch.float32) if size is None else size.float()
    rows = _choose((x if metric is None else metric).detach(), size, how, steps, min_tokens)
    batch, tokens, width = x.shape
    left = min(tokens, max(1, min_tokens))
    left = max([left, *rows.left.tolist()])  # R7.8
    if left == tokens and not rows.goes.any():
        return identity(x, size)
    # All rows as one, so that each may lose as many as it does.
    start = torch.arange(batch, device=x.device)[:, None] * tokens
    row, i = rows.goes.nonzero().unbind(1)
    source = start[row, 0] + protect_first + 2 * i
    into = start[row, 0] + protect_first + 2 * rows.partner[row, i] + 1
    whole = combine(
        x.reshape(1, batch * tokens, width), size.reshape(1, batch * tokens), source[None], into[None]
    )
    if causal:
        whole = read_from_before(whole)
    # R7.9. `stays` of the row's tokens survive in it, padding behind them included; each slot takes one of them.
    last = min(protect_last, tokens)
    stays = (tokens - rows.goes.sum(1))[:, None]
    base = stays.cumsum(0) - stays
    slot, behind = torch.arange(left, device=x.device), left - last
    in_front = torch.minimum(slot, (stays - last - 1).clamp(min=0))
    take = base + torch.where(slot >= behind, slot + stays - left, in_front)
    padding = (slot >= rows.left[:, None] - last) & (slot < behind)
    # R7.10
    place = whole.target.view(batch, tokens) - base
    target = torch.where(place >= stays - last, place - stays + left, place.clamp(max=max(behind - 1, 0)))
    return Merged(
        whole.y[0][take], whole.size[0][take].masked_fill(padding, 0), whole.kept[0][take] - start, target
    )


class _Rows(NamedTuple):
    """What each row does by itself.

    Attributes:
        rank, partner: ``[B, P]``, see :func:`~tsmerge_export.methods.matching.match`. goes: ``[B, P]`` bool.
        most: ``[B]``, the cap of its count. left: ``[B]``, how many tokens it has left. free: ``[B]``, how many
            unprotected tokens take part.
    """

    rank: Tensor
    partner: Tensor
    goes: Tensor
    most: Tensor
    left: Tensor
    free: Tensor


def _choose(metric: Tensor, size: Tensor, how: Matching, steps: int, min_tokens: int) -> _Rows:
    """Which a's of each row go (R7.6, R7.7)."""
    tokens = size.shape[1]
    unprotected = size[:, how.protect_first : max(how.protect_first, tokens - how.protect_last)]
    number = torch.arange(1, unprotected.shape[1] + 1, device=size.device)
    free = torch.where(unprotected == 0, 0, number)
    free = torch.cat([free, free.new_zeros((len(free), 1))], 1).amax(1)
    own = tokens - unprotected.shape[1] + free
    most = torch.minimum(free // 2, (own - min_tokens).clamp(min=0))
    if unprotected.shape[1] < 2:
        none = metric.new_empty((len(size), 0), dtype=torch.float32)
        return _Rows(none, none.long(), none.bool(), most, own, free)
    rank, partner = match(metric, size, how, free)
    removed = torch.minimum(exceeding(rank, steps).sum(1), most)
    order = rank.sort(dim=-1, descending=True, stable=True).indices  # R4.3
    turn = torch.arange(rank.shape[1], device=rank.device).expand_as(order)
    goes = torch.empty_like(order).scatter(1, order, turn) < removed[:, None]
    return _Rows(rank, partner, goes, most, own - removed, free)


class SeriesMethod(DynamicMethod):
    """Dynamic merging per series as a method that a plan can place in a model."""

    op_type = "SeriesMerge"
    pads = True

    def merge(self, x: Tensor, metric: Tensor, size: Tensor | None, attributes: Attributes) -> Merged:
        """:func:`series_merge` with the operator's attributes."""
        options: dict[str, Any] = dict(attributes)
        options |= pair_options(attributes)
        return series_merge(x, metric, size, **options)

    def evidence(self, x: Tensor, metric: Tensor, size: Tensor | None, attributes: Attributes) -> Evidence:
        """How far similarities must move before a row's decision is another one, and before any row's count is."""
        options = pair_options(attributes)
        options |= {name: int(attributes[name]) for name in ("protect_first", "protect_last")}
        how = read_matching(**options)
        sizes = metric.new_ones(metric.shape[:2], dtype=torch.float32) if size is None else size.float()
        steps = in_steps(attributes["threshold"])
        rows = _choose(metric.detach(), sizes, how, steps, int(attributes["min_tokens"]))
        cap = zip(rows.rank, rows.most.tolist(), strict=True)
        counts = rows.rank.new_tensor([float(count_margin(rank[None], steps, most)) for rank, most in cap])
        gap = _gap(metric.detach(), sizes, how, rows)
        ordered = rows.rank.sort(dim=-1, descending=True).values
        margin = counts.clone()
        for row, removed in enumerate(rows.goes.sum(1).tolist()):
            if not removed:
                continue
            chosen = gap[row][rows.goes[row]].amin()
            margin[row] = torch.minimum(margin[row], chosen)
            if removed < int(exceeding(ordered[row], steps).sum()):  # the cap decides which
                margin[row] = torch.minimum(margin[row], ordered[row, removed - 1] - ordered[row, removed])
        smallest = torch.cat([counts, counts.new_full((1,), torch.inf)]).amin()
        return Evidence(margin=margin, count=smallest, allows=_allows(rows, gap, steps, how))


def _gap(metric: Tensor, size: Tensor, how: Matching, rows: _Rows) -> Tensor:
    """``[B, P]``: distance of each a's best candidate to its second best, infinite where there is none."""
    infinite = torch.full_like(rows.rank, torch.inf)
    if rows.rank.shape[1] == 0:
        return infinite
    scores, _, _ = scores_of(metric, size, how, rows.free)
    if scores.shape[-1] < 2:
        return infinite
    best, second = scores.topk(2, dim=-1).values.unbind(-1)
    return torch.where(second == RANK_NONE, infinite, best - second)


def _allows(rows: _Rows, gap: Tensor, steps: int, how: Matching) -> Callable[[int, Ints, Ints, float], bool]:
    """Whether a row's decision follows from similarities that are off by half of the noise."""
    rank, goes, partner, gaps = (each.numpy() for each in (rows.rank, rows.goes, rows.partner, gap))
    free, most = rows.free.tolist(), rows.most.tolist()
    least, first = steps * SCORE_STEP, how.protect_first

    def allows(row: int, kept: Ints, target: Ints, noise: float) -> bool:
        places = range((free[row] + 1) // 2)[: rank.shape[1]]
        into = [int(kept[target[first + 2 * i]]) for i in places]
        went = [into[i] != first + 2 * i for i in places]
        for i in places:
            moved = not how.causal and into[i] != first + 2 * int(partner[row, i]) + 1
            if went[i] and moved and goes[row, i] and gaps[row, i] > noise:
                return False
        merged = [float(rank[row, i]) for i in places if went[i]]
        others = [float(rank[row, i]) for i in places if not went[i]]
        if len(merged) > most[row] or min(merged, default=2.0) < least - noise:
            return False
        best = max(others, default=-2.0)
        return best <= least + noise or (
            len(merged) == most[row] and min(merged, default=2.0) >= best - noise
        )

    return allows
