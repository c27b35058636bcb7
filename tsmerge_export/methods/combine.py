"""From a decision (which token goes into which) to merged tokens: shared by all methods."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tsmerge_export.console.one_line import by_fields


class Merged(NamedTuple):
    """Result of one merge step over ``[B, N, D]`` tokens, M tokens of N survive (R1.3).

    Attributes:
        y: ``[B, M, D]``, dtype of x: the surviving tokens in their old order.
        size: ``[B, M]`` float32: how many original tokens each one stands for; 0 is padding.
        kept: ``[B, M]`` int64, strictly increasing: index in the input of each surviving token (R1.4).
        target: ``[B, N]`` int64: index in the output that each input token went to, and that its slot is read from
            when the tokens are unmerged. In causal merging only the latter: the last survivor at or before it (R1.5).
    """

    y: Tensor
    size: Tensor
    kept: Tensor
    target: Tensor

    def __repr__(self) -> str:
        return by_fields(self)


def unmerge(y: Tensor, target: Tensor) -> Tensor:
    """Give every original token a copy of the token it went into (R10.1).

    Args:
        y: ``[B, M, ...]``, any dtype.
        target: ``[B, N]`` int64 in 0..M-1, from :class:`Merged`.

    Returns:
        ``[B, N, ...]``.
    """
    return y[torch.arange(y.shape[0], device=y.device)[:, None], target]


def identity(x: Tensor, size: Tensor) -> Merged:
    """The result of merging nothing (R2.6): ``x [B, N, D]`` itself, ``size [B, N]``."""
    index = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
    return Merged(x, size, index.contiguous(), index.contiguous())


def read_from_before(merged: Merged) -> Merged:
    """The same with every slot read from the last survivor at or before it (R5.8); the first token must survive."""
    index = torch.arange(merged.target.shape[1], device=merged.kept.device).expand_as(merged.target)
    return merged._replace(target=torch.searchsorted(merged.kept, index.contiguous(), right=True) - 1)


def combine(x: Tensor, size: Tensor, source: Tensor, into: Tensor, pruned: Tensor | None = None) -> Merged:
    """Merge tokens into others (rules R6 of docs/specification.md).

    A merged token is the size-weighted mean of its members, accumulated in float32; its size is their sum; it stands at
    the place of the token they went into. Padding (size 0) has no weight, and a token that received nothing but padding
    keeps its own bits. Order is preserved.

    Args:
        x: ``[B, N, D]`` float32, float16 or bfloat16.
        size: ``[B, N]`` float32, original tokens per token, 0 is padding.
        source: ``[B, r]`` int64, tokens that are merged away, different from each other.
        into: ``[B, r]`` int64, the surviving token that each goes into (not a source itself).
        pruned: bool, broadcast to ``[B, r]``: sources whose values are dropped. The token that they go into stands for
            them in ``size`` and ``target``, and keeps its value.

    Returns:
        :class:`Merged` with M = N - r.
    """
    size_out, kept, target = _places(size, source, into)
    mean, received = _means(x, size, source, kept, target, pruned)
    y = torch.where(received[..., None], mean.to(x.dtype), unmerge(x, kept))  # R6.5
    return Merged(y, size_out, kept, target)


def combine_branches(
    x: Tensor,
    hidden: Tensor,
    size: Tensor,
    source: Tensor,
    into: Tensor,
    pruned_hidden: Tensor,
    pruned_residual: Tensor,
) -> Merged:
    """The same where ``x = hidden + residual``, and each of the two has sources of its own that are pruned (R9.9).

    Args:
        hidden: ``[B, N, D]``. pruned_hidden, pruned_residual: as ``pruned`` of :func:`combine`.

    Returns:
        :class:`Merged`, y the sum of both, computed in float32; a token that neither changed keeps its bits in x.
    """
    size_out, kept, target = _places(size, source, into)
    residual = x.float() - hidden.float()
    parts, changed = [], torch.zeros_like(kept, dtype=torch.bool)
    for values, pruned in ((residual, pruned_residual), (hidden.float(), pruned_hidden)):
        mean, received = _means(values, size, source, kept, target, pruned)
        parts.append(torch.where(received[..., None], mean, unmerge(values, kept)))
        changed = changed | received
    y = torch.where(changed[..., None], (parts[0] + parts[1]).to(x.dtype), unmerge(x, kept))
    return Merged(y, size_out, kept, target)


def _places(size: Tensor, source: Tensor, into: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``size_out [B, M]`` (R6.2), ``kept [B, M]`` (R6.1) and ``target [B, N]``. Every row loses as many (R1.6)."""
    batch, tokens = size.shape
    left = tokens - source.shape[1]
    index = torch.arange(tokens, device=size.device).expand(batch, tokens)
    goes = index.scatter(1, source, into)
    survives = torch.ones_like(index, dtype=torch.bool).scatter(1, source, False)
    place = survives.cumsum(1) - 1
    # Every survivor writes its index to its place, all others behind the end. Not nonzero, whose length is data: a GPU
    # would be waited for, and torch.compile would break the graph.
    kept = torch.empty((batch, left + 1), dtype=index.dtype, device=index.device)
    kept = kept.scatter(1, torch.where(survives, place, left), index)[:, :left].contiguous()
    target = place.gather(1, goes)
    return size.new_zeros((batch, left)).scatter_add(1, target, size), kept, target


def _means(
    x: Tensor, size: Tensor, source: Tensor, kept: Tensor, target: Tensor, pruned: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Per survivor the weighted mean ``[B, M, D]`` of its members, float32 or as wide as x, and whether it received any
    (``[B, M]``)."""
    weight = size
    if pruned is not None:
        counts = size.gather(1, source).masked_fill(pruned.expand_as(source), 0)
        weight = size.scatter(1, source, counts)
    weight_out = size.new_zeros(kept.shape).scatter_add(1, target, weight)
    # R6.4: padding is left out by selection, not by a factor of 0: it may hold NaN. What it becomes is R6.6.
    wide = torch.promote_types(x.dtype, torch.float32)  # R6.3
    weighted = torch.where(
        (weight > 0)[..., None], x.to(wide) * weight[..., None], x.new_zeros((), dtype=wide)
    )
    total = weighted.new_zeros((*kept.shape, x.shape[2])).index_put(
        (torch.arange(len(x), device=x.device)[:, None], target), weighted, accumulate=True
    )
    received = (weight_out > size.gather(1, kept)) & (weight_out > 0)
    return total / torch.where(received, weight_out, torch.ones_like(weight_out))[..., None], received
