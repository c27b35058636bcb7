"""How much worse, how sure: closed forms, and the window errors against the losses they are parts of."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from tests import artefacts
from tsmerge_export.errors import UsageError
from tsmerge_export.tools.tune.contender import context_of, split
from tsmerge_export.verify import metrics
from tsmerge_export.verify.change import LEAST_WINDOWS
from tsmerge_export.verify.data import Table, rolling_windows
from tsmerge_export.verify.quality import increase, require_windows
from tsmerge_export.verify.window_errors import Forecasts


def test_a_constant_factor_has_no_doubt() -> None:
    reference = np.random.default_rng(0).uniform(1, 2, (3, 12))
    found = increase(1.1 * reference, reference)
    assert found.median == pytest.approx(10)
    assert found.upper == pytest.approx(10)


def test_columns_count_alike_whatever_their_scale() -> None:
    reference = np.stack([np.full(8, 1000.0), np.full(8, 0.001), np.full(8, 1.0)])
    found = increase(reference * [[1.5], [1.0], [1.1]], reference)
    assert found.median == pytest.approx(10)
    assert (found.worst, found.worst_percent) == (0, pytest.approx(50))


def test_the_bound_covers_the_truth_as_often_as_it_says() -> None:
    """Windows whose error grows by 5 % on average: the 90 % bound must lie above that about nine times of ten."""
    rng = np.random.default_rng(1)
    above = 0
    for trial in range(300):
        reference = rng.gamma(4, 1, (1, 40))
        factor = rng.normal(1.05, 0.3, (1, 40))
        # Truth: E[sum of factor * reference] / E[sum of reference] = 1.05, as the two are independent.
        above += increase(reference * factor, reference, seed=trial).upper > 5.0
    assert 0.83 <= above / 300 <= 0.96


def test_missing_windows_and_faultless_columns_take_no_part() -> None:
    reference = np.array([[0.0, 0.0, 0.0, 0.0, 0.0], [1.0, 2.0, np.nan, 1.0, 1.0]])
    errors = np.array([[1.0, 1.0, 1.0, 1.0, 1.0], [1.5, 3.0, np.nan, 1.5, 1.5]])
    found = increase(errors, reference)
    assert (found.median, found.worst) == (pytest.approx(50), 1)
    assert np.isnan(increase(errors[:1], reference[:1]).median)
    # What counts as next to nothing is per window.
    tiny = np.array([[1e-9] * 5])
    assert np.isnan(increase(3 * tiny, tiny, np.array([1e-8])).median)
    assert increase(3 * tiny, tiny, np.array([1e-10])).median == pytest.approx(200)


@pytest.mark.parametrize("windows", [1, 2, 3, 4])
def test_few_windows_have_no_bound(windows: int) -> None:
    reference = np.random.default_rng(0).uniform(1, 2, (3, windows))
    assert increase(1.1 * reference, reference).upper == np.inf
    with pytest.raises(UsageError, match=f"only {windows} validation windows have observed values"):
        require_windows("x.csv", reference)
    gaps = np.concatenate([reference, np.full((3, 9), np.nan)], axis=1)
    assert increase(1.1 * gaps, gaps).upper == np.inf
    with pytest.raises(UsageError, match=f"--data x.csv: only {windows} validation windows"):
        require_windows("x.csv", gaps)


def test_nothing_to_compare_on_is_refused() -> None:
    with pytest.raises(UsageError, match="next to nothing in every column"):
        require_windows("x.csv", np.zeros((2, 9)))
    require_windows("x.csv", np.array([np.zeros(9), np.ones(9)]))


def test_a_forecast_that_is_no_number_is_infinitely_worse() -> None:
    reference = np.ones((2, 6))
    errors = reference.copy()
    errors[1, 3] = np.nan
    found = increase(errors, reference)
    assert (found.median, found.upper, found.worst) == (np.inf, np.inf, 1)


@pytest.mark.parametrize(("rows", "length"), [(200, None), (1000, None), (1999, None), (2200, 1500)])
def test_too_few_rows_say_how_many_it_takes(rows: int, length: int | None) -> None:
    """The number that is named is enough, one row less is not; by cutting windows."""
    with pytest.raises(UsageError, match=f"--data s.csv: {rows} rows are too few") as refused:
        context_of("s.csv", rows, 1024, 64, length)
    enough = int(re.findall(r"at least (\d+) rows", str(refused.value))[0])
    context = context_of("s.csv", enough, 1024, 64, length)
    whole = Table("s.csv", ("a",), np.zeros((enough, 1)))
    assert rolling_windows(split(whole), context, 64).target.shape[1] == LEAST_WINDOWS
    with pytest.raises(UsageError, match="too few"):
        context_of("s.csv", enough - 1, 1024, 64, length)


def test_window_errors_add_up_to_the_losses() -> None:
    family, model = artefacts.family("bolt-tiny"), artefacts.model("bolt-tiny")
    rng = np.random.default_rng(2)
    values = np.cumsum(rng.standard_normal((400, 2)), axis=0)
    values[-20:, 1] = np.nan
    cut = rolling_windows(Table("t", ("a", "b"), values), 100, family.horizon(model))
    component = artefacts.component("bolt-tiny")

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
        with torch.no_grad():
            return {name: value.numpy() for name, value in component.eager(model, tensors).items()}

    levels = family.quantile_levels(model)
    every = Forecasts(family, model, run).errors(cut)
    for column in range(2):
        found = {metric: errors[column] for metric, errors in every.items()}
        target = cut.target[column]
        quantiles = family.forecast(model, run, cut.context[column])
        whole = metrics.weighted_quantile_loss(quantiles, target, levels)
        assert 2 * np.nansum(found["wql"]) / np.nansum(np.abs(target)) == pytest.approx(whole)
        median = quantiles[:, list(levels).index(0.5)]
        error = ((median - target) / cut.deviation[column]) ** 2
        for w, row in enumerate(error):
            there = ~np.isnan(row)
            want = row[there].mean() if there.any() else np.nan
            np.testing.assert_allclose(found["mse"][w], want, rtol=1e-6)
