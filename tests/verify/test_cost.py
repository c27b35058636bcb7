"""Merge cost on artefacts whose forecasts are known in closed form, and timing with a clock under control."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from tests.verify.constant import CONTEXT, HORIZON, Component, Family, constant_forecast, table
from tsmerge_export.errors import UsageError
from tsmerge_export.verify import cost, speed
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.data import Table
from tsmerge_export.verify.speed import SpeedReport, interleaved


def measure(tmp_path: Path, table: Table, **options: Any) -> cost.CostReport:
    paths = [constant_forecast(tmp_path / f"{i}.onnx", value) for i, value in enumerate((1.0, 2.0))]
    return cost.measure(
        Family(), Component(), nn.Identity(), *paths, table, Checks(threads=1), runs=5, **options
    )  # type: ignore[arg-type]


def test_errors_in_closed_form(tmp_path: Path) -> None:
    report = measure(tmp_path, table(), season=2)
    a, b = report.columns
    assert (report.windows, report.context, report.horizon) == (8, CONTEXT, HORIZON)
    # Targets 2 and 4 in equal number: forecasting 1 misses by 1 and 3, forecasting 2 by 0 and 2.
    assert a.unmerged["mse"] == pytest.approx((1 + 9) / 2)
    assert a.merged["mse"] == pytest.approx((0 + 4) / 2)
    assert a.unmerged["mae"] == pytest.approx(2)
    # Too low everywhere: 2 q error, and the mean of the levels is 1/2.
    assert a.unmerged["wql"] == pytest.approx(2 / 3)
    # Column b: 6 and 12 against 1, in deviations of 3; WQL in its own unit.
    assert b.unmerged["mse"] == pytest.approx((25 + 121) / 2 / 9)
    assert b.unmerged["wql"] == pytest.approx(8 / 9)
    assert a.naive["mse"] == pytest.approx(0)
    assert report.overall("unmerged", "mse") == pytest.approx((5 + 73 / 9) / 2)
    # The columns' own changes: 5 to 2, and 73/9 to 58/9.
    assert report.change_percent("mse", "mean") == pytest.approx(100 * (2 / 5 + 58 / 73 - 2) / 2)
    assert report.change("mse").worst == 1
    # A column's deviation in the unit of its WQL: 1 of a mean of 3, and 3 of 9.
    assert a.wql_scale == pytest.approx(b.wql_scale) == pytest.approx(1 / 3)


def test_a_rival_is_asked_and_fed_by_its_own_model(tmp_path: Path) -> None:
    """The unmerged file forecasts 1, the merged one 2; what is made of it is the affair of either model."""
    fed: list[nn.Module] = []

    class Recorded(Component):
        def from_series(self, model: nn.Module, series: np.ndarray) -> dict[str, np.ndarray]:
            fed.append(model)
            return super().from_series(model, series)

    def tripled(run: Callable[..., Any], series: np.ndarray, seed: int) -> np.ndarray:
        return 3 * Family().forecast(nn.Identity(), run, series)

    model = nn.Linear(1, 1)
    rival = cost.Rival("the original", Recorded(), model, tripled)  # type: ignore[arg-type]
    report = measure(tmp_path, table(), rival=rival)
    a, _ = report.columns
    assert a.unmerged["mse"] == pytest.approx((1 + 1) / 2)  # 3 against 2 and 4
    assert a.merged["mse"] == pytest.approx((0 + 4) / 2)
    assert fed == [model]
    assert report.to_dict()["original"] == "the original"
    assert report.change_percent("mse", "mean") == pytest.approx(100 * np.mean([2 / 1 - 1, 58 / 45 - 1]))
    alone = measure(tmp_path, table()).to_dict()
    assert "original" not in alone
    assert "comparable" not in alone


def test_of_a_rival_that_is_none_no_change_is_told(tmp_path: Path) -> None:
    report = measure(tmp_path, table(), comparable=False)
    found = report.to_dict()
    assert found["comparable"] is False
    assert found["overall"]["median"]["change_percent"] == dict.fromkeys(("mse", "mae", "wql"))
    assert found["changes"]["mse"] == {
        "median_percent": None, "worst": None, "compared": 0, "left_out": ["a", "b"],
    }  # fmt: skip
    assert found["overall"]["median"]["merged"]["mse"] == pytest.approx((2 + 58 / 9) / 2)


def test_the_report_is_plain_json(tmp_path: Path) -> None:
    found = measure(tmp_path, table()).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["columns"][0]["naive"]["wql"] is None
    assert found["overall"]["median"]["change_percent"]["mse"] < 0
    assert set(found["speed"]) >= {"batch", "length", "threads", "runs", "unmerged_ms", "merged_ms", "ratio"}


def test_a_perfect_unmerged_forecast_has_no_change_in_per_cent(tmp_path: Path) -> None:
    flat = Table("t.csv", ("a",), np.ones((200, 1)))
    report = measure(tmp_path, flat)
    assert np.isnan(report.change_percent("mse"))
    content = report.to_dict()
    assert content["overall"]["mean"]["change_percent"]["mse"] is None
    assert content["changes"]["wql"] == {
        "median_percent": None,
        "worst": None,
        "compared": 0,
        "left_out": ["a"],
    }
    assert content["notes"][0] == (
        "no change in per cent of column 'a' (MAE 0 unmerged, 1 merged): the unmerged error is next to nothing"
    )


def test_columns_beside_a_perfect_one_still_compare(tmp_path: Path) -> None:
    values = np.stack([np.ones(200), table().values[:, 0], *np.ones((5, 200))], axis=1)
    report = measure(tmp_path, Table("t.csv", ("p", "a", "q", "r", "s", "t", "u"), values))
    assert report.change_percent("mse") == pytest.approx(100 * (2 / 5 - 1))
    assert "of column 'p' (MAE 0 unmerged, 1 merged), 'q' (" in report.notes[0]
    assert ", 'r' (MAE 0 unmerged, 1 merged) and 3 more: " in report.notes[0]


def test_a_shorter_table_shortens_the_context_and_says_so(tmp_path: Path) -> None:
    report = measure(tmp_path, table(20))
    assert report.context == 16
    assert "context 16 instead of 32" in report.notes[0]
    assert (
        report.notes[1] == "1 window per column: too few to tell how far the changes scatter; give more rows"
    )
    assert not any("too few" in note for note in measure(tmp_path, table()).notes)
    with pytest.raises(UsageError, match="7 rows are too few; it takes 8"):
        measure(tmp_path, table(7))
    with pytest.raises(UsageError, match="20 rows are too few; it takes 36"):
        measure(tmp_path, table(20), context=32)


def test_missing_values_in_the_targets(tmp_path: Path) -> None:
    data = table()
    data.values[-1, 0] = np.nan
    assert np.isfinite(measure(tmp_path, data).columns[0].merged["mse"])


def test_a_median_between_two_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    from tsmerge_export.verify.data import Windows

    cut = Windows(("a",), np.zeros((1, 1, 4), np.float32), np.full((1, 1, 1), 2.0), np.zeros(1), np.ones(1))
    quantiles = np.array([[[0.0], [1.0], [3.0], [9.0]]], np.float32)
    assert cost._score(quantiles, cut, 0, (0.1, 0.4, 0.6, 0.9))["mse"] == pytest.approx(0)


def test_timing_takes_turns_and_reports_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], []
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])

    def call(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            calls.append(name)
            # One call in five is slow: the median does not care.
            now[0] += seconds * (100 if len(calls) % 5 == 0 else 1)

        return run

    runs, first, second = interleaved(call("a", 0.004), call("b", 0.002), runs=10, seconds=1e9)
    assert runs == 10
    assert first == pytest.approx(4)
    assert second == pytest.approx(2)
    assert "".join(calls[4:]) == "abba" * 5


def test_timing_stops_by_the_clock_but_not_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])

    def slow() -> None:
        now[0] += 10

    assert interleaved(slow, slow, runs=100, seconds=1)[0] == 5


@pytest.mark.parametrize(
    ("merged_ms", "words"), [(20.0, "does not pay"), (9.8, "hardly pays"), (5.0, None)]
)  # fmt: skip
def test_it_says_when_merging_does_not_pay(merged_ms: float, words: str | None) -> None:
    note = SpeedReport(4, 512, 1, 20, 10.0, merged_ms).note
    assert (
        (note is None)
        if words is None
        else (note is not None and words in note and "batch 4, length 512" in note)
    )
