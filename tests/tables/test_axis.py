"""The axis of time against the standard library's clocks: order, frequency, gaps, zones, the steps that follow."""

from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from tsmerge_export.errors import UsageError
from tsmerge_export.tables import axis


def rows(*series: pd.DatetimeIndex) -> axis.Rows:
    ends = np.cumsum([len(one) for one in series])
    stamps = series[0].append(list(series[1:]))
    names = [f"s{i}" for i in range(len(series))]
    return axis.Rows(stamps, np.append(0, ends[:-1]), ends, names, np.arange(2, len(stamps) + 2), "x.csv: ")


def ahead(one: pd.DatetimeIndex, steps: int, freq: str | None = None) -> list[Any]:
    clock = axis.find_clock(rows(one), freq, "--freq")
    return list(clock.after(one[-1:], steps))


@pytest.mark.parametrize(
    "zone", ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu"]
)
@pytest.mark.parametrize("freq", [None, "h"])
def test_hours_pass_as_they_do(zone: str, freq: str | None) -> None:
    """Before, across and behind each change of clocks of a year."""
    begin = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
    hours = [begin + dt.timedelta(hours=h) for h in range(24 * 366)]
    offsets = [hour.astimezone(ZoneInfo(zone)).utcoffset() for hour in hours]
    changes = [hours[i] for i in range(1, len(hours)) if offsets[i] != offsets[i - 1]]
    assert len(changes) == (0 if zone == "Asia/Kathmandu" else 2)
    for start in (
        change - dt.timedelta(hours=h) for change in changes or [begin] for h in (90, 60, 51, 50, 30, 1)
    ):
        past = pd.DatetimeIndex([start + dt.timedelta(hours=h) for h in range(50)]).tz_convert(zone)
        want = [(start + dt.timedelta(hours=50 + h)).astimezone(ZoneInfo(zone)) for h in range(24)]
        got = ahead(past, 24, freq)
        assert [stamp.isoformat() for stamp in got] == [stamp.isoformat() for stamp in want]


@pytest.mark.parametrize("freq", [None, "D"])
@pytest.mark.parametrize("first", ["2024-03-05", "2024-10-28"])  # both before and after a change
def test_days_are_those_of_the_zone(freq: str | None, first: str) -> None:
    past = pd.date_range(first, periods=10, freq="D", tz="America/New_York")
    day = dt.date.fromisoformat(first)
    want = [
        dt.datetime.combine(day + dt.timedelta(days=10 + i), dt.time(), ZoneInfo("America/New_York"))
        for i in range(5)
    ]
    assert [stamp.isoformat() for stamp in ahead(past, 5, freq)] == [stamp.isoformat() for stamp in want]


def test_days_of_24_hours_in_a_zone() -> None:
    past = pd.date_range("2024-03-05", periods=10, freq="D", tz="UTC").tz_convert("America/New_York")
    want = pd.date_range("2024-03-15", periods=4, freq="D", tz="UTC")
    assert ahead(past, 4) == list(want) == ahead(past, 4, "D")


def test_half_days_by_the_zones_clock() -> None:
    face = pd.date_range("2024-03-08", periods=8, freq="12h")
    past = face.tz_localize("America/New_York")
    want = pd.date_range(face[-1] + pd.Timedelta(hours=12), periods=3, freq="12h").tz_localize(
        "America/New_York"
    )
    assert ahead(past, 3) == list(want) == ahead(past, 3, "12h")


def test_an_hour_that_is_skipped_or_doubled() -> None:
    skipped = pd.date_range("2024-03-05 02:30", periods=4, freq="D", tz="America/New_York")
    assert [stamp.isoformat() for stamp in ahead(skipped, 3)] == [
        "2024-03-09T02:30:00-05:00", "2024-03-10T03:00:00-04:00", "2024-03-11T02:30:00-04:00"
    ]  # fmt: skip
    doubled = pd.date_range("2024-10-30 01:30", periods=4, freq="D", tz="America/New_York")
    assert ahead(doubled, 1)[0].isoformat() == "2024-11-03T01:30:00-04:00"


#: As the installed pandas calls them: M, A-DEC and 15T below 2.2.
MONTH_END, YEAR_END = pd.offsets.MonthEnd().freqstr, pd.offsets.YearEnd().freqstr
QUARTER = pd.offsets.Minute(15).freqstr


