"""A deliberately naive LocalMerge: Python loops, row by row, written from the specification alone.

It shares no code with the package. Cosines are rounded to float32 where the specification says float32; sums are
taken in double precision, so values agree with other implementations to a tolerance, decisions exactly unless two
similarities are closer than float32 can tell. :attr:`Row.margin` says how close the closest decision was.

Similarities are ranked after rounding to 2^-20 (R3.5): equal tokens must tie whatever the order of sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

# Classes of candidates, worst first (R4.1).
_INTO_PADDING, _NAN, _NUMBER, _PADDING = range(4)


@dataclass
class Row:
    """Result for one row of the batch; ``y`` is float64 ``[M][D]``.

    Attributes:
        touched: per output, whether a token of size > 0 was merged into it.
        margin: smallest difference of two similarities that a decision hung on, where float32 noise could have
            changed it; infinite where it could not (also for ties that no noise can break).
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
    """r(N), R2.4 of docs/specification.md."""
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


def scale(vectors: list[np.ndarray]) -> np.float32:
    """The largest finite squared norm."""
    squares = [_dot(v, v) for v in vectors]
    return max((s for s in squares if np.isfinite(s)), default=np.float32(0))


def similarity_of(kind: str, u: np.ndarray, v: np.ndarray, largest: np.float32) -> float:
    """The similarity of two vectors, from -1 to 1; NaN where there is none."""
    if kind == "cosine":
        return _cosine(u, v)
    if not (np.isfinite(_dot(u, u)) and np.isfinite(_dot(v, v))):
        return math.nan
    value = _dot(u, v)
    if kind == "l2":
        value = value - _dot(u, u) / np.float32(2) - _dot(v, v) / np.float32(2)
    part = value / largest if largest > 0 else np.float32(0)
    return float(np.clip(np.float32(1) + part if kind == "l2" else part, -1, 1))


def noise_of(kind: str) -> float:
    """By how much float32 sums may move a similarity: four units in the last place; l2 is a sum of three such."""
    return 2.5e-7 if kind == "cosine" else 7.5e-7


def _ranked(similarity: float) -> float:
    return float(np.rint(similarity * 2**20)) / 2**20


def _margin(first: float, second: float, noise: float) -> float:
    """The difference of two similarities if noise could reorder them."""
    if first - second > 2**-20 + 2 * noise:
        return math.inf
    stable = all(_ranked(value - noise) == _ranked(value + noise) for value in (first, second))
    return math.inf if stable else abs(first - second)


def merge_row(
    x: np.ndarray,
    metric: np.ndarray,
    size: np.ndarray,
    *,
    k: int | None,
    similarity: str = "cosine",
    causal: bool = False,
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
    margin, noise = math.inf, noise_of(similarity)
    largest = scale([metric[t] for t in open_tokens if size[t] > 0])

    # Every a's best b: (class, ranked similarity), the lowest j of equals (R4.2).
    entries: list[tuple[int, float, int, int, float]] = []  # class, ranked, i, token of b, similarity
    if count > 0:
        for i, a in enumerate(a_tokens):
            best: tuple[int, float, int, float] | None = None
            similarities: list[float] = []
            for j, b in enumerate(b_tokens):
                if k is not None and abs(i - j) >= k:
                    continue
                value = 0.0
                from_padding = size[b] == 0 or (causal and size[a - 1] == 0)
                if from_padding and size[a] != 0:
                    rank = (_INTO_PADDING, 0.0)
                else:
                    value = similarity_of(similarity, metric[a], metric[b], largest)
                    rank = (_NAN, 0.0) if math.isnan(value) else (_NUMBER, _ranked(value))
                    if rank[0] == _NUMBER:
                        similarities.append(value)
                if best is None or rank > best[:2]:
                    best = (*rank, b, value)
            if best is None:
                continue
            similarities.sort(reverse=True)
            if len(similarities) > 1:
                margin = min(margin, _margin(*similarities[:2], noise))
            if size[a] == 0:
                entries.append((_PADDING, 0.0, i, best[2], 0.0))
            else:
                entries.append((best[0], best[1], i, best[2], best[3]))

    entries.sort(key=lambda entry: (-entry[0], -entry[1], entry[2]))  # R4.3
    chosen = entries[:count]
    if chosen and len(entries) > count and chosen[-1][0] == entries[count][0] == _NUMBER:
        by_similarity = sorted((entry[4] for entry in entries if entry[0] == _NUMBER), reverse=True)
        numbers = sum(entry[0] == _NUMBER for entry in chosen)
        margin = min(margin, _margin(*by_similarity[numbers - 1 : numbers + 1], noise))

    goes_into = {a_tokens[i]: b for _, _, i, b, _ in chosen}
    kept = [token for token in range(n) if token not in goes_into]
    place = {token: position for position, token in enumerate(kept)}
    target = [place[goes_into.get(token, token)] for token in range(n)]
    if causal:
        target = [max(place[survivor] for survivor in kept if survivor <= token) for token in range(n)]

    y, size_out, touched = [], [], []
    for token in kept:
        members = [a for a, b in goes_into.items() if b == token]  # R6.3 to R6.6
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
