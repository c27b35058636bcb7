"""Matching of local merging: which b each a would go into, and how well. Shared by methods that merge a's into b's.

Of the unprotected tokens, A is every first and B every second. Source: arXiv 2405.17951, section 3; the rules of
padding, NaN and ties are this project's own. Rules R1, R4 and R5 of docs/specification.md are cited where they hold.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tsmerge_export.errors import UsageError
from tsmerge_export.methods.combine import Merged, combine, read_from_before
from tsmerge_export.methods.options import SIMILARITIES
from tsmerge_export.methods.similarity import (
    RANK_INTO_PADDING,
    RANK_NONE,
    RANK_PADDING,
    scale_of,
    similarity_of,
    squared_norm,
)
from tsmerge_export.settings.parse import parse_k

# Up to this neighbourhood the band is computed offset by offset (linear in N), above it by one matrix product.
_BAND_LIMIT = 32


def check_tokens(x: Tensor, metric: Tensor | None, size: Tensor | None) -> None:
    """Raise UsageError unless x is ``[B, N, D]``, and metric and size (where given) have its B and N (R1.1)."""
    if x.dim() != 3:
        raise UsageError(f"x must be [batch, tokens, features], not {list(x.shape)}")
    for name, value in (("metric", metric), ("size", size)):
        if value is not None and value.shape[:2] != x.shape[:2]:
            raise UsageError(
                f"{name} must be [batch, tokens, ...] = {list(x.shape[:2])}, not {list(value.shape)}"
            )


class Matching(NamedTuple):
    """How a's find their b's.

    Attributes:
        k: neighbourhood, |i - j| < k; None is all.
        similarity: one of options.SIMILARITIES.
        causal: the slot of a token that merges will be read from the token before it (see
            :func:`~tsmerge_export.methods.local.reference.local_merge`); needs k = 1 and protect_first >= 1.
        protect_first, protect_last: so many tokens at either end take no part.
    """

    k: int | None = 1
    similarity: str = "cosine"
    causal: bool = False
    protect_first: int = 0
    protect_last: int = 0


def read_matching(
    k: int | str | None, similarity: str, causal: bool, protect_first: int, protect_last: int
) -> Matching:
    """A :class:`Matching` of arguments that were checked. Raises UsageError."""
    if min(protect_first, protect_last) < 0:
        raise UsageError("protect_first and protect_last must not be negative")
    if similarity not in SIMILARITIES:
        raise UsageError(f"--similarity {similarity} is not known; choose one of: {', '.join(SIMILARITIES)}")
    k = None if k is None else parse_k(k)
    if causal and (k != 1 or protect_first < 1):
        raise UsageError(
            "causal merging needs k = 1 and protect_first >= 1, a token to read the first slot from"
        )
    return Matching(k, similarity, causal, protect_first, protect_last)


def candidates(
    metric_a: Tensor, metric_b: Tensor, how: Matching, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Similarity of every a to the b's in its neighbourhood.

    Args:
        metric_a: ``[B, P, Dm]`` float32. metric_b: ``[B, Q, Dm]`` float32, Q in {P, P - 1}.
        scale: ``[B]``, see :func:`~tsmerge_export.methods.similarity.similarity_of`.

    Returns:
        Scores ``[B, P, C]``, the index j of each candidate ``[P, C]`` (ascending along C) and whether it exists.
    """
    p, q, k, similarity = metric_a.shape[1], metric_b.shape[1], how.k, how.similarity
    i = torch.arange(p, device=metric_a.device)[:, None]
    square_a, square_b = squared_norm(metric_a), squared_norm(metric_b)
    if k is None or k > min(_BAND_LIMIT, p):  # either way the candidates are those of R5.2
        j = torch.arange(q, device=metric_a.device)[None, :].expand(p, q)
        inside = torch.ones_like(j, dtype=torch.bool) if k is None else (i - j).abs() < k
        dot = metric_a @ metric_b.transpose(1, 2)
        squares = square_a[:, :, None], square_b[:, None, :]
        return similarity_of(similarity, dot, *squares, scale[:, None, None]), j, inside
    j = i + torch.arange(1 - k, k, device=metric_a.device)[None, :]
    inside = (j >= 0) & (j < q)
    j = j.clamp(0, q - 1)
    columns = [
        similarity_of(
            similarity,
            (metric_a * metric_b[:, j[:, c]]).sum(-1),
            square_a,
            square_b[:, j[:, c]],
            scale[:, None],
        )
        for c in range(2 * k - 1)
    ]
    return torch.stack(columns, -1), j, inside


