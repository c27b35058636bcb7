"""A deliberately naive LocalMerge: Python loops, row by row, written from the specification alone.

It shares no code with the package. Cosines are rounded to float32 where the specification says float32; sums are
taken in double precision, so values agree with other implementations to a tolerance, decisions exactly unless two
similarities are closer than float32 can tell. :attr:`Row.margin` says how close the closest decision was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

# Classes of candidates, worst first.
_INTO_PADDING, _NAN, _NUMBER, _PADDING = range(4)


@dataclass
class Row:
    """Result for one row of the batch; ``y`` is float64 ``[M][D]``.

    Attributes:
        touched: per output, whether a token of size > 0 was merged into it.
        margin: smallest difference of two similarities that a decision hung on; 0 is a tie.
    """

    y: list[list[float]]
    size: list[float]
    kept: list[int]
    target: list[int]
    touched: list[bool]
    margin: float


def removed_count(
    n: int, r: int | None, ratio: Fraction | None, min_tokens: int, protect_first: int, protect_last: int
) -> int:
    """r(N), step 1 of the specification."""
    pairs = max(0, n - protect_first - protect_last) // 2
    wanted = r if ratio is None else (n * ratio.numerator) // ratio.denominator
    assert wanted is not None
    return min(max(0, wanted), pairs, max(0, n - min_tokens))


def _dot(u: np.ndarray, v: np.ndarray) -> np.float32:
    total = 0.0
    for p, q in zip(u, v, strict=True):
        total += float(np.float32(p) * np.float32(q))
    return np.float32(total)


def _cosine(u: np.ndarray, v: np.ndarray) -> float:
    denominator = np.sqrt(_dot(u, u)) * np.sqrt(_dot(v, v))
    if denominator == 0:
        return 0.0
    return float(_dot(u, v) / denominator)


def merge_row(
    x: np.ndarray,
    metric: np.ndarray,
    size: np.ndarray,
    *,
    k: int | None,
    r: int | None = None,
    ratio: Fraction | None = None,
    min_tokens: int = 0,
    protect_first: int = 0,
    protect_last: int = 0,
) -> Row:
    """Merge one row: x ``[N, D]``, metric ``[N, Dm]`` and size ``[N]`` are float32 (widened from the tokens' type)."""
    n = len(x)
    count = removed_count(n, r, ratio, min_tokens, protect_first, protect_last)
    open_tokens = list(range(protect_first, n - protect_last))
    a_tokens, b_tokens = open_tokens[0::2], open_tokens[1::2]
    margin = math.inf

    # Every a's best b: (class, similarity), the lowest j of equals.
    entries: list[tuple[int, float, int, int]] = []  # class, similarity, i, token of b
    if count > 0:
        for i, a in enumerate(a_tokens):
            best: tuple[int, float, int] | None = None
            similarities: list[float] = []
            for j, b in enumerate(b_tokens):
                if k is not None and abs(i - j) >= k:
                    continue
                if size[b] == 0 and size[a] != 0:
                    rank = (_INTO_PADDING, 0.0)
                else:
                    similarity = _cosine(metric[a], metric[b])
                    rank = (_NAN, 0.0) if math.isnan(similarity) else (_NUMBER, similarity)
                    if rank[0] == _NUMBER:
                        similarities.append(similarity)
                if best is None or rank > best[:2]:
                    best = (*rank, b)
            if best is None:
                continue
            similarities.sort(reverse=True)
            if len(similarities) > 1:
                margin = min(margin, similarities[0] - similarities[1])
            if size[a] == 0:
                entries.append((_PADDING, 0.0, i, best[2]))
            else:
                entries.append((best[0], best[1], i, best[2]))

    entries.sort(key=lambda entry: (-entry[0], -entry[1], entry[2]))
    chosen = entries[:count]
    if chosen and len(entries) > count and chosen[-1][0] == entries[count][0] == _NUMBER:
        margin = min(margin, chosen[-1][1] - entries[count][1])

    goes_into = {a_tokens[i]: b for _, _, i, b in chosen}
    kept = [token for token in range(n) if token not in goes_into]
    place = {token: position for position, token in enumerate(kept)}
    target = [place[goes_into.get(token, token)] for token in range(n)]

    y, size_out, touched = [], [], []
    for token in kept:
        members = [a for a, b in goes_into.items() if b == token]
        size_out.append(float(size[token]) + sum(float(size[a]) for a in members))
        real = [t for t in [*members, token] if size[t] > 0]
        touched.append(any(size[a] > 0 for a in members))
        if not touched[-1]:
            y.append([float(v) for v in x[token]])
            continue
        y.append(
            [sum(float(x[t][d]) * float(size[t]) for t in real) / size_out[-1] for d in range(x.shape[1])]
        )
    return Row(y, size_out, kept, target, touched, margin)
