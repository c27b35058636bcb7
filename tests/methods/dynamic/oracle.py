"""A deliberately naive dynamic merge: the count by loops over rows and pairs, then the naive merge of so many."""

from __future__ import annotations

import math

import numpy as np

from tests.methods.oracle import Row, _ranked, merge_row, scale, similarity_of


def merge_batch(
    x: np.ndarray,
    metric: np.ndarray,
    size: np.ndarray,
    *,
    k: int | None,
    similarity: str = "cosine",
    causal: bool = False,
    threshold: float,
    min_tokens: int = 0,
    protect_first: int = 0,
    protect_last: int = 0,
) -> list[Row]:
    """Merge a batch: x ``[B, N, D]``, metric ``[B, N, Dm]`` and size ``[B, N]``, float32.

    The rows' margins include how near any similarity is to where it begins to count, unless nothing may be removed.
    """
    batch, n = size.shape
    limit = round(threshold * 2**20) / 2**20
    counted, near = 0, math.inf
    for b in range(batch):
        tokens = list(range(protect_first, n - protect_last))
        largest = scale([metric[b, t] for t in tokens if size[b, t] > 0])
        a_tokens, b_tokens = tokens[0::2], tokens[1::2]
        for i, source in enumerate(a_tokens):
            found = [
                (
                    similarity_of(similarity, metric[b, source], metric[b, into], largest),
                    size[b, into] == 0 or (causal and size[b, source - 1] == 0),
                )
                for j, into in enumerate(b_tokens)
                if k is None or abs(i - j) < k
            ]
            if size[b, source] == 0:
                counted += len(found) > 0
                continue
            best = max((s for s, padding in found if not padding and not math.isnan(s)), default=None)
            if best is None:
                continue
            counted += min(_ranked(best), 1.0) > limit
            # It counts from half a step above the threshold on.
            near = min(near, abs(best - limit - 2**-21))
    most = min(max(0, n - protect_first - protect_last) // 2, max(0, n - min_tokens))
    removed = 0
    while removed < most and (removed + 1) * batch <= counted:
        removed += 1
    rows = [
        merge_row(
            x[b], metric[b], size[b], k=k, similarity=similarity, causal=causal, r=removed, min_tokens=min_tokens,
            protect_first=protect_first, protect_last=protect_last,
        )
        for b in range(batch)
    ]  # fmt: skip
    for row in rows:
        row.margin = min(row.margin, near if most > 0 else math.inf)
    return rows