@pytest.mark.parametrize(
    "freq", ["h", "15min", "D", "W-MON", MONTH_END, "MS", "QS-OCT", "B", "2h", "7D", YEAR_END]
)
def test_frequencies_are_found_and_gaps_have_places(freq: str) -> None:
    whole = pd.date_range("2024-01-31 00:00", periods=40, freq=freq)
    assert ahead(whole[:30], 10) == list(whole[30:])
    keep = np.delete(np.arange(40), [3, 4, 11, 38])
    part = rows(whole[keep], whole[5:])
    clock = axis.find_clock(part, freq, "--freq")
    places = axis.slots(part, clock, "--freq")
    np.testing.assert_array_equal(places[0], keep)
    np.testing.assert_array_equal(places[1], np.arange(35))


def test_rows_are_sorted_and_two_at_one_time_refused() -> None:
    codes = np.array([0, 1, 0, 1])
    stamps = pd.Series(
        pd.to_datetime(["2024-01-02", "2024-01-03", "2024-01-01", "2024-01-01"]), index=[2, 3, 4, 5]
    )
    np.testing.assert_array_equal(axis.in_order(codes, stamps, ["a", "b"], ""), [2, 0, 3, 1])
    twice = stamps.copy()
    twice.iloc[3] = twice.iloc[1]
    with pytest.raises(
        UsageError, match=r"x: series 'b' has two rows at 2024-01-03 00:00:00 \(rows 3 and 5\); keep one"
    ):
        axis.in_order(codes, twice, ["a", "b"], "x: ")
    # The hour that comes twice is two hours.
    hours = pd.Series(pd.date_range("2024-11-03", periods=4, freq="h", tz="America/New_York"))
    np.testing.assert_array_equal(axis.in_order(np.zeros(4, int), hours[::-1], ["a"], ""), [3, 2, 1, 0])


def days(*numbers: int) -> pd.DatetimeIndex:
    return pd.DatetimeIndex([pd.Timestamp("2024-01-01") + pd.Timedelta(days=n) for n in numbers])


@pytest.mark.parametrize(
    ("series", "freq", "match"),
    [
        ([days(0, 1, 2, 4, 5)], None, r"series 's0': its timestamps are not regular: row 5 \(2024-01-05 00:00:00\) "
         "comes 2 days after the row before it, most come 1 day.* after; mend it, or give --freq D, which leaves gaps"),
        ([pd.date_range("2024", periods=9, freq="15min").delete(4)], None, f"mend it, or give --freq {QUARTER}, which"),
        ([pd.date_range("2024", periods=9, freq="MS").delete(4)], None, "mend it, or give --freq, which"),
        ([days(0, 2, 4), days(0, 1, 2)], None, "series 's0' has frequency 2D, 's1' D; forecast them apart"),
        ([days(0, 1)], None, "no series has three rows to find the frequency from; give --freq"),
        ([days(0, 1, 2)], "MS", r"row 3 \(2024-01-02 00:00:00\) is not on the grid of --freq MS"),
        ([days(0, 1, 3)], "2D", r"row 3 .* is not on the grid of --freq 2D, which begins at row 2"),
        ([days(14, 45)], "MS", r"row 2 \(2024-01-15 00:00:00\) is not on the grid"),
        ([days(0, 3650)], "s", "--freq s makes far more steps than it has rows"),
        ([days(0, 1)], "often", "freq 'often' is not a frequency"),
        ([days(0, 1)], "-1D", "freq '-1D' is not a frequency"),
        ([days(0, 1)], "0D", "freq '0D' is not a frequency"),
    ],
)  # fmt: skip
def test_refused(series: list[pd.DatetimeIndex], freq: str | None, match: str) -> None:
    part = rows(*series)
    with pytest.raises(UsageError, match=match) as caught:
        axis.slots(part, axis.find_clock(part, freq, "--freq"), "--freq")
    assert "\n" not in str(caught.value)


def test_the_end_of_time() -> None:
    far = axis.Clock(axis.to_offset("200000000D"), "200000000D", None, True)
    with pytest.raises(UsageError, match="2 steps of 200000000D go beyond the last date"):
        far.after(pd.DatetimeIndex(["2024-01-01"]), 2)
