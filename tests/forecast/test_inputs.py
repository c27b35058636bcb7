"""What callers may give, and the one line they get otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tsmerge_export.errors import UsageError
from tsmerge_export.forecast import inputs

NAN = np.nan
ROWS = [[NAN, NAN, 1.0], [2.0, NAN, 4.0]]


@pytest.mark.parametrize(
    ("given", "want"),
    [
        (np.array([1.0, 2, 3]), [[1, 2, 3]]),
        ([1, 2, None], [[1, 2, NAN]]),
        ((1, 2), [[1, 2]]),
        (torch.tensor([1.0, 2.0], requires_grad=True), [[1, 2]]),
        (torch.tensor([[1, 2], [3, 4]], dtype=torch.bfloat16), [[1, 2], [3, 4]]),
        (np.array([[1, 2], [3, 4]], np.int8), [[1, 2], [3, 4]]),
        ([[1.0], [2, NAN, 4]], ROWS),
        ([torch.tensor([1.0]), torch.tensor([2, NAN, 4])], ROWS),
        ([np.array([1.0]), (2, None, 4)], ROWS),
        ([torch.tensor(1.0), torch.tensor(2.0)], [[1, 2]]),
        (np.arange(9), [[5, 6, 7, 8]]),
        ([np.arange(9), [1]], [[5, 6, 7, 8], [NAN, NAN, NAN, 1]]),
        ([True, False], [[1, 0]]),
        (np.ma.masked_equal([1, 9, 3], 9), [[1, NAN, 3]]),  # masked is missing, whatever lies below
        (np.ma.masked_invalid([[1.0, np.inf], [3.0, 4.0]]), [[1, NAN], [3, 4]]),
        ([np.ma.masked_equal([2.0, 7.0, 4.0], 7), [1]], [[2, NAN, 4], [NAN, NAN, 1]]),
        ([1.0, np.ma.masked, 3.0], [[1, NAN, 3]]),
        (np.ma.array([1, None, 3], mask=[0, 1, 0], dtype=object), [[1, NAN, 3]]),
    ],
)
def test_accepted(given: Any, want: Any) -> None:
    got = inputs.as_batch(given, 4)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.array(want, np.float32))


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ([], "no series"),
        (np.zeros((0, 5)), "no series"),
        (np.array([]), "series 0 is empty"),
        ([[1.0], []], "series 1 is empty"),
        ([NAN, NAN], "series 0 has no observed value in its last 2 steps"),
        ([[1.0], [1.0, NAN, NAN, NAN, NAN]], "series 1 has no observed value in its last 4 steps"),
        (np.zeros((2, 2, 2)), r"shape \[2, 2, 2\]"),
        (3.0, r"shape \[\]"),
        ([[[1.0]]], "series 0 has shape"),
        (["a", "b"], "series 0 is not numeric"),
        ([["1", "2"]], "series 0 is not numeric"),
        (np.array(["1", 2.0], object), "series 0 is not numeric"),
        ([[1j, 2]], "series 0 is not numeric"),
        ([1.0, np.inf], "infinite"),
        ([1.0, 1e300], "beyond float32"),
        ([[{}]], "not numeric"),
    ],
)
def test_refused(given: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        inputs.as_batch(given, 4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "64", 10**9, [1]])
def test_prediction_length_is_a_sane_number(value: Any) -> None:
    with pytest.raises(UsageError, match=r"prediction_length .* is not a whole number from 1 to 65536"):
        inputs.prediction_length(value, 64, False)


def test_prediction_length_limit() -> None:
    assert inputs.prediction_length(None, 64, True) == 64
    assert inputs.prediction_length(np.int64(65), 64, False) == 65
    with pytest.raises(UsageError, match="longer than the model's own 64"):
        inputs.prediction_length(65, 64, True)


def test_numbers_and_levels() -> None:
    for bad in (0, -1.0, float("nan"), float("inf"), "hot", None):
        with pytest.raises(UsageError, match="temperature"):
            inputs.number("temperature", bad, 0, 10, above=True)
    assert inputs.quantile_levels(np.array([0.1, 0.5])) == (0.1, 0.5)
    for levels in ([], [1.1], [-0.1], "0.5", 0.5, [NAN]):
        with pytest.raises(UsageError, match="quantile_levels"):
            inputs.quantile_levels(levels)
    assert inputs.seed(None) != inputs.seed(None)
    with pytest.raises(UsageError, match="seed"):
        inputs.seed(-1)
