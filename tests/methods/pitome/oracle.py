"""A deliberately naive PiToMe: Python loops, row by row, written from the specification alone.

It shares no code with the package. Numbers are rounded to float32 where the specification says so; energies are summed
as whole numbers. What two float32 implementations may decide differently is found with an interval for every number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from tests.methods.oracle import Row, _cosine, removed_count

# Four units in the last place of a cosine, or of an exponential.
_NOISE = 2.5e-7


@dataclass(frozen=True)
class Kernel:
    """What the energy sums."""

    margin: float
    alpha: float
    energy: str

    def term(self, cosine: float, noise: float = 0.0) -> int:
        """f_m in steps of 2^-20; ``noise`` is added to what the exponential gives."""
        margin, one, c = np.float32(self.margin), np.float32(1), np.float32(cosine)
        if self.energy == "gaussian":
            z = (one - c) / max(one - margin, np.float32(2**-20))
            value = np.exp(z * z * np.float32(-0.5))
        elif c >= margin:
            return int(np.rint(c * 2**20))
        else:
            value = np.float32(self.alpha) * (np.exp(c - margin) - one)
            noise *= self.alpha
        return int(np.rint(np.float32(np.float32(value + np.float32(noise)) * np.float32(2**20))))

    def terms(self, low: float, high: float, exact: bool) -> tuple[int, int]:
        """Least and largest term of the cosines ``low`` to ``high``."""
        noise = 0.0 if exact and low >= np.float32(self.margin) else _NOISE
        found = [self.term(c, n) for c in (low, high) for n in (-noise, noise)]
        if self.energy == "elu" and low < np.float32(self.margin) <= high:
            found += [0, self.term(self.margin)]
        return min(found), max(found)


@dataclass
class Token:
    """A token that takes part: its place, its energy and the bounds of that in steps of 2^-20, and its cosines."""

    index: int
    energy: float
    least: float
    most: float
    like: tuple[float, ...]


def _in_steps(cosine: float) -> float:
    return float(np.rint(cosine * 2**20)) / 2**20


def _mean(terms: list[int]) -> float:
    """Energy from terms, -inf where there are none."""
    if not terms:
        return -math.inf
    return float(np.rint(np.float32(sum(terms)) / np.float32(len(terms))))


def _token(
    i: int, open_tokens: list[int], metric: np.ndarray, size: np.ndarray, kernel: Kernel, exact: bool
) -> Token:
    if size[i] == 0:
        return Token(i, math.inf, math.inf, math.inf, ())
    cosines = [_cosine(metric[i], metric[j]) for j in open_tokens if j != i and size[j] > 0]
    cosines = [c for c in cosines if not math.isnan(c)]
    noise = 0.0 if exact else _NOISE
    bounds = [kernel.terms(_in_steps(c - noise), _in_steps(c + noise), exact) for c in cosines]
    return Token(
        i,
        _mean([kernel.term(_in_steps(c)) for c in cosines]),
        _mean([low for low, _ in bounds]),
        _mean([high for _, high in bounds]),
        tuple(sorted(cosines)),
    )


def merge_row(
    x: np.ndarray,
    metric: np.ndarray,
    size: np.ndarray,
    *,
    margin: float,
    alpha: float,
    energy: str,
    exact: bool,
    r: int | None = None,
    ratio: Fraction | None = None,
    min_tokens: int = 0,
    protect_first: int = 0,
    protect_last: int = 0,
) -> Row:
    """Merge one row: x ``[N, D]``, metric ``[N, Dm]`` and size ``[N]`` are float32.

    Args:
        exact: cosines are free of rounding, so that tokens with equal cosines tie on every implementation.

    Returns:
        A row whose margin is 0 where float noise may change the decision, else infinite.
    """
    n = len(x)
    count = removed_count(n, r, ratio, min_tokens, protect_first, protect_last)
    open_tokens = list(range(protect_first, n - protect_last))
    goes_into: dict[int, int] = {}
    firm = True
    if count:
        kernel = Kernel(margin, alpha, energy)
        tokens = [_token(i, open_tokens, metric, size, kernel, exact) for i in open_tokens]
        tokens.sort(key=lambda token: (-token.energy, token.index))
        for p in range(2 * count):
            for behind in tokens[p + 1 :]:
                ahead = tokens[p]
                tie = exact and ahead.like == behind.like
                swapped = behind.most > ahead.least or (
                    behind.most == ahead.least and behind.index < ahead.index
                )
                firm &= tie or not swapped
        order = [token.index for token in tokens[: 2 * count]]
        sources, destinations = order[0::2], order[1::2]
        for a in sources:
            if size[a] == 0:
                goes_into[a] = destinations[0]
                continue
            best, partner, found = (-math.inf, -math.inf), None, []
            for b in destinations:
                similarity = _cosine(metric[a], metric[b])
                if size[b] == 0:
                    rank = (0.0, 0.0)
                elif math.isnan(similarity):
                    rank = (1.0, 0.0)
                else:
                    rank = (2.0, _in_steps(similarity))
                    found.append(similarity)
                if rank > best:
                    best, partner = rank, b
            assert partner is not None
            goes_into[a] = partner
            found.sort(reverse=True)
            for first, second in pairwise(found[:2]):
                rounded = [_in_steps(v + e) for v in (first, second) for e in (-_NOISE, _NOISE)]
                firm &= exact or rounded[0] > rounded[3] or len(set(rounded)) == 1

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
    return Row(y, size_out, kept, target, touched, math.inf if firm else 0.0)
