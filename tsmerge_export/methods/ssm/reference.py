"""Token reduction for state-space models: the specification, in plain PyTorch.

Source: "Rethinking Token Reduction for State Space Models", arXiv 2410.14725, section 4. Importance and similarity
decide together, and what goes is partly pruned, partly merged. With y the tokens after a block (here: the metric)::

    S_i = sum over channels c of max(0, y_ic)                  importance, clipped below at 0
    A = the less important half, B = the more important half
    f_i = argmax over j in B of cos(y_i, y_j)                  each i in A has one link
    of the r most similar links a share q is pruned: i is dropped;
    the rest is merged: i and its f_i become their mean

The paper's mean over channels instead of the sum changes no order. Rules R9 of docs/specification.md. What the paper
leaves open, settled here:

- Order is preserved, and a token that others went into stands at its own place.
- Which of the r links are pruned: the n-th of them in order of time, from 0, if floor((n + 1) q) > floor(n q). So they
  are spread over the row, floor(q r) in all, and no float noise has a say.
- A pruned token is read from the token it was linked to when tokens are unmerged, and counts in its size.
- Importance is divided by the largest of the row (of the real, unprotected tokens whose sum is finite) and rounded to
  2^-20, so that equal tokens tie. Of equals the lower index is the more important. An odd one out belongs to B.
- A token whose sum is not finite is less important than any number, padding less than that: it goes first.

A block gives ``x = hidden states + residual``, and the paper reduces the two branches by choices of their own along the
same links, which follow from the hidden states y (``--metric hidden``): for each, all links merge, all are pruned, or a
mix (``residual_prune_share`` = 0, 1 or between; ``prune_share`` is then that of the hidden states). So::

    x_out = reduce(y; prune_share) + reduce(x - y; residual_prune_share)

with the same kept and target, and each branch a mean of its own members. The n-th link is pruned in either branch by
the rule above. A token that neither branch changed keeps its bits. Without ``residual_prune_share`` x is one branch.
The cost is O(N^2): every a is compared with every b.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from tsmerge_export.errors import UsageError
from tsmerge_export.methods.amount import AmountMethod, amount_options, read_removed, removed_by
from tsmerge_export.methods.combine import Merged, combine, combine_branches, identity
from tsmerge_export.methods.matching import check_tokens
from tsmerge_export.methods.method import Attributes, Evidence, Place
from tsmerge_export.methods.similarity import (
    RANK_INTO_PADDING,
    RANK_PADDING,
    SCORE_STEP,
    cosine,
    norm,
)
from tsmerge_export.methods.ssm import DEFAULT_PRUNE_SHARE, parse_share
from tsmerge_export.methods.ssm.evidence import Links, allows, margin
from tsmerge_export.settings.config import MergeConfig

# Ranks of importance that are none; importance lies between 0 and 1.
_NOT_FINITE = -1.0
_PADDING = -2.0


def ssm_merge(
    x: Tensor,
    metric: Tensor | None = None,
    size: Tensor | None = None,
    *,
    r: int | None = None,
    ratio: Fraction | str | float | None = None,
    prune_share: Fraction | str | float = DEFAULT_PRUNE_SHARE,
    residual_prune_share: Fraction | str | float | None = None,
    min_tokens: int = 0,
    protect_first: int = 0,
    protect_last: int = 0,
) -> Merged:
    """Remove the r less important tokens that are most like a more important one (arXiv 2410.14725, section 4).

    Rules of NaN, ties and padding are those of :func:`~tsmerge_export.methods.local.reference.local_merge`; a padding a
    goes into the first b.

    Args:
        x: ``[B, N, D]`` float32, float16 or bfloat16.
        metric: ``[B, N, Dm]``, the features y whose importance and similarity decide; default x.
        size: ``[B, N]`` float32, original tokens per token, 0 is padding; default 1 everywhere.
        r: tokens to remove, >= 0. Either r or ratio must be given.
        ratio: share of N to remove (rounded down), 0 < ratio <= 1/2, exact.
        prune_share: q, the share of the removed tokens that is pruned, 0 <= q <= 1, exact.
        residual_prune_share: q of the residual ``x - metric``; ``prune_share`` is then that of the hidden states
            ``metric``, which needs Dm = D. None: one choice for x.
        min_tokens: leave at least this many.
        protect_first, protect_last: so many tokens at either end take no part.

    Returns:
        :class:`Merged` with M = N - r(N), where
        ``r(N) = min(max(0, r or N*ratio), (N - protect_first - protect_last) // 2, max(0, N - min_tokens))``.

    Raises:
        UsageError: an argument is out of range or of the wrong shape.
    """
    check_tokens(x, metric, size)
    removed = read_removed(
        x.shape[1], r, ratio, min_tokens=min_tokens, protect_first=protect_first, protect_last=protect_last
    )
    share = parse_share(prune_share)
    of_residual = (
        None if residual_prune_share is None else parse_share(residual_prune_share, "--residual-prune-share")
    )
    if of_residual is not None and (metric is None or metric.shape != x.shape):
        raise UsageError(
            "--residual-prune-share needs a metric of the shape of x, the hidden states that x contains"
        )
    size = x.new_ones(x.shape[:2], dtype=torch.float32) if size is None else size.float()
    if removed == 0:
        return identity(x, size)
    links = link((x if metric is None else metric).detach(), size, protect_first, protect_last)
    # R9.6, stable: the lowest index of equals; then in order of time
    chosen = links.rank.sort(dim=-1, descending=True, stable=True).indices[:, :removed].sort(-1).values
    source = protect_first + links.a.gather(1, chosen)
    into = protect_first + links.b.gather(1, links.scores.argmax(-1)).gather(1, chosen)
    pruned = _pruned(removed, share, x.device)
    if of_residual is None or metric is None:
        return combine(x, size, source, into, pruned)  # R9.8
    # R9.9
    return combine_branches(x, metric, size, source, into, pruned, _pruned(removed, of_residual, x.device))


def _pruned(removed: int, share: Fraction, device: torch.device) -> Tensor:
    """``[removed]`` bool: which of the removed tokens, in order of time, are pruned (R9.7)."""
    turn = torch.arange(removed, device=device)
    return (turn + 1) * share.numerator // share.denominator > turn * share.numerator // share.denominator


def importance(y: Tensor, padding: Tensor) -> Tensor:
    """``[B, U]`` float32 of ``y [B, U, Dm]`` and ``padding [B, U]``: 0 to 1 in whole steps, or below 0 (R9.3)."""
    # R9.1, and R9.2 from here on
    total = torch.where(y <= 0, torch.zeros_like(y), y).sum(-1)
    finite = total.isfinite()
    largest = total.where(finite & ~padding, total.new_zeros(())).amax(1, keepdim=True)
    share = torch.where(largest == 0, torch.zeros_like(total), total / largest)
    steps = (share / SCORE_STEP).round() * SCORE_STEP
    return steps.where(finite, steps.new_tensor(_NOT_FINITE)).masked_fill(padding, _PADDING)


def link(metric: Tensor, size: Tensor, first: int, last: int) -> Links:
    """Split the unprotected tokens of ``metric [B, N, Dm]``, at least two, and link the halves."""
    end = metric.shape[1] - last
    y, padding = metric[:, first:end].float(), size[:, first:end] == 0
    weight = importance(y, padding)
    order = weight.sort(dim=-1, descending=True, stable=True).indices
    half = y.shape[1] - y.shape[1] // 2  # R9.4
    b, a = order[:, :half].sort(-1).values, order[:, half:].sort(-1).values
    batch = torch.arange(len(y), device=y.device)[:, None]
    y_a, y_b = y[batch, a], y[batch, b]
    scores = cosine(y_a @ y_b.transpose(1, 2), norm(y_a)[:, :, None], norm(y_b)[:, None, :])
    padding_a, padding_b = padding.gather(1, a), padding.gather(1, b)
    # R9.5: all b's are the same to a padding a: it goes into the first, and no noise has a say.
    scores = scores.masked_fill(padding_a[:, :, None] | padding_b[:, None, :], RANK_INTO_PADDING)
    rank = scores.amax(-1).masked_fill(padding_a, RANK_PADDING)
    return Links(weight, a, b, scores, rank, y, padding)


class SsmMethod(AmountMethod):
    """Token reduction for state-space models as a method (see :mod:`tsmerge_export.merge.plan`)."""

    name = "ssm"
    op_type = "SsmMerge"

    def attributes(self, config: MergeConfig, place: Place) -> Attributes:
        """Attributes of the operator ``tsmerge::SsmMerge``."""
        share = parse_share(DEFAULT_PRUNE_SHARE if config.prune_share is None else config.prune_share)
        attributes: dict[str, int | float] = {
            **super().attributes(config, place),
            "prune_num": share.numerator,
            "prune_den": share.denominator,
        }
        if config.residual_prune_share is not None:
            residual = parse_share(config.residual_prune_share)
            attributes |= {"residual_num": residual.numerator, "residual_den": residual.denominator}
        return attributes

    def merge(self, x: Tensor, metric: Tensor, size: Tensor | None, attributes: Attributes) -> Merged:
        """:func:`ssm_merge` with the operator's attributes."""
        share = Fraction(int(attributes["prune_num"]), int(attributes["prune_den"]))
        residual = None
        if attributes.get("residual_den"):
            residual = Fraction(int(attributes["residual_num"]), int(attributes["residual_den"]))
        return ssm_merge(
            x,
            metric,
            size,
            prune_share=share,
            residual_prune_share=residual,
            **amount_options(attributes),
        )

    def mark(self, attributes: Attributes, tokens: int) -> tuple[object, ...]:
        """How many go, how many take part from where on, and which of those that go are pruned."""
        mark, gone = super().mark(attributes, tokens), self.removed(attributes, tokens)
        counts = (
            tuple(turn * int(attributes.get(num, 0)) // int(attributes[den]) for turn in range(1, gone + 1))
            for num, den in (("prune_num", "prune_den"), ("residual_num", "residual_den"))
            if gone and attributes.get(den)
        )
        return (*mark, *counts)

    def evidence(self, x: Tensor, metric: Tensor, size: Tensor | None, attributes: Attributes) -> Evidence:
        """What a row's decision hangs on: which half a token belongs to, its best link, the last link that is taken."""
        first, last = int(attributes["protect_first"]), int(attributes["protect_last"])
        removed = removed_by(attributes, x.shape[1])
        if removed == 0:
            return Evidence(margin=x.new_full((x.shape[0],), torch.inf, dtype=torch.float32))
        sizes = x.new_ones(x.shape[:2], dtype=torch.float32) if size is None else size.float()
        links = link(metric.detach(), sizes, first, last)
        return Evidence(margin=margin(links, removed), allows=allows(links, removed, first))
