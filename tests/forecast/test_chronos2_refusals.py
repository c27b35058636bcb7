"""What Chronos-2's forecaster refuses, in one line, before anything runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.forecast.test_chronos2 import NAN, data, dicts, ours
from tsmerge_export.errors import UsageError


@pytest.mark.parametrize(
    ("change", "options", "match"),
    [
        (lambda f: f, {"target": None}, "target is None, not the name of a column"),
        (lambda f: f, {"target": 0}, "column 0 is not in the data; it has: item_id"),
        (lambda f: f, {"target": [[]]}, r"column \[\] is not in the data"),
        (lambda f: f, {"future_df": [1, 2]}, "future_df is a list, not a data frame"),
        (lambda f: pd.concat([f, f[["target"]]], axis=1), {}, "column 'target' is there twice"),
        (lambda f: pd.concat([f, f[["heat"]]], axis=1), {}, "column 'heat' is there twice"),
        (lambda f: f.assign(heat=np.inf), {}, "column 'heat' has infinite values"),
        (lambda f: f.assign(kind=[[1]] * len(f)), {}, "covariate 'kind' holds what is no category"),
    ],
)
def test_frames_that_make_no_sense_are_one_line(change: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=f"^{match}"):
        ours().predict_df(change(data()[0]), prediction_length=9, **options)


def changed(**change: Any) -> list[dict[str, Any]]:
    return [*dicts(4, (30, 20)), {**dicts(4, (25,))[0], **change}]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ([], "inputs hold no series"),
        (np.zeros((2, 2, 2, 9)), r"inputs have shape \[2, 2, 2, 9\]"),
        ([np.zeros((2, 2, 9))], r"series 0 has shape \[2, 2, 9\], expected"),
        ([np.zeros((0, 9))], r"series 0 has shape \[0, 9\]"),
        ([np.ones(5), np.array([[1.0, 2], [NAN, NAN]])], r"series 1 \(variate 1\) has no observed value"),
        ([np.array([[1.0, 2], [np.inf, 1]])], r"series 0 \(variate 1\) has infinite values"),
        ([np.array([[1.0, 2], [3e18, 1]])], r"series 0 \(variate 1\) holds 3e\+18, too large for a variance"),
        (changed(target=np.full(25, NAN)), "series 2 has no observed value in its last 25 steps"),
        (changed(target=np.ones((2, 25))), "series 2 has other variates or covariates than series 0"),
        (changed(past_covariates={}), "series 2: future_covariates has 'kind', of which past_covariates"),
        (changed(future_covariates={}), "series 2 has other variates or covariates than series 0"),
        (changed(extra=1), "series 2 has a key 'extra'; it may have target, past_covariates"),
        (changed(past_covariates=3), "series 2: past_covariates is a int, not a dict"),
        (
            [{"target": [1.0, 2], "past_covariates": {"x": [1.0]}}],
            r"past_covariates 'x' has shape \[1\], expected \[2\]",
        ),
        (
            [{"target": [1.0, 2], "past_covariates": {"x": [1, 2]}, "future_covariates": {"x": [1.0]}}],
            r"series 0: future_covariates 'x' has shape \[1\], expected \[4\]",
        ),
        (
            [
                {
                    "target": [1.0, 2],
                    "past_covariates": {"x": [1, 2]},
                    "future_covariates": {"x": list("abcd")},
                }
            ],
            "future_covariates 'x' is numeric in the past, and not in the future",
        ),
        (
            [{"target": [1.0, 2], "past_covariates": {"x": [1, np.inf]}}],
            "past_covariates 'x' has infinite values",
        ),
        (
            [{"target": [1.0, 2], "past_covariates": {"x": [1, 2]}, "future_covariates": {"x": 5}}],
            r"series 0: future_covariates 'x' has shape \[\], expected \[4\]",
        ),
        (
            [{"target": [1.0, 2], "past_covariates": {"x": [[1], [1, 2]]}}],
            "series 0: past_covariates 'x' is no array of one dim",
        ),
        (
            [{"target": [1.0, 2], "past_covariates": {"x": np.array([[1], {}], object)}}],
            "covariate 'x' holds what is no category",
        ),
        (
            [{"target": [1.0, 2], "past_covariates": np.ones((2, 2))}],
            "past_covariates is a ndarray, not a dict of covariates",
        ),
        (
            [{"target": [1.0, 2], "past_covariates": pd.DataFrame({"x": [1, 2]})}],
            "past_covariates is a DataFrame, not a dict of covariates",
        ),
        (
            [
                {
                    "target": [1.0, 2],
                    "past_covariates": {"x": np.arange(2) * 1e-30},
                    "future_covariates": {"x": np.full(4, 3e38)},
                }
            ],
            r"series 0 \(covariate 0\) has a known future of up to 3e\+38, too large beside its past",
        ),
        (
            [{"context": np.ones((1, 9)), "future_covariates": np.ones((1, 5)), "n_targets": 1}],
            "series 0 was prepared for 5 steps, expected 4",
        ),
        (
            [{"context": np.ones((1, 9)), "future_covariates": np.full((1, 4), np.inf), "n_targets": 1}],
            "series 0: its future_covariates has infinite values",
        ),
        ([{"context": np.ones((1, 9))}, np.ones((2, 9))], "series 0 is no prepared input: KeyError"),
        ([5, {"context": np.ones((1, 9))}], "series 0 is no prepared input: TypeError"),
        ([{"past_covariates": {}}], "series 0 is no dict with a 'target'"),
        ([{"context": np.ones((2, 4))}], "series 0 is no prepared input: KeyError"),
    ],
)
def test_inputs_that_make_no_sense_are_one_line(given: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        ours().predict(given, 4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"unrolled_quantiles": [0.2]}, "unrolled_quantiles: 0.2 is none of the model's own levels"),
        ({"unrolled_quantiles": 0.5}, "unrolled_quantiles 0.5 is not a list of numbers"),
        ({"unrolled_quantiles": [2]}, "unrolled_quantiles 2 is out of range"),
        ({"after_batch": 3}, "after_batch 3 cannot be called"),
        ({"max_output_patches": 4}, "max_output_patches 4 is not a whole number from 1 to 3"),
        ({"context_length": 0}, "context_length 0 is not"),
        ({"batch_size": 0}, "batch_size 0 is not"),
        ({"prediction_length": 25, "limit_prediction_length": True}, "longer than the model's own 24"),
    ],
)
def test_numbers_that_make_no_sense_are_one_line(options: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        ours().predict([np.ones(9)], **options)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: f.assign(target=1.0), "future_df: column 'target' is a target, which is not known"),
        (lambda f: f.assign(new=1.0), "future_df: column 'new' has no history in the data"),
        (lambda f: f.drop(columns="timestamp"), "column 'timestamp' is not in future_df"),
        (lambda f: f.assign(heat=np.inf), "future_df: column 'heat' has infinite values"),
        (lambda f: f.assign(heat="hot"), "future_df: column 'heat' is numeric in the past, and not in the"),
        (lambda f: pd.concat([f, f[["heat"]]], axis=1), "future_df: column 'heat' is there twice"),
        (lambda f: f[f["item_id"] == "a"], "future_df: series 'b' has 0 rows, expected 9, one a step"),
        (lambda f: f[1:], "future_df: series 'a' has 8 rows, expected 9"),
        (lambda f: f.replace("a", "z"), "future_df: the data have no series 'z'"),
        (
            lambda f: f.assign(timestamp=f["timestamp"] + pd.Timedelta("1D")),
            "where 2024-03-31 00:00:00 follows",
        ),
    ],
)
def test_futures_that_do_not_fit_are_one_line(change: Any, match: str) -> None:
    df, future = data()
    with pytest.raises(UsageError, match=match):
        ours().predict_df(df, change(future), prediction_length=9)
    with pytest.raises(UsageError, match=r"targets \['target', 'target'\]: name each column once"):
        ours().predict_df(df, target=["target", "target"])
