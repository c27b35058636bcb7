"""Cells as timestamps: what is a date, which day it is, zones, and what is refused."""

from __future__ import annotations

import datetime as dt
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsmerge_export.console.notes import Note
from tsmerge_export.errors import UsageError
from tsmerge_export.tables import times
from tsmerge_export.tables.times import How, timestamps


def read(*cells: object, **how: object) -> pd.Series:
    return timestamps(pd.Series(cells, index=range(2, len(cells) + 2)), "column 't'", How(**how))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cells", "want"),
    [
        (["2024-01-05", "2024-1-6 05:00", "2024-01-06T05:00:30.5"],
         ["2024-01-05", "2024-01-06 05:00", "2024-01-06 05:00:30.5"]),
        (["2024/01/05", "2024.01.06"], ["2024-01-05", "2024-01-06"]),
        (["01/02/2024", "13/02/2024"], ["2024-02-01", "2024-02-13"]),  # a day above 12 proves it
        (["01.02.2024 10:00", "31.12.2024 9:05:01"], ["2024-02-01 10:00", "2024-12-31 09:05:01"]),
        (["01/02/2024 12:30 AM", "02/13/2024 12:30 pm"], ["2024-01-02 00:30", "2024-02-13 12:30"]),
        (["20240105", "20240106T0730"], ["2024-01-05", "2024-01-06 07:30"]),
        (["5 Jan 2024", "Jan 6, 2024 2:00 PM", "7-february-2024"], ["2024-01-05", "2024-01-06 14:00", "2024-02-07"]),
        (["2024-01", "2024-02"], ["2024-01-01", "2024-02-01"]),
        (["Jan 2024"], ["2024-01-01"]),
        ([dt.date(2024, 1, 5), dt.datetime(2024, 1, 6, 7)], ["2024-01-05", "2024-01-06 07:00"]),
    ],
)  # fmt: skip
def test_dates(cells: list[object], want: list[str]) -> None:
    got = read(*cells)
    assert list(got) == [pd.Timestamp(text) for text in want]
    assert list(got.index) == list(range(2, len(cells) + 2))


@pytest.mark.parametrize(
    ("how", "want"),
    [
        ({"dayfirst": True}, "2024-02-01"),
        ({"dayfirst": False}, "2024-01-02"),
        ({"date_format": "%d/%m/%Y"}, "2024-02-01"),
        ({"date_format": "%m/%d/%Y"}, "2024-01-02"),
    ],
)
def test_told(how: dict[str, object], want: str) -> None:
    assert read("01/02/2024", **how)[2] == pd.Timestamp(want)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.dates(dt.date(1900, 1, 1), dt.date(2199, 12, 31)), min_size=1, max_size=8, unique=True),
    st.sampled_from("/-."),
    st.booleans(),
)
def test_a_date_is_right_or_refused(days: list[dt.date], sep: str, dayfirst: bool) -> None:
    """However dates are written, none becomes another one."""
    order = ("%d", "%m") if dayfirst else ("%m", "%d")
    cells = [day.strftime(sep.join((*order, "%Y"))) for day in days]
    if all(day.day <= 12 for day in days) and any(day.day != day.month for day in days):
        with pytest.raises(times.AmbiguousDateError):
            read(*cells)
    else:
        assert list(read(*cells)) == [pd.Timestamp(day) for day in days]
    assert list(read(*cells, dayfirst=dayfirst)) == [pd.Timestamp(day) for day in days]


@pytest.mark.parametrize(
    ("cells", "how", "match"),
    [
        (["01/02/2024", "02/02/2024"], {}, r"column 't': '01/02/2024' in row 2 can be read as more than one date"),
        (["13/02/2024", "02/13/2024"], {},
         r"day first \('13/02/2024' in row 2\) and the month first \('02/13/2024' in row 3\)"),
        (["13/01/24"], {}, "more than one date"),  # 2013?
        (["01/13/2024"], {"dayfirst": True}, "'01/13/2024' in row 2 does not have the day first"),
        (["13/01/2024"], {"dayfirst": False}, "does not have the month first"),
        (["2024-01-01", "-"], {}, "'-' in row 3 is no date"),
        (["2024-01-01", "2024-02-30"], {}, "'2024-02-30' in row 3 is no date"),
        (["2024-13-01"], {}, "'2024-13-01' in row 2 is no date"),
        (["2024-01-01 13:00 PM", "01/02/2024"], {"dayfirst": True}, "'2024-01-01 13:00 PM' in row 2 is no date"),
        (["2024-01-01 00:00 CET"], {}, "no date"),  # a zone that is not read is not dropped
        (["05:00", "06:00"], {}, "'05:00' in row 2 is no date"),
        (["2024-01-01", ""], {}, r"rows without a timestamp \(row 3\)"),
        (["2024-01-01T00:00Z", "2024-01-01T01:00"], {},
         r"time zone and others without \('2024-01-01T01:00' in row 3\)"),
        (["x"], {"date_format": "%Y"}, "'x' in row 2 does not have the format %Y"),
        (["x"], {"date_format": "%Q"}, "--date-format %Q: 'Q' is a bad directive"),
        ([3], {}, "holds numbers, not timestamps"),
        ([pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-01", tz="UTC")], {}, "time zone and others without"),
        ([(1, 2)], {}, "does not hold timestamps"),
    ],
)  # fmt: skip
def test_refused(cells: list[object], how: dict[str, object], match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        read(*cells, **how)
    assert "\n" not in str(caught.value)


def test_zones_are_kept() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert str(read("2024-01-01T00:00+01:00", "2024-01-01 05:00+01").dt.tz) == "UTC+01:00"
        assert str(read("2024-01-01T00:00Z", "2024-01-01 05:00 UTC").dt.tz) == "UTC"
        assert str(read(*pd.date_range("2024", periods=2, tz="Asia/Tokyo")).dt.tz) == "Asia/Tokyo"
    for cells in (
        ["2024-11-03T01:00-04:00", "2024-11-03 01:00 -0500"],
        [pd.Timestamp("2024-11-03T01:00-04:00"), pd.Timestamp("2024-11-03T01:00-05:00")],
    ):
        with pytest.warns(Note, match="column 't' has several offsets from UTC"):
            got = read(*cells)
        assert list(got) == [pd.Timestamp("2024-11-03T05:00Z"), pd.Timestamp("2024-11-03T06:00Z")]
    with pytest.warns(Note, match="several offsets"):
        got = read("03.11.2024 +0100", "03.11.2024 +0200", date_format="%d.%m.%Y %z")
    assert list(got) == [pd.Timestamp("2024-11-02T23:00Z"), pd.Timestamp("2024-11-02T22:00Z")]


def test_the_order_alone() -> None:
    """Two readings are as good as one where both say the same."""
    same = read("01/02/2020", "02/02/2020", "03/02/2020", order_only=True)
    assert same.is_monotonic_increasing
    with pytest.raises(times.AmbiguousDateError):
        read("01/02/2020", "02/01/2020", order_only=True)


def test_date_like() -> None:
    def like(*cells: str) -> bool:
        return times.is_date_like(pd.Series(cells))

    assert (
        like("2024-01-01", "")
        and like("2024-01-01", "2024-01-02", "-")
        and like("1.2.2024")
        and like("Jan 2024")
    )
    assert (
        not like("5", "6")
        and not like("20240101")
        and not like("05:00")
        and not like("May")
        and not like("1.5")
    )
    assert times.is_date_like(pd.Series(pd.date_range("2024", periods=2)))
    assert not times.is_date_like(pd.Series([1, 2]))
    assert not times.is_date_like(pd.Series([np.nan, np.nan]))
