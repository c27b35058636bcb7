"""Dynamic token merging: the specification, in plain PyTorch.

Source: "Efficient Time Series Processing for Transformers and State-Space Models through Token Merging",
arXiv 2405.17951, section 3 (dynamic merging): local merging whose r is found from the data.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tsmerge_export.errors import UsageError
from tsmerge_export.methods.combine import Merged, identity
from tsmerge_export.methods.dynamic import DEFAULT_THRESHOLD, parse_threshold
from tsmerge_export.methods.matching import check_tokens, match, merge_best, read_matching
from tsmerge_export.methods.method import Attributes, Evidence, Method, Place
from tsmerge_export.methods.pair_attributes import pair_attributes, pair_options, ranks_of
from tsmerge_export.methods.similarity import RANK_NAN, RANK_PADDING, SCORE_STEP, in_steps
from tsmerge_export.settings.config import MergeConfig, tokens_removed

# Between every cosine, rounding errors included, and RANK_PADDING.
_ABOVE_COSINES = 1.5


def dynamic_merge(
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
    """Merge as many neighbouring tokens as are more alike than a threshold (arXiv 2405.17951, section 3).

    Rules R7 of docs/specification.md. Matching is that of
    :func:`~tsmerge_export.methods.local.reference.local_merge` (R7.1): a_i takes the b_j of highest similarity s_ij
    with ``|i - j| < k``. Rows of a batch must stay equally long, so r is the mean over the B rows::

        count_b = |{i : max_j s_ij > threshold}|
        r = min(floor((count_1 + ... + count_B) / B), (N - protect_first - protect_last) // 2, max(0, N - min_tokens))

    Then the r best a's of *every* row merge as in local merging (R7.4), also in a row of which fewer exceed the
    threshold.

    Where the paper is silent: padding that is an a ranks above every number and counts, since it is free to drop; a
    real a that could only go into padding, a NaN similarity and an a without a candidate do not count. A zero vector
    has similarity 0. Similarities and the threshold are both rounded to whole steps of 2^-20 before they are compared,
    so that no runtime counts differently: 0.9 stands for 943718 * 2^-20 = 0.8999996. With a threshold of 1 only
    padding counts: a cosine that float32 sums put above 1 is 1.

    The result of a row depends on the other rows of its batch, through r (R7.5).

    Args:
        x: ``[B, N, D]`` float32, float16 or bfloat16.
        metric: ``[B, N, Dm]``, the features compared; default x.
        size: ``[B, N]`` float32, original tokens per token, 0 is padding; default 1 everywhere.
        k: neighbourhood >= 1; None or ``"global"`` is all tokens.
        similarity: ``"cosine"``, ``"l2"`` or ``"dot"``, see :mod:`tsmerge_export.methods.similarity`.
        causal: as of :func:`~tsmerge_export.methods.local.reference.local_merge`; needs k = 1 and protect_first >= 1.
        threshold: on the scale of the similarity, -1 <= threshold <= 1.
        min_tokens: leave at least this many.
        protect_first, protect_last: so many tokens at either end take no part.

    Returns:
        :class:`Merged` with M = N - r.

    Raises:
        UsageError: an argument is out of range or of the wrong shape.
    """
    check_tokens(x, metric, size)
    if min_tokens < 0:
        raise UsageError("min_tokens must not be negative")
    how = read_matching(k, similarity, causal, protect_first, protect_last)
    steps = in_steps(parse_threshold(threshold))
    size = x.new_ones(x.shape[:2], dtype=torch.float32) if size is None else size.float()
    most = _most(x.shape[1], min_tokens, protect_first, protect_last)
    if most == 0:
        return identity(x, size)
    compared = (x if metric is None else metric).detach()
    rank, partner = match(compared, size, how)
    removed = min(_counted(rank, steps) // max(1, rank.shape[0]), most)  # R7.3
    if removed == 0:
        return identity(x, size)
    return merge_best(x, size, rank, partner, removed, how)


def _most(tokens: int, min_tokens: int, first: int, last: int) -> int:
    """The cap of r: the r(N) of local merging when everything may go."""
    return tokens_removed(tokens, r=tokens, min_tokens=min_tokens, protected=first + last)


def exceeding(rank: Tensor, steps: int) -> Tensor:
    """Which a's count; ``rank [B, P]`` holds whole steps, so that this is exact."""
    limit = steps * SCORE_STEP
    # R7.2: equal tokens of many features may come out a step or two above 1.
    return rank > (_ABOVE_COSINES if limit >= 1 else limit)


def _counted(rank: Tensor, steps: int) -> int:
    """How many a's of all rows exceed the threshold."""
    return int(exceeding(rank, steps).sum())


def count_margin(rank: Tensor, steps: int, most: int) -> Tensor:
    """How far cosines must move before r is another number.

    With S counted in all, r falls when ``S - r * B + 1`` of those above the threshold come down to it, and rises when
    ``(r + 1) * B - S`` of the others come above it: the distance of the last one needed. Ranks that are no cosine stay
    what they are, no cosine is above 1, and a cap holds whatever the cosines.

    Args:
        rank: ``[B, P]`` float32. steps: the threshold. most: the cap of r.

    Returns:
        ``[]`` float32, infinite where r cannot change.
    """
    batch = max(1, rank.shape[0])
    total = _counted(rank, steps)
    removed = min(total // batch, most)
    distance = rank[(rank > RANK_NAN) & (rank < RANK_PADDING)].clamp(max=1) - steps * SCORE_STEP
    above = distance[distance > 0].sort().values
    below = -distance[distance <= 0].sort(descending=True).values
    margin = rank.new_full((), torch.inf)
    fall, rise = total - removed * batch + 1, (removed + 1) * batch - total
    if removed > 0 and fall <= len(above):
        margin = torch.minimum(margin, above[fall - 1])
    if removed < most and steps * SCORE_STEP < 1 and rise <= len(below):
        margin = torch.minimum(margin, below[rise - 1])
    return margin


class DynamicMethod(Method):
    """Dynamic merging as a method that a plan can place in a model (see :mod:`tsmerge_export.merge.plan`)."""

    name = "dynamic"
    op_type = "DynamicMerge"

    def attributes(self, config: MergeConfig, place: Place) -> Attributes:
        """Attributes of the operator ``tsmerge::DynamicMerge``; k = 0 stands for global.

        The threshold is a whole number of steps here, which float32 holds exactly.
        """
        return {
            "threshold": in_steps(config.at("threshold", place.turn)) * SCORE_STEP,
            **pair_attributes(config, place),
        }

    def merge(self, x: Tensor, metric: Tensor, size: Tensor | None, attributes: Attributes) -> Merged:
        """:func:`dynamic_merge` with the operator's attributes."""
        options: dict[str, Any] = dict(attributes)
        options |= pair_options(attributes)
        return dynamic_merge(x, metric, size, **options)

    def evidence(self, x: Tensor, metric: Tensor, size: Tensor | None, attributes: Attributes) -> Evidence:
        """Ranks and gaps as of local merging, given r, and what r hangs on."""
        first, last = int(attributes["protect_first"]), int(attributes["protect_last"])
        rank, gap = ranks_of(metric, size, attributes)
        most = _most(metric.shape[1], int(attributes["min_tokens"]), first, last)
        count = count_margin(rank, in_steps(attributes["threshold"]), most)
        return Evidence(rank=rank, gap=gap, count=count)
