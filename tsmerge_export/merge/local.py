"""Local token merging: the specification, in plain PyTorch.

Source: "Efficient Time Series Processing for Transformers and State-Space Models through Token Merging",
arXiv 2405.17951, section 3 (local merging); with ``k`` global it is the bipartite soft matching of ToMe,
arXiv 2210.09461, section 3. Every exported operator is proved against this file.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from tsmerge_export.config import MergeConfig, parse_k, parse_ratio, tokens_removed
from tsmerge_export.errors import UsageError
from tsmerge_export.merge.combine import Merged, combine, identity
from tsmerge_export.merge.method import Attributes, Evidence, Place
from tsmerge_export.merge.similarity import RANK_INTO_PADDING, RANK_NONE, RANK_PADDING, cosine, norm

# Up to this neighbourhood the band is computed offset by offset (linear in N), above it by one matrix product.
_BAND_LIMIT = 32


def _candidates(metric_a: Tensor, metric_b: Tensor, k: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Similarity of every a to the b's in its neighbourhood.

    Args:
        metric_a: ``[B, P, Dm]`` float32. metric_b: ``[B, Q, Dm]`` float32, Q in {P, P - 1}.
        k: neighbourhood, |i - j| < k; None is all.

    Returns:
        Scores ``[B, P, C]``, the index j of each candidate ``[P, C]`` (ascending along C) and whether it exists.
    """
    p, q = metric_a.shape[1], metric_b.shape[1]
    i = torch.arange(p, device=metric_a.device)[:, None]
    norm_a, norm_b = norm(metric_a), norm(metric_b)
    if k is None or k > min(_BAND_LIMIT, p):
        j = torch.arange(q, device=metric_a.device)[None, :].expand(p, q)
        inside = torch.ones_like(j, dtype=torch.bool) if k is None else (i - j).abs() < k
        dot = metric_a @ metric_b.transpose(1, 2)
        return cosine(dot, norm_a[:, :, None], norm_b[:, None, :]), j, inside
    j = i + torch.arange(1 - k, k, device=metric_a.device)[None, :]
    inside = (j >= 0) & (j < q)
    j = j.clamp(0, q - 1)
    columns = [
        cosine((metric_a * metric_b[:, j[:, c]]).sum(-1), norm_a, norm_b[:, j[:, c]])
        for c in range(2 * k - 1)
    ]
    return torch.stack(columns, -1), j, inside


