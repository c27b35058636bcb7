"""Metrics against closed forms and naive loops."""

from __future__ import annotations

import numpy as np
import pytest

from tsmerge_export.errors import UsageError
from tsmerge_export.verify import metrics

NAN = np.nan


def test_mse_and_mae_by_hand() -> None:
    forecast, target = np.array([[1.0, 2.0], [3.0, 9.0]]), np.array([[2.0, 2.0], [0.0, NAN]])
    assert metrics.mse(forecast, target) == pytest.approx((1 + 0 + 9) / 3)
    assert metrics.mae(forecast, target) == pytest.approx((1 + 0 + 3) / 3)


def test_a_nan_forecast_shows_and_no_target_gives_nan() -> None:
    assert np.isnan(metrics.mse(np.array([NAN, 1.0]), np.array([1.0, 1.0])))
    assert np.isnan(metrics.mae(np.array([1.0]), np.array([NAN])))


def test_float32_sums_do_not_lose_digits() -> None:
    forecast = np.full(1_000_000, 0.1, np.float32)
    expected = float(np.float32(0.1)) ** 2
    assert metrics.mse(forecast, np.zeros_like(forecast)) == pytest.approx(expected, rel=1e-12)


def naive_wql(quantiles: np.ndarray, target: np.ndarray, levels: list[float]) -> float:
    """The definition as loops over every value."""
    total = 0.0
    for b in range(target.shape[0]):
        for h in range(target.shape[1]):
            for i, q in enumerate(levels):
                error = target[b, h] - quantiles[b, i, h]
                total += 2 * (q * error if error >= 0 else (q - 1) * error)
    return total / sum(abs(v) for v in target.ravel()) / len(levels)


def test_wql_against_loops() -> None:
    rng = np.random.default_rng(0)
    levels = [0.1, 0.25, 0.5, 0.9]
    quantiles, target = rng.normal(size=(3, 4, 7)), rng.normal(size=(3, 7))
    expected = naive_wql(quantiles, target, levels)
    assert metrics.weighted_quantile_loss(quantiles, target, levels) == pytest.approx(expected, rel=1e-12)


def test_wql_of_the_median_alone_is_the_weighted_absolute_error() -> None:
    target = np.array([[1.0, -2.0, 4.0]])
    forecast = np.array([[[2.0, -2.0, 1.0]]])
    assert metrics.weighted_quantile_loss(forecast, target, [0.5]) == pytest.approx((1 + 0 + 3) / 7)


def test_wql_skips_missing_targets_and_has_no_value_without_weight() -> None:
    quantiles = np.array([[[2.0, 50.0]]])
    assert metrics.weighted_quantile_loss(quantiles, np.array([[1.0, NAN]]), [0.5]) == pytest.approx(1.0)
    assert np.isnan(metrics.weighted_quantile_loss(quantiles, np.zeros((1, 2)), [0.5]))


@pytest.mark.parametrize("levels", [[0.5, 0.6], [0.0], [1.0]])
def test_wql_refuses_levels_that_do_not_fit(levels: list[float]) -> None:
    with pytest.raises(UsageError, match="levels"):
        metrics.weighted_quantile_loss(np.zeros((1, 1, 2)), np.ones((1, 2)), levels)


def test_shapes_must_agree() -> None:
    with pytest.raises(UsageError, match="shape"):
        metrics.mse(np.zeros(2), np.zeros(3))


def test_seasonal_naive() -> None:
    context = np.arange(12.0)[None]
    assert metrics.seasonal_naive(context, 7, 5).tolist() == [[7, 8, 9, 10, 11, 7, 8]]
    assert metrics.seasonal_naive(context, 3, 1).tolist() == [[11, 11, 11]]
    assert metrics.seasonal_naive(np.array([[1.0, 2.0]]), 3, 24).tolist() == [[1, 2, 1]]
    assert metrics.seasonal_naive(np.array([[1.0, 3.0, NAN]]), 2, 2).tolist() == [[3, 2]]
    assert metrics.seasonal_naive(np.full((1, 3), NAN), 2, 2).tolist() == [[0, 0]]


def test_seasonal_naive_is_perfect_on_a_season() -> None:
    t = np.arange(300)
    series = np.sin(2 * np.pi * t / 24)
    forecast = metrics.seasonal_naive(series[None, :240], 60, 24)
    assert metrics.mse(forecast, series[None, 240:]) == pytest.approx(0, abs=1e-20)
