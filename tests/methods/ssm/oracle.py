"""A deliberately naive token reduction of arXiv 2410.14725: Python loops, row by row, from the specification alone."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from tests.methods.oracle import Row, _cosine, _margin, _ranked, noise_of, removed_count

_PADDING, _UNKNOWN = -2.0, -1.0


def _importance(metric: np.ndarray, size: np.ndarray, tokens: list[int]) -> dict[int, float]:
    """Per token, not rounded; the largest is 1."""
    sums = {
        t: np.float32(sum(float(v) if v > 0 or math.isnan(v) else 0.0 for v in metric[t])) for t in tokens
    }
    largest = max((s for t, s in sums.items() if size[t] > 0 and np.isfinite(s)), default=np.float32(0))
    out = {}
    for t in tokens:
        if size[t] == 0:
            out[t] = _PADDING
        elif not np.isfinite(sums[t]):
            out[t] = _UNKNOWN
        else:
            out[t] = float(sums[t] / largest) if largest > 0 else 0.0
    return out


def merge_row(
    x: np.ndarray,
    metric: np.ndarray,
    size: np.ndarray,
    *,
    prune_share: Fraction,
    r: int | None = None,
    ratio: Fraction | None = None,
    min_tokens: int = 0,
    protect_first: int = 0,
    protect_last: int = 0,
    residual_prune_share: Fraction | None = None,
) -> Row:
    """Reduce one row: x ``[N, D]``, metric ``[N, Dm]`` and size ``[N]`` are float32."""
    n, noise, margin = len(x), noise_of("cosine"), math.inf
    count = removed_count(n, r, ratio, min_tokens, protect_first, protect_last)
    goes_into: dict[int, int] = {}
    if count > 0:
        tokens = list(range(protect_first, n - protect_last))
        weight = _importance(metric, size, tokens)
        order = sorted(tokens, key=lambda t: (-_ranked(weight[t]), t))
        half = (len(tokens) + 1) // 2
        important, others = sorted(order[:half]), sorted(order[half:])
        exact = sorted(weight.values(), reverse=True)
        if exact[half] >= 0:
            margin = min(margin, _margin(exact[half - 1], exact[half], noise))

        links = []  # (class, ranked, token, into, similarity), classes as in ``oracle``
        for a in others:
            if size[a] == 0:
                links.append((3, 0.0, a, important[0], 0.0))
                continue
            best: tuple[int, float, int, float] | None = None
            seen: list[float] = []
            for b in important:
                value = _cosine(metric[a], metric[b]) if size[b] > 0 else 0.0
                if size[b] == 0:
                    rank = (0, 0.0)
                elif math.isnan(value):
                    rank = (1, 0.0)
                else:
                    rank = (2, _ranked(value))
                    seen.append(value)
                if best is None or rank > best[:2]:
                    best = (*rank, b, value)
            assert best is not None
            seen.sort(reverse=True)
            if len(seen) > 1:
                margin = min(margin, _margin(*seen[:2], noise))
            links.append((best[0], best[1], a, best[2], best[3]))
        links.sort(key=lambda entry: (-entry[0], -entry[1], entry[2]))
        numbers = sorted((entry[4] for entry in links if entry[0] == 2), reverse=True)
        taken = sum(entry[0] == 2 for entry in links[:count])
        if 0 < taken < len(numbers):
            margin = min(margin, _margin(*numbers[taken - 1 : taken + 1], noise))
        goes_into = {entry[2]: entry[3] for entry in sorted(links[:count], key=lambda entry: entry[2])}

    # (values, tokens that are pruned) of each branch
    branches = [(x.astype(np.float64), _pruned(goes_into, prune_share))]
    if residual_prune_share is not None:
        residual = x.astype(np.float64) - metric.astype(np.float64)
        branches = [(metric.astype(np.float64), branches[0][1])]
        branches.append((residual, _pruned(goes_into, residual_prune_share)))
    kept = [t for t in range(n) if t not in goes_into]
    place = {t: i for i, t in enumerate(kept)}
    y, sizes, touched = [], [], []
    for token in kept:
        members = [a for a, b in goes_into.items() if b == token]
        sizes.append(float(size[token]) + sum(float(size[a]) for a in members))
        out, changed = [0.0] * x.shape[1], False
        for values, pruned in branches:
            merged = [a for a in members if a not in pruned and size[a] > 0]
            changed = changed or bool(merged)
            group = [*merged, token] if merged and size[token] > 0 else merged or [token]
            weights = [float(size[t]) for t in group] if merged else [1.0]
            for d in range(x.shape[1]):
                out[d] += sum(values[t][d] * w for t, w in zip(group, weights, strict=True)) / sum(weights)
        touched.append(changed)
        y.append(out if changed else [float(v) for v in x[token]])
    return Row(y, sizes, kept, [place[goes_into.get(t, t)] for t in range(n)], touched, margin)


def _pruned(goes_into: dict[int, int], share: Fraction) -> set[int]:
    """Of the tokens that go, in order of time, those that are pruned."""
    pruned, budget = set(), Fraction(0)
    for token in goes_into:
        before, budget = budget, budget + share
        if math.floor(budget) > math.floor(before):
            pruned.add(token)
    return pruned
