"""Forecast errors on arrays: MSE, MAE, weighted quantile loss and the seasonal naive forecast.

All sums run in float64. A missing target (NaN) takes no part; a forecast that is NaN where the target is not makes
the result NaN, since that is a fault of the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tsmerge_export.errors import UsageError

Array = npt.NDArray[np.floating]


def _observed(forecast: Array, target: Array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    if forecast.shape != target.shape:
        raise UsageError(f"forecast {list(forecast.shape)} and target {list(target.shape)} differ in shape")
    there = ~np.isnan(target)
    return forecast[there].astype(np.float64), target[there].astype(np.float64)


def mse(forecast: Array, target: Array) -> float:
    """Mean squared error of ``forecast [...]`` against ``target [...]``; NaN where no target was observed."""
    f, t = _observed(forecast, target)
    return float(np.mean((f - t) ** 2)) if t.size else float("nan")


def mae(forecast: Array, target: Array) -> float:
    """Mean absolute error of ``forecast [...]`` against ``target [...]``; NaN where no target was observed."""
    f, t = _observed(forecast, target)
    return float(np.mean(np.abs(f - t))) if t.size else float("nan")


def pinball(forecast: Array, target: Array, level: float) -> float:
    """Sum of the pinball loss ``max(q (t - f), (q - 1) (t - f))`` at quantile ``level`` q, 0 < q < 1."""
    f, t = _observed(forecast, target)
    return float(np.sum(np.maximum(level * (t - f), (level - 1) * (t - f))))


def weighted_quantile_loss(quantiles: Array, target: Array, levels: Sequence[float]) -> float:
    """Weighted quantile loss: mean over the levels of ``2 * sum(pinball) / sum |target|``.

    The definition of Chronos (arXiv 2403.07815, section 5.3) and of GluonTS, there called
    ``mean_weighted_sum_quantile_loss``. With the one level 0.5 it is ``sum |t - f| / sum |t|``.

    Args:
        quantiles: ``[..., Q, H]``, one forecast per level.
        target: ``[..., H]``, in the unit of the data (not standardised: a shift changes the denominator).
        levels: Q numbers in (0, 1).

    Returns:
        The loss; NaN where all targets are missing or 0.

    Raises:
        UsageError: shapes or levels do not fit together.
    """
    if quantiles.shape[-2] != len(levels) or not all(0 < q < 1 for q in levels):
        raise UsageError(f"{quantiles.shape[-2]} quantile forecasts do not fit the levels {list(levels)}")
    weight = float(np.nansum(np.abs(target.astype(np.float64))))
    if weight == 0:
        return float("nan")
    losses = [2 * pinball(quantiles[..., i, :], target, q) / weight for i, q in enumerate(levels)]
    return float(np.mean(losses))


def seasonal_naive(context: Array, horizon: int, season: int) -> Array:
    """Repeat the last season: step h is the value ``season`` steps before it (or a multiple of that).

    Args:
        context: ``[B, L]``; a missing value is replaced by the mean of its row.
        horizon: steps to forecast.
        season: steps of one season; at most L of them are used.

    Returns:
        ``[B, horizon]``, dtype of context.
    """
    season = min(season, context.shape[1])
    last = context[:, -season:]
    if np.isnan(last).any():
        count = (~np.isnan(context)).sum(1, keepdims=True)
        mean = np.nansum(context, axis=1, keepdims=True) / np.maximum(count, 1)
        last = np.where(np.isnan(last), mean, last).astype(context.dtype)
    return last[:, np.arange(horizon) % season]
