"""Chronos-Bolt on series with gaps and at the ends of float32, at all horizons and levels: upstream's, or a refusal."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tsmerge_export as tsm
from tests import artefacts
from tests.families.harness import describe
from tests.forecast import upstream
from tsmerge_export.errors import UsageError
from tsmerge_export.settings.config import MergeConfig

pytestmark = pytest.mark.filterwarnings(
    "ignore:the model was made for", "ignore:We rec", "ignore:quantile levels"
)
BOTH = pytest.mark.parametrize("merge", [MergeConfig(method="none"), MergeConfig(ratio="1/4")], ids=describe)

_RNG = np.random.default_rng(0)
SEASON = (10 * np.sin(np.arange(200) * np.pi / 12) + _RNG.standard_normal(200)).astype(np.float32)


def without(*slices: slice) -> np.ndarray:
    out = SEASON.copy()
    for gap in slices:
        out[gap] = np.nan
    return out


SERIES = {
    "whole": SEASON,
    "a third missing": np.where(_RNG.random(200) < 0.3, np.float32(np.nan), SEASON),
    "gap of whole patches": without(slice(80, 144)),
    "starts missing": without(slice(0, 3)),
    "starts with missing patches": without(slice(0, 100)),
    "ends missing": without(slice(-1, None)),
    "ends with missing patches": without(slice(0, 9), slice(-40, None)),
    "one value at the end": without(slice(0, -1)),
    "one value at the start": without(slice(1, None)),
    "one value": np.array([5], np.float32),
    "beyond the context": np.tile(SEASON, 11),
    "constant": np.full(200, 7, np.float32),
    "zero": np.zeros(200, np.float32),
    "huge": SEASON * np.float32(1e15),
    "tiny": SEASON * np.float32(1e-10),
    "too tiny for a variance": SEASON * np.float32(1e-30),
    "subnormal": SEASON * np.float32(1e-40),
    "far from zero": SEASON + np.float32(1e6),
    "binary": (SEASON > 0).astype(np.float32),
}
#: Where the last bit of the mean decides whether there is a deviation at all: forecasts are within upstream's epsilon.
ROUNDED = {"constant that is no float": np.full(200, 0.1, np.float32)}
EPSILON = 1e-5  # upstream's deviation of a constant
LEVELS = [0.01, 0.05, 0.1, 0.33, 0.5, 0.95, 0.99]


@BOTH
@pytest.mark.parametrize("name", [*SERIES, *ROUNDED])
def test_odd_series_and_levels_are_upstreams(name: str, merge: MergeConfig) -> None:
    """Levels beyond the model's own, which get its outermost quantiles; one, two, four and 16 times its horizon."""
    series = (SERIES | ROUNDED)[name]
    deviation = max(float(np.nanstd(series.astype(np.float64))), 1 if name in ROUNDED else EPSILON)
    ours, theirs = tsm.pipeline(artefacts.bundle("bolt-nano", merge), threads=1), upstream.bolt("bolt-nano")
    for steps in (64, 65, 200, 1000) if name in ("whole", "ends with missing patches") else (65,):
        with tsm.merging(theirs.model, merge):
            want = theirs.predict_quantiles(torch.from_numpy(series), steps, quantile_levels=LEVELS)
        got = ours.predict_quantiles(series, steps, quantile_levels=LEVELS)
        for found, expected in zip(got, map(torch.Tensor.numpy, want), strict=True):
            assert np.isfinite(expected).all()
            resolution = 1e-6 * np.abs(expected).max()  # of float32, where a series is far from zero
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * deviation + resolution)


@BOTH
def test_series_that_upstream_forecasts_from_nothing_are_refused(merge: MergeConfig) -> None:
    """Without a value, with infinite ones, or with a variance that is: upstream's forecasts are no numbers, or any."""
    ours, theirs = tsm.pipeline(artefacts.bundle("bolt-nano", merge), threads=1), upstream.bolt("bolt-nano")
    for series, match in (
        (
            np.full(90, np.nan, np.float32),
            "series 1 has no observed value in its last 90 steps; leave it out",
        ),
        (np.where(SEASON > 9, np.float32(np.inf), SEASON), "series 1 has infinite values"),
        (
            SEASON * np.float32(1e18),
            r"series 1 holds 1\.24e\+19, too large for a variance in float32; divide it",
        ),
        (np.full(200, 1e30, np.float32), r"series 1 holds 1e\+30, too large for a variance"),
    ):
        with pytest.raises(UsageError, match=match) as caught:
            ours.predict([SEASON, series], 200)
        assert "\n" not in str(caught.value)
        with tsm.merging(theirs.model, merge):
            found = theirs.predict(torch.from_numpy(series), 200).numpy()
        seen = np.abs(series[~np.isnan(series)])
        assert not len(seen) or not (np.abs(found) < 100 * seen.max()).all()
