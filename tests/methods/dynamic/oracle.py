"""A deliberately naive dynamic merge: the count by loops over rows and pairs, then the naive merge of so many."""

from __future__ import annotations

import math
from typing import Any

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


def merge_apart(x: np.ndarray, metric: np.ndarray, size: np.ndarray, **settings: Any) -> list[Row]:
    """The same per series: every row alone, without the padding that it ends in, and then filled up with padding.

    Args:
        x, metric, size, settings: as of :func:`merge_batch`.
    """
    batch, n = size.shape
    first, last = settings.get("protect_first", 0), min(settings.get("protect_last", 0), n)
    own: list[list[int]] = []
    alone: list[Row] = []
    for b in range(batch):
        free = list(range(first, n - last))
        while free and size[b, free[-1]] == 0:
            free.pop()
        tokens = [t for t in range(n) if t < first or t >= n - last or t in free]
        own.append(tokens)
        if tokens:
            alone += merge_batch(
                x[b : b + 1, tokens], metric[b : b + 1, tokens], size[b : b + 1, tokens], **settings
            )
        else:
            alone.append(Row([], [], [], [], [], math.inf))
    left = max(min(n, max(1, settings.get("min_tokens", 0))), *(len(row.kept) for row in alone))
    return [_filled(row, own[b], x[b], left, last) for b, row in enumerate(alone)]


def _filled(row: Row, own: list[int], x: np.ndarray, left: int, last: int) -> Row:
    """One row that was merged by itself, with padding in front of its last tokens."""
    n, front = len(x), len(row.kept) - last
    aside = [t for t in range(n) if t not in own]
    slots = [(row.y[m], row.size[m], own[row.kept[m]], row.touched[m]) for m in range(len(row.kept))]
    ahead = slots[:front] + [([float(v) for v in x[t]], 0.0, t, False) for t in aside]
    while len(ahead) < left - last:
        y, _, kept, touched = ahead[-1]
        ahead.append((y, 0.0, kept, touched))
    made = ahead[: left - last] + slots[front:]
    target = [0] * n
    for place, t in enumerate(own):
        m = row.target[place]
        target[t] = m if m < front else m + left - len(row.kept)
    for q, t in enumerate(aside):
        target[t] = min(front + q, max(left - last - 1, 0))
    y, size, kept, touched = (list(part) for part in zip(*made, strict=True))
    return Row(y, size, kept, target, touched, row.margin)
