"""Local token merging: the specification, in plain PyTorch.

Source: "Efficient Time Series Processing for Transformers and State-Space Models through Token Merging",
arXiv 2405.17951, section 3 (local merging); with ``k`` global it is the bipartite soft matching of ToMe,
arXiv 2210.09461, section 3. Every exported operator is proved against this file.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from tsmerge_export.methods.amount import AmountMethod, amount_options, read_removed
from tsmerge_export.methods.combine import Merged, identity
from tsmerge_export.methods.matching import check_tokens, match, merge_best, read_matching
from tsmerge_export.methods.method import Attributes, Evidence, Place
from tsmerge_export.methods.pair_attributes import pair_attributes, pair_options, ranks_of
from tsmerge_export.settings.config import MergeConfig


def local_merge(
    x: Tensor,
    metric: Tensor | None = None,
    size: Tensor | None = None,
    *,
    k: int | str | None = 1,
    similarity: str = "cosine",
    causal: bool = False,
    r: int | None = None,
    ratio: Fraction | str | float | None = None,
    min_tokens: int = 0,
    protect_first: int = 0,
    protect_last: int = 0,
) -> Merged:
    """Merge the r most similar neighbouring token pairs of every row (arXiv 2405.17951, section 3).

    Rules R5 of docs/specification.md. Of the unprotected tokens, A is every first and B every second. Each a_i takes
    the b_j of highest similarity with ``|i - j| < k``; the r best a's are merged into their b's. Ties go to the lowest
    index. NaN ranks below every number, padding (size 0) is dropped first, and a real token goes into padding only
    where nothing else is left. A merged token is the size-weighted mean of its members, at b's place. Similarities are
    taken in float32 (vectors of norm below 1e-19 count as zero) and rounded to 2^-20 before they are compared, so that
    tokens which are equal tie whatever the order of sums.

    **Causal merging** (R5.8) is for models in which a token sees only earlier ones. A merged token stands at the later
    place anyhow; here the slot of the token that went is not read from there, but from the last survivor before it (its
    own information is seen from the next token on). What holds exactly, for a model of causal layers that merges after
    some of them and unmerges at the end:

    1. The output at place i follows from the tokens up to i and from *which* of them survive; no value of a later
       token enters. The gradient of an output by any later input is 0.
    2. Which tokens survive is decided by pairs (a, b), so b has a say in whether a stays. Where each pair is decided
       for itself, by a threshold (:func:`~tsmerge_export.methods.dynamic.reference.dynamic_merge` with the cosine, on a
       batch of one, no cap reached), a change of the token at t can change, after m merge steps, only whether the last
       m tokens in front of t survive. Every output that is read from a survivor in front of t which both runs have is
       the same in both.
    3. With r, a ratio or a batch, the best pairs are chosen in whole rows, and by l2 and dot they are measured by the
       row's longest token: any later token may have a say in who survives. 1 still holds, 2 does not.

    A real token that would be read from padding ranks like one that would go into padding.

    Args:
        x: ``[B, N, D]`` float32, float16 or bfloat16.
        metric: ``[B, N, Dm]``, the features compared; default x.
        size: ``[B, N]`` float32, original tokens per token, 0 is padding; default 1 everywhere.
        k: neighbourhood >= 1; None or ``"global"`` is all tokens (ToMe).
        similarity: ``"cosine"``, ``"l2"`` or ``"dot"``, see :mod:`tsmerge_export.methods.similarity`.
        causal: see above; needs k = 1 and protect_first >= 1.
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
    check_tokens(x, metric, size)
    batch, tokens, _ = x.shape
    removed = read_removed(
        tokens, r, ratio, min_tokens=min_tokens, protect_first=protect_first, protect_last=protect_last
    )
    how = read_matching(k, similarity, causal, protect_first, protect_last)
    size = x.new_ones((batch, tokens), dtype=torch.float32) if size is None else size.float()
    if removed == 0:
        return identity(x, size)

    compared = (x if metric is None else metric).detach()  # R1.2, R1.8
    rank, partner = match(compared, size, how)
    return merge_best(x, size, rank, partner, removed, how)


class LocalMethod(AmountMethod):
    """Local merging as a method that a plan can place in a model (see :mod:`tsmerge_export.merge.plan`)."""

    name = "local"
    op_type = "LocalMerge"

    def attributes(self, config: MergeConfig, place: Place) -> Attributes:
        """Attributes of the operator ``tsmerge::LocalMerge``; k = 0 stands for global."""
        return {**super().attributes(config, place), **pair_attributes(config, place)}

    def merge(self, x: Tensor, metric: Tensor, size: Tensor | None, attributes: Attributes) -> Merged:
        """:func:`local_merge` with the operator's attributes."""
        return local_merge(x, metric, size, **amount_options(attributes), **pair_options(attributes))

    def mark(self, attributes: Attributes, tokens: int) -> tuple[object, ...]:
        """How many go, how many take part from where on, how far partners may be."""
        mark, gone = super().mark(attributes, tokens), self.removed(attributes, tokens)
        if not gone:
            return mark
        first, last = int(attributes["protect_first"]), int(attributes["protect_last"])
        # Of an odd number the last token is an a too, which has a partner where the neighbourhood reaches back.
        free = tokens - first - last
        firsts, k = (free + 1) // 2, int(attributes["k"])
        return (gone, first, free // 2 if k == 1 else free, min(k or firsts, firsts))

    def evidence(self, x: Tensor, metric: Tensor, size: Tensor | None, attributes: Attributes) -> Evidence:
        """:func:`ranks` with the operator's attributes."""
        rank, gap = ranks_of(metric, size, attributes)
        return Evidence(rank=rank, gap=gap)