def scores_of(
    metric: Tensor, size: Tensor, how: Matching, free: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of all candidates with the ranks of padding, NaN and missing ones put in (R4.1).

    Args:
        metric: ``[B, N, Dm]`` of any float type, with at least two unprotected tokens. size: ``[B, N]``, 0 is padding.
        free: ``[B]`` int64: so many of the unprotected tokens of each row take part, the first ones; None is all.

    Returns:
        scores ``[B, P, C]`` float32, the candidates' j ``[P, C]``, and which a's are padding ``[B, P]``.
    """
    first, end = how.protect_first, metric.shape[1] - how.protect_last
    compared = metric[:, first:end].float()  # R1.7, and R5.1: the protected ends take no part
    real = size[:, first:end] > 0
    scale = compared.new_zeros(len(compared)) if how.similarity == "cosine" else scale_of(compared, real)
    padding_a, padding_b = size[:, first:end:2] == 0, size[:, first + 1 : end : 2] == 0
    scores, j, inside = candidates(compared[:, 0::2], compared[:, 1::2], how, scale)
    # j is [P, C]: padding_b[:, j] is [B, P, C]
    into_padding = padding_b[:, j]
    if how.causal:  # R5.9: being read from padding is as bad
        into_padding = into_padding | (size[:, first - 1 : end - 1 : 2] == 0)[:, :, None]
    # R5.5; and R5.3: what does not exist is never chosen.
    scores = scores.masked_fill(into_padding & ~padding_a[:, :, None], RANK_INTO_PADDING).masked_fill(
        ~inside, RANK_NONE
    )
    if free is not None:  # R7.6: neither an a nor a b
        i = torch.arange(len(j), device=j.device)[:, None]
        scores = scores.masked_fill(torch.maximum(2 * i, 2 * j + 1) >= free[:, None, None], RANK_NONE)
    return scores, j, padding_a


def match(metric: Tensor, size: Tensor, how: Matching, free: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Rank of every a, and the b it would go into (R5.3, R5.4).

    Args:
        All as of :func:`scores_of`.

    Returns:
        rank ``[B, P]`` float32 and partner ``[B, P]`` int64 (index j among the b's).
    """
    scores, j, padding_a = scores_of(metric, size, how, free)
    best = scores.argmax(-1)  # R4.2, the first of equals: the lowest j
    rank = scores.gather(-1, best[..., None])[..., 0]
    rank = torch.where(padding_a & (rank > RANK_NONE), torch.full_like(rank, RANK_PADDING), rank)
    partner = torch.arange(j.shape[0], device=j.device)[None, :]
    return rank, j[partner, best]


def merge_best(x: Tensor, size: Tensor, rank: Tensor, partner: Tensor, removed: int, how: Matching) -> Merged:
    """Merge the a's of highest rank of every row into their partners; of equal ranks the lowest index.

    Args:
        x: ``[B, N, D]``. size: ``[B, N]`` float32. rank, partner: ``[B, P]``, from :func:`match`.
        removed: how many a's of each row merge, at most P.

    Returns:
        :class:`Merged` with M = N - removed.
    """
    # R5.6; stable, R4.3: the lowest i of equals
    best = rank.sort(dim=-1, descending=True, stable=True).indices[:, :removed]
    # From here on indices are positions among all N tokens (R5.1). A merged token stands at b's place (R5.7).
    source = how.protect_first + 2 * best
    into = how.protect_first + 2 * partner.gather(1, best) + 1
    merged = combine(x, size, source, into)
    return read_from_before(merged) if how.causal else merged


def ranks(
    metric: Tensor,
    size: Tensor | None = None,
    *,
    k: int | str | None = 1,
    similarity: str = "cosine",
    causal: bool = False,
    protect_first: int = 0,
    protect_last: int = 0,
) -> tuple[Tensor, Tensor]:
    """The scores behind a merge decision: what :func:`merge_best` sorts.

    Args:
        metric, size and the options: as of :func:`~tsmerge_export.methods.local.reference.local_merge`.

    Returns:
        rank ``[B, P]`` float32 (similarity of each a to its best b; see RANK_* for what is none) and the gap
        ``[B, P]`` float32 between it and the second best b (infinite where there is none).
    """
    how = read_matching(k, similarity, causal, protect_first, protect_last)
    sizes = metric.new_ones(metric.shape[:2], dtype=torch.float32) if size is None else size
    if metric.shape[1] - protect_first - protect_last < 2:
        empty = metric.new_empty((metric.shape[0], 0), dtype=torch.float32)
        return empty, empty
    rank, _ = match(metric, sizes, how)
    scores, _, _ = scores_of(metric, sizes, how)
    if scores.shape[-1] < 2:
        return rank, torch.full_like(rank, torch.inf)
    best, second = scores.topk(2, dim=-1).values.unbind(-1)
    return rank, torch.where(second == RANK_NONE, torch.full_like(best, torch.inf), best - second)
