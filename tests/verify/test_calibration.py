"""Series to choose by: none of the verdict's, and effects in closed form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from tests.verify.constant import CONTEXT, HORIZON, Component, constant_forecast, table
from tests.verify.test_precision import Standin
from tsmerge_export.errors import UsageError
from tsmerge_export.rewrite.insert import RewriteReport
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.calibration import WindowCalibration, calibration_windows
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.data import Table, rolling_windows


def built(tmp_path: Path, value: float) -> list[Built]:
    file = constant_forecast(tmp_path / f"{value}.onnx", value)
    return [Built(Component(), file, file, None, RewriteReport())]  # type: ignore[arg-type]


def calibration(tmp_path: Path, series: Table) -> WindowCalibration:
    return WindowCalibration(
        Standin(),
        nn.Identity(),
        built(tmp_path, 1.0),
        series,
        Checks(threads=1),  # type: ignore[arg-type]
    )


def test_effects_in_closed_form(tmp_path: Path) -> None:
    """See ``test_precision``: the deviations are 1 and 3, the losses those of errors of 1 and 3, and 5 and 11."""
    found = calibration(tmp_path, table(400))
    assert (found.columns, found.windows, found.data) == (2, 16, "t.csv, before its last fifth")
    low = built(tmp_path, 0.5)
    assert found.moved(low) == pytest.approx(np.sqrt((0.25 + 0.25 / 9) / 2), rel=1e-3)
    # Half lower everywhere: the mean absolute errors are 2.5 instead of 2, and 8.5 instead of 8.
    assert found.bound(low) == pytest.approx(np.median([25, 100 * 0.5 / 8]))
    assert found.moved(built(tmp_path, 1.0)) == found.bound(built(tmp_path, 1.0)) == 0
    assert found.moved(built(tmp_path, np.nan)) == found.bound(built(tmp_path, np.nan)) == np.inf


def test_nothing_of_the_verdict_is_seen(tmp_path: Path) -> None:
    """Whatever the last fifth is: the targets of the verdict are there, and no calibration window reaches them."""
    series = table(400)
    values = series.values.copy()
    values[320:] = 1e6
    changed = Table(series.name, series.columns, values)
    one, other = (calibration_windows(each, CONTEXT, HORIZON, None) for each in (series, changed))
    assert np.array_equal(one.context, other.context) and np.array_equal(one.target, other.target)
    assert one.target.max() <= 12 and one.target.shape[1] == 160 // HORIZON  # the last half before
    tested = rolling_windows(changed, CONTEXT, HORIZON)
    assert (tested.target == 1e6).all()


def test_a_shorter_context_where_rows_are_few_and_a_refusal(tmp_path: Path) -> None:
    # 48 rows before the last fifth, half of them to forecast: a context of 24 instead of 32.
    assert calibration_windows(table(60), CONTEXT, HORIZON, None).context.shape == (2, 6, 24)
    with pytest.raises(UsageError) as failed:
        calibration(tmp_path, table(30))
    said = str(failed.value)
    assert said.startswith(
        "t.csv: has 30 rows; calibration (--precision int8-static, --keep-precise auto) takes 5 windows of 4 steps "
        "before the last fifth, which is for the verdict: give at least "
    ) and said.endswith(" rows in --data")
    least = int(said.split("at least ")[1].split()[0])
    assert calibration(tmp_path, table(least)).windows == 5
    with pytest.raises(UsageError):
        calibration(tmp_path, table(least - 1))