def _scores(
    metric: Tensor, size: Tensor, first: int, last: int, k: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of all candidates with the ranks of padding, NaN and missing ones put in (steps 2 and 4).

    Returns:
        scores ``[B, P, C]`` float32, the candidates' j ``[P, C]``, and which a's are padding ``[B, P]``.
    """
    end = metric.shape[1] - last
    metric_a, metric_b = metric[:, first:end:2].float(), metric[:, first + 1 : end : 2].float()
    padding_a, padding_b = size[:, first:end:2] == 0, size[:, first + 1 : end : 2] == 0
    scores, j, inside = _candidates(metric_a, metric_b, k)
    # j is [P, C]: padding_b[:, j] is [B, P, C]
    into_padding = padding_b[:, j] & ~padding_a[:, :, None]
    scores = scores.masked_fill(into_padding, RANK_INTO_PADDING).masked_fill(~inside, RANK_NONE)
    return scores, j, padding_a


def _match(metric: Tensor, size: Tensor, first: int, last: int, k: int | None) -> tuple[Tensor, Tensor]:
    """Rank of every a, and the b it would go into (steps 2 to 4 of the design).

    Returns:
        rank ``[B, P]`` float32 and partner ``[B, P]`` int64 (index j among the b's).
    """
    scores, j, padding_a = _scores(metric, size, first, last, k)
    best = scores.argmax(-1)  # the first of equals: the lowest j
    rank = scores.gather(-1, best[..., None])[..., 0]
    rank = torch.where(padding_a & (rank > RANK_NONE), torch.full_like(rank, RANK_PADDING), rank)
    partner = torch.arange(j.shape[0], device=j.device)[None, :]
    return rank, j[partner, best]


def ranks(
    metric: Tensor,
    size: Tensor | None = None,
    *,
    k: int | str | None = 1,
    protect_first: int = 0,
    protect_last: int = 0,
) -> tuple[Tensor, Tensor]:
    """The scores behind a merge decision: what :func:`local_merge` sorts.

    Args:
        metric, size and the options: as of :func:`local_merge`.

    Returns:
        rank ``[B, P]`` float32 (cosine of each a with its best b; see RANK_* for what is no cosine) and the gap
        ``[B, P]`` float32 between it and the second best b (infinite where there is none).
    """
    k = None if k is None else parse_k(k)
    sizes = metric.new_ones(metric.shape[:2], dtype=torch.float32) if size is None else size
    if metric.shape[1] - protect_first - protect_last < 2:
        empty = metric.new_empty((metric.shape[0], 0), dtype=torch.float32)
        return empty, empty
    rank, _ = _match(metric, sizes, protect_first, protect_last, k)
    scores, _, _ = _scores(metric, sizes, protect_first, protect_last, k)
    if scores.shape[-1] < 2:
        return rank, torch.full_like(rank, torch.inf)
    best, second = scores.topk(2, dim=-1).values.unbind(-1)
    return rank, torch.where(second == RANK_NONE, torch.full_like(best, torch.inf), best - second)


def local_merge(
    x: Tensor,
    metric: Tensor | None = None,
    size: Tensor | None = None,
    *,
    k: int | str | None = 1,
    r: int | None = None,
    ratio: Fraction | str | float | None = None,
    min_tokens: int = 0,
    protect_first: int = 0,
    protect_last: int = 0,
) -> Merged:
    """Merge the r most similar neighbouring token pairs of every row (arXiv 2405.17951, section 3).

    Of the unprotected tokens, A is every first and B every second. Each a_i takes the b_j of highest
    cosine similarity with ``|i - j| < k``; the r best a's are merged into their b's. Ties go to the lowest index.
    NaN ranks below every number, padding (size 0) is dropped first, and a real token goes into padding only
    where nothing else is left. A merged token is the size-weighted mean of its members, at b's place.
    Cosines are taken in float32 (vectors of norm below 1e-19 count as zero) and rounded to 2^-20 before they are
    compared, so that tokens which are equal tie whatever the order of sums.

    Args:
        x: ``[B, N, D]`` float32, float16 or bfloat16.
        metric: ``[B, N, Dm]``, the features compared; default x.
        size: ``[B, N]`` float32, original tokens per token, 0 is padding; default 1 everywhere.
        k: neighbourhood >= 1; None or ``"global"`` is all tokens (ToMe).
        r: tokens to remove, >= 0. Either r or ratio must be given.
        ratio: share of N to remove (rounded down), 0 < ratio <= 1/2, exact.
        min_tokens: leave at least this many.
        protect_first, protect_last: so many tokens at either end take no part.

    Returns:
        :class:`Merged` with M = N - r(N), where
        ``r(N) = min(max(0, r or N*ratio), (N - protect_first - protect_last) // 2, max(0, N - min_tokens))``.

    Raises:
        UsageError: an argument is out of range or of the wrong shape.
    """
    if x.dim() != 3:
        raise UsageError(f"x must be [batch, tokens, features], not {list(x.shape)}")
    if (r is None) == (ratio is None):
        raise UsageError("give either r or ratio")
    if (r is not None and r < 0) or min(min_tokens, protect_first, protect_last) < 0:
        raise UsageError("r, min_tokens, protect_first and protect_last must not be negative")
    k = None if k is None else parse_k(k)
    batch, tokens, _ = x.shape
    for name, value in (("metric", metric), ("size", size)):
        if value is not None and value.shape[:2] != x.shape[:2]:
            raise UsageError(
                f"{name} must be [batch, tokens, ...] = {[batch, tokens]}, not {list(value.shape)}"
            )
    exact = None if ratio is None else parse_ratio(ratio)
    protected = protect_first + protect_last
    removed = tokens_removed(tokens, r=r or 0, ratio=exact, min_tokens=min_tokens, protected=protected)
    size = x.new_ones((batch, tokens), dtype=torch.float32) if size is None else size.float()
    if removed == 0:
        return identity(x, size)

    rank, partner = _match((x if metric is None else metric).detach(), size, protect_first, protect_last, k)
    # stable: the lowest i of equals
    best = rank.sort(dim=-1, descending=True, stable=True).indices[:, :removed]
    # From here on indices are positions among all N tokens.
    source = protect_first + 2 * best
    into = protect_first + 2 * partner.gather(1, best) + 1
    return combine(x, size, source, into)


class LocalMethod:
    """Local merging as a method that a plan can place in a model (see :mod:`tsmerge_export.merge.plan`)."""

    name = "local"
    op_type = "LocalMerge"

    def attributes(self, config: MergeConfig, place: Place) -> Attributes:
        """Attributes of the operator ``tsmerge::LocalMerge``; k = 0 stands for global."""
        r, ratio = config.amount(place.turn, place.turns)
        return {
            "k": 0 if config.k is None else int(config.k),
            "r": r,
            "ratio_num": ratio.numerator,
            "ratio_den": ratio.denominator,
            "min_tokens": config.min_tokens,
            "protect_first": place.protect_first,
            "protect_last": place.protect_last,
        }

    def merge(self, x: Tensor, metric: Tensor, size: Tensor | None, attributes: Attributes) -> Merged:
        """:func:`local_merge` with the operator's attributes."""
        options: dict[str, Any] = dict(attributes)
        ratio = Fraction(options.pop("ratio_num"), options.pop("ratio_den"))
        k = options.pop("k") or None
        r = options.pop("r")
        if ratio:
            return local_merge(x, metric, size, k=k, ratio=ratio, **options)
        return local_merge(x, metric, size, k=k, r=r, **options)

    def evidence(self, x: Tensor, metric: Tensor, size: Tensor | None, attributes: Attributes) -> Evidence:
        """:func:`ranks` with the operator's attributes."""
        protect = {name: int(attributes[name]) for name in ("protect_first", "protect_last")}
        rank, gap = ranks(metric, size, k=int(attributes["k"]) or None, **protect)
        return Evidence(rank=rank, gap=gap)


class GlobalMethod(LocalMethod):
    """Bipartite soft matching over all tokens (ToMe, arXiv 2210.09461, section 3): local merging with k = all."""

    name = "global"
