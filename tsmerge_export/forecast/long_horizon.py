"""Horizons beyond a model's own, from quantiles: each goes on as a path, and what follows is weighed by its probability
(chronos-forecasting's rule for Chronos-2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def masses(levels: Sequence[float]) -> Floats:
    """Probability that each quantile stands for ``[Q]``: half of the way to its neighbours, 0 and 1 at the ends."""
    ends = np.concatenate([[0], np.asarray(levels, np.float32), [1]]).astype(np.float32)
    found = (ends[2:] - ends[:-2]) / 2
    return (found / found.sum()).astype(np.float32)


def weighted_quantiles(samples: Floats, weights: Floats, levels: Sequence[float]) -> Floats:
    """Quantiles of weighted samples, linearly between the steps of their cumulative weight.

    Args:
        samples: ``[.., S]``. weights: ``[S]`` float32, above 0. levels: from 0 to 1.

    Returns:
        ``[.., len(levels)]`` float32; below the first and beyond the last step that sample.
    """
    order = np.argsort(samples, axis=-1, kind="stable")
    ordered = np.take_along_axis(samples, order, -1).astype(np.float32)
    share = (weights / weights.sum()).astype(np.float32)
    steps = np.minimum(np.cumsum(share[order], -1, dtype=np.float32), np.float32(1))
    last = samples.shape[-1] - 1
    out = np.empty((*samples.shape[:-1], len(levels)), np.float32)
    for index, level in enumerate(np.asarray(levels, np.float32)):
        above = (steps <= level).sum(-1, keepdims=True)
        below = np.maximum(above - 1, 0)
        above = np.minimum(above, last)
        low, high = (np.take_along_axis(steps, at, -1) for at in (below, above))
        first, second = (np.take_along_axis(ordered, at, -1) for at in (below, above))
        width = high - low
        part = np.divide(level - low, width, out=np.zeros_like(width), where=width > 0)
        out[..., index] = (first + np.clip(part, 0, 1) * (second - first))[..., 0]
    return out
