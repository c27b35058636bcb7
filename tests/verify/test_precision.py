"""Precision cost of files whose forecasts are known in closed form, and of merge decisions counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from tests import artefacts
from tests.verify.constant import CONTEXT, HORIZON, Component, Family, constant_forecast, table
from tsmerge_export.bundle.precision import PrecisionCost
from tsmerge_export.families.base import Component as AnyComponent
from tsmerge_export.rewrite.insert import RewriteReport
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import precision
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.decisions import moved_away
from tsmerge_export.verify.precision import decisions_moved


class Standin(Family):
    def generation(self, model: nn.Module) -> None:
        return None


def measure(tmp_path: Path, *forecasts: float, rows: int = 400) -> PrecisionCost:
    component: AnyComponent = Component()  # type: ignore[assignment]
    sides = []
    for index, value in enumerate(forecasts):
        file = constant_forecast(tmp_path / f"{index}.onnx", value)
        sides.append([Built(component, file, file, None, RewriteReport())])
    return precision.measure(
        Standin(),
        nn.Identity(),
        *sides,
        table(rows),
        Checks(threads=1),
        runs=5,  # type: ignore[arg-type]
        timed=sides[1][0].merged,
    )


def test_errors_in_closed_form(tmp_path: Path) -> None:
    """Column a alternates between 2 and 4: forecasting 1 misses by 1 and 3, forecasting 2 by 0 and 2.

    Column b has three times that, and misses by 5 and 11, or 4 and 10.
    """
    found = measure(tmp_path, 1.0, 2.0)
    assert (found.windows, found.columns, found.context, found.horizon) == (16, 2, CONTEXT, HORIZON)
    mse, mae, wql = (found.changes[name] for name in ("mse", "mae", "wql"))
    b = [(np.square(each).mean() / 9, np.mean(each) / 3) for each in ((5, 11), (4, 10))]
    assert mse.float32 == pytest.approx(np.median([5, b[0][0]])) and mse.quantised == pytest.approx(
        np.median([2, b[1][0]])
    )
    changes = [100 * (2 / 5 - 1), 100 * (b[1][0] / b[0][0] - 1)]
    assert mse.median_percent == pytest.approx(np.median(changes))
    assert (mse.worst_column, mse.worst_percent) == ("b", pytest.approx(changes[1]))
    assert mae.median_percent == pytest.approx(np.median([-50, 100 * (b[1][1] / b[0][1] - 1)]))
    # Windows are alike, so that they cannot scatter: the interval is the figure.
    assert mae.low_percent == mae.high_percent == mae.upper_percent == pytest.approx(mae.median_percent)
    # Too low everywhere: 2 q error, and the mean of the levels is 1/2, over the mean target of 3 or 9.
    assert wql.float32 == pytest.approx(np.median([2 / 3, 8 / 9])) and wql.quantised == pytest.approx(
        np.median([1 / 3, 7 / 9])
    )
    assert found.speed is not None and found.speed.float32_ms > 0 and found.notes == ()
    assert found.decisions_moved_percent == () and found.passed


def test_the_same_file_costs_nothing_and_few_windows_say_so(tmp_path: Path) -> None:
    found = measure(tmp_path, 1.0, 1.0, rows=CONTEXT + 3 * HORIZON)
    for one in found.changes.values():
        assert one.median_percent == one.low_percent == one.high_percent == 0
        assert one.upper_percent is None
    assert "too few to tell" in found.notes[0]


def layer(kept: list[list[int]], tokens: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array(kept), np.zeros((len(kept), tokens), np.int64)


def test_tokens_that_one_run_has_and_the_other_merged_away() -> None:
    want = [layer([[1, 2, 3], [0, 1, 3]], 4), layer([[0, 2], [0, 1]], 3)]
    assert moved_away(want, want) == [(2, 0), (4, 0)]
    # Row 0 keeps 0 instead of 1; from [0, 2, 3] it then leaves 2 and 3, and not 1 and 3.
    got = [layer([[0, 2, 3], [0, 1, 3]], 4), layer([[1, 2], [0, 1]], 3)]
    assert moved_away(want, got) == [(2, 1), (4, 1)]
    # Unmerged in between: counted anew.
    again = [layer([[1, 2, 3]], 4), layer([[0, 1, 2]], 4)]
    assert moved_away(again, [again[0], layer([[1, 2, 3]], 4)]) == [(1, 0), (1, 1)]


def test_decisions_of_files() -> None:
    """Of one file none moves; of another setting some do; a file without merges, or inlined, says nothing."""
    first = artefacts.built("bolt-tiny", MergeConfig(ratio="1/4", min_tokens=2))
    series = np.random.default_rng(0).standard_normal((4, 128)).cumsum(axis=1).astype(np.float32)
    feeds, checks = [{"context": series}], Checks(threads=1)
    assert decisions_moved(first.merged, first.merged, feeds, checks) == ((0.0, 0.0), [])
    other = artefacts.built("bolt-tiny", MergeConfig(ratio="1/4", min_tokens=2, metric="key"))
    moved, notes = decisions_moved(first.merged, other.merged, feeds, checks)
    assert 0 < moved[0] < 100 and 0 < moved[1] < 100 and not notes  # type: ignore[operator]
    assert decisions_moved(first.merged, first.unmerged, feeds, checks) == ((), [precision.NO_DECISIONS])
    assert decisions_moved(first.unmerged, first.unmerged, feeds, checks) == ((), [])
