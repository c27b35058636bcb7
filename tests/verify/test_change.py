"""What a change in per cent is: by hand, and against loops of their own."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.verify.reports import report
from tsmerge_export.verify import change


def test_the_median_of_the_changes_is_not_the_change_of_the_medians() -> None:
    """Columns +8.6, -4.2 and +4.3 %: merging costs, though the median error falls, being another column's."""
    before, after = [1.0, 2.0, 3.0], [1.086, 1.916, 3.129]
    assert 100 * (np.median(after) / np.median(before) - 1) == pytest.approx(-4.2)
    found = report(before, after)
    assert found.change_percent("mae") == pytest.approx(4.3)
    assert found.change_percent("mae", "mean") == pytest.approx(2.9)
    content = found.to_dict()
    assert content["overall"]["median"]["change_percent"]["mae"] == pytest.approx(4.3)
    worst = content["changes"]["mae"]["worst"]
    assert worst == {"column": "c0", "unmerged": 1.0, "merged": 1.086, "percent": pytest.approx(8.6)}


def test_against_loops() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        before = rng.gamma(2, 1, int(rng.integers(1, 9)))
        after = before * rng.uniform(0.5, 2, before.shape)
        single = sorted((a - b) / b * 100 for a, b in zip(after, before, strict=True))
        half = len(single) // 2
        middle = single[half] if len(single) % 2 else (single[half - 1] + single[half]) / 2
        found = change.over_columns([change.percent(b, a) for a, b in zip(after, before, strict=True)])
        assert found.median == pytest.approx(middle)
        assert found.mean == pytest.approx(sum(single) / len(single))
        assert found.worst_percent == pytest.approx(single[-1])
        assert (after / before)[found.worst] == max(after / before)


def test_what_is_next_to_nothing_does_not_compare() -> None:
    found = report([1.0, 0.0, math.nan, 1e-5, 2.0], [1.5, 3.0, 1.0, 1.0, math.nan])
    change_of = found.change("mae")
    assert (change_of.median, change_of.compared, change_of.left_out) == (pytest.approx(50), 1, (1, 2, 3, 4))
    # The same thousandths of a deviation squared are an error like any other.
    assert found.change("mse").left_out == (1, 2, 4)
    assert found.to_dict()["changes"]["mae"]["left_out"] == ["c1", "c2", "c3", "c4"]
    nothing = change.over_columns([math.nan, math.nan])
    assert (nothing.worst, nothing.compared, math.isnan(nothing.median)) == (None, 0, True)
    assert report([0.0], [1.0]).to_dict()["changes"]["mse"]["worst"] is None
