"""Files as they come: separators, headers, ids, order, gaps; long and wide, side by side and as rows."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsmerge_export.console.notes import Note
from tsmerge_export.errors import UsageError
from tsmerge_export.forecast import frame
from tsmerge_export.tables import read, source
from tsmerge_export.tables.options import TableOptions
from tsmerge_export.tables.read import Long, read_long, read_table
from tsmerge_export.tables.table import Table

DAYS = [f"2024-01-{day:02d}" for day in range(1, 31)]


def as_long(text: str, **options: Any) -> Long:
    return read_long(source.Source("x.csv", "", text.encode()), TableOptions(**options))


def side_by_side(text: str, columns: list[str] | None = None, **options: Any) -> Table:
    found = source.Source("x.csv", "--data ", text.encode())
    return read_table(found, columns, options=TableOptions(**options))


def rows(found: Long) -> list[list[Any]]:
    names = [found.id, *([] if found.time is None else [found.time]), found.target]
    return [
        [str(v) if isinstance(v, pd.Timestamp) else v for v in row]
        for row in found.frame[names].to_numpy().tolist()
    ]


LONG = "item_id,timestamp,target\n007,2024-01-02,2\n007,2024-01-01,1\nNA,2024-01-01,3\nNA,2024-01-02,\n"


def test_long_files() -> None:
    """Ids are text, also those that look like numbers or like missing values."""
    found = as_long(LONG)
    assert not found.wide and (found.id, found.time, found.target) == ("item_id", "timestamp", "target")
    assert rows(found)[:3] == [
        ["007", "2024-01-02 00:00:00", 2],
        ["007", "2024-01-01 00:00:00", 1],
        ["NA", "2024-01-01 00:00:00", 3],
    ]
    assert list(found.frame.index) == [2, 3, 4, 5]
    table = side_by_side(LONG)
    assert table.columns == ("007", "NA")
    np.testing.assert_array_equal(table.values, [[1, 3], [2, np.nan]])
    assert side_by_side(LONG, ["NA"]).values[0, 0] == 3


@pytest.mark.parametrize(
    ("header", "options"),
    [
        ("Item_ID, Timestamp ,Target", {}),
        ("UNIQUE ID,DateTime,Y", {}),
        ("id,Date,sales", {}),
        ("shop,when,sales", {"id_column": "Shop", "timestamp_column": "when", "target": " SALES"}),
    ],
)
def test_names_without_case_and_space(header: str, options: dict[str, str]) -> None:
    text = LONG.replace("item_id,timestamp,target", header)
    found = as_long(text, **options)
    assert [found.id, found.time, found.target] == [name.strip() for name in header.split(",")]
    np.testing.assert_array_equal(side_by_side(text, **options).values, [[1, 3], [2, np.nan]])


def test_wide_files() -> None:
    text = "Date,a,b,note\n2024-01-02,3,4,x\n2024-01-01,1,,y\n"  # newest first
    with pytest.warns(Note, match="column 'note' is not numeric: left out"):
        found = as_long(text)
    assert found.wide and rows(found)[0] == ["a", "2024-01-02 00:00:00", 3] and len(found.frame) == 4
    with pytest.raises(UsageError, match=r"--data x.csv: column 'note' is not numeric \('x' in row 2\)"):
        side_by_side(text)
    np.testing.assert_array_equal(side_by_side(text, ["b", "a"]).values, [[np.nan, 1], [4, 3]])
    only = as_long(text, target="b")
    assert not only.wide and rows(only)[0] == ["b", "2024-01-02 00:00:00", 4]


def test_a_usual_target_is_forecast_alone_and_read_with_the_others() -> None:
    text = "timestamp,target,heat\n2024-01-01,1,5\n2024-01-02,2,6\n"
    found = as_long(text)
    assert not found.wide and found.target == "target" and "heat" in found.frame
    assert side_by_side(text).columns == ("target", "heat")


def test_rows_without_times() -> None:
    assert rows(as_long("id,y\na,1\na,2\nb,3\n")) == [["a", 1], ["a", 2], ["b", 3]]
    with pytest.warns(Note, match="series have 1 to 2 rows and no times; they are taken to end together"):
        table = side_by_side("id,y\na,1\na,2\nb,3\n")
    np.testing.assert_array_equal(table.values, [[1, np.nan], [2, 3]])


@pytest.mark.parametrize(
    ("text", "columns", "first"),
    [
        ("5\n6\n7\n", ("column 1",), [5]),
        ("2024-01-01,1,2\n2024-01-02,3,4\n2024-01-03,5,6\n", ("column 2", "column 3"), [1, 2]),
        ("date,2019,2020\n2024-01-01,1,2\n2024-01-02,3,4\n", ("2019", "2020"), [1, 2]),
        (",0,1\n0,7,8\n1,9,8\n", ("0", "1"), [7, 8]),  # as pandas writes a frame without names
        ("NA,1\n5,2\n6,3\n", ("column 1", "column 2"), [np.nan, 1]),
        ("a;b;\n1;2;\n3;4;\n", ("a", "b"), [1, 2]),
        ("\n\na,b\n\n1,2\n3,4\n", ("a", "b"), [1, 2]),
        ("a,a\n1,2\n3,4\n", ("a", "a.1"), [1, 2]),
    ],
)
def test_headers(text: str, columns: tuple[str, ...], first: list[float]) -> None:
    table = side_by_side(text)
    assert table.columns == columns
    np.testing.assert_array_equal(table.values[0], first)


def test_a_long_file_without_a_header_keeps_its_first_row() -> None:
    text = "a,2024-01-01,5\na,2024-01-02,6\nb,2024-01-01,7\n"
    names = {"id_column": "column 1", "timestamp_column": "column 2"}
    assert rows(as_long(text, **names))[0] == ["a", "2024-01-01 00:00:00", 5]
    for reader in (as_long, side_by_side):
        with pytest.raises(
            UsageError, match="column 'column 2' holds dates that are not used; give --timestamp-column"
        ):
            reader(text)
    assert rows(as_long("a,5\na,6\n", id_column="column 1")) == [["a", 5], ["a", 6]]
    with pytest.raises(
        UsageError, match="'oops' in row 1"
    ):  # above numbers, but the word beside it comes again
        as_long("a,oops\na,5\na,6\n", id_column="column 1")


def forecast_of(text: str) -> None:
    """What ``tsmerge forecast`` reads, to the series."""
    found = as_long(text)
    frame.read(found.frame, frame.Columns(found.id, found.time, found.target), 1, "D", True)


@pytest.mark.parametrize("reader", [forecast_of, side_by_side])
@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("item_id,when,target\na,2024-01-01,1\na,2024-01-02,2\n",
         "column 'when' holds dates that are not used; give --timestamp-column 'when'"),
        ("timestamp,target,due\n2024-01-01,1,2024-05-01\n2024-01-02,2,2024-05-01\n",
         "columns 'timestamp' and 'due' hold dates; say which"),
        ("id,y\n1,5\n2,6\n", "column 'id' is different in every row"),
        ("timestamp,v\n2024-01-01,1\n\n2024-01-01,2\n", r"two rows at 2024-01-01 00:00:00 \(rows 2 and 4\)"),
        ("id,timestamp,v\na,2024-01-01,1\na,2024-01-01,2\n", r"series 'a' has two rows at .* \(rows 2 and 3\)"),
        ("timestamp,v\n01/02/2024,1\n02/01/2024,2\n",
         "can be read as more than one date; give --dayfirst or --no-dayfirst"),
        ("timestamp,v\n2024-01-01,1\nsoon,2\n", "column 'timestamp' does not hold timestamps: 'soon' in row 3"),
        ("time,v\n1,1\n2,2\n",
         "column 'time' does not hold timestamps: '1' in row 2 is no date that is known; .* give --date-format"),
        ("id,timestamp,v\n,2024-01-01,1\na,2024-01-02,1\na,2024-01-03,1\n",
         r"column 'id' has rows without an id \(row 2\)"),
        ("a,b\n1,2\n3,4,5\n", "row 3 has 3 cells, the first row 2; mend it, or give --sep"),
        ("a,b\n1,2\n3,-\n5,6\n", r"column 'b' is not numeric \('-' in row 3\)"),
        ("id,a,b\nx,1,2\nx,3,4\n", "which column shall be forecast. Give --target, one of: a, b"),
        ("x;y,z;w\np;q,r;s\n", "separated by ',' or ';'; say which with --sep"),
        ("a;b\n1,234;5\n5,678;6\n", "may be a decimal comma or stand between thousands; give --decimal ,"),
    ],
)  # fmt: skip
def test_refused_by_both(reader: Any, text: str, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        reader(text)
    assert "\n" not in str(caught.value)


def test_what_may_be_ids_is_not_dropped() -> None:
    for text, why in (
        ("shop,y\na,1\na,2\nb,3\n", "has no times"),
        ("timestamp,shop,y\n2024-01-01,a,1\n2024-01-01,b,2\n", "has several rows at 2024-01-01"),
    ):
        with pytest.raises(
            UsageError, match=rf"x.csv: {why}.*, and column 'shop' holds words .*--id-column 'shop'"
        ):
            as_long(text)


def test_gaps() -> None:
    text = "timestamp,v\n2024-01-01,1\n2024-01-02,2\n2024-01-04,4\n2024-01-05,5\n"
    with pytest.warns(
        Note, match=r"not regular: row 4 .* comes 2 days .*; as it is, rows count as even steps"
    ):
        assert side_by_side(text).values[:, 0].tolist() == [1, 2, 4, 5]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(side_by_side(text, freq="D").values[:, 0], [1, 2, np.nan, 4, 5])
    long = "id,timestamp,y\n" + "".join(
        f"{k},{DAYS[i]},{i}\n" for k, at in (("a", (0, 1, 3)), ("b", (1, 3, 5))) for i in at
    )
    table = side_by_side(long, freq="D")
    np.testing.assert_array_equal(table.values[:, 0], [0, 1, np.nan, 3, np.nan, np.nan])
    np.testing.assert_array_equal(table.values[:, 1], [np.nan, 1, np.nan, 3, np.nan, 5])


def test_told_how() -> None:
    assert side_by_side("a;b\n1,234;5\n5,678;6\n", decimal=",").values[0, 0] == 1.234
    assert side_by_side("x;y,z;w\n1;2,5;3\n4;5,5;6\n", sep=";").columns == ("x", "y,z", "w")
    text = "date,v\n01/02/2024,1\n02/01/2024,2\n"
    assert side_by_side(text, dayfirst=True).values[:, 0].tolist() == [2, 1]
    assert side_by_side(text, dayfirst=False).values[:, 0].tolist() == [1, 2]
    assert side_by_side("date,v\n2021,1\n2020,2\n", date_format="%Y").values[:, 0].tolist() == [2, 1]
    assert side_by_side("a b\n1  2\n", sep=" ").columns == ("a", "b")


@pytest.mark.parametrize(
    "kind", ["csv", "tsv", "txt.gz", "parquet", "dated index", "utf-16", "stdin", "stdin gz", "stdin parquet"]
)
def test_kinds_of_files(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame(
        {"date": pd.date_range("2024", periods=4), "a": [1.5, 2, np.nan, 4], "b": [1, 2, 3, 4]}
    )
    path = tmp_path / f"x.{kind}"
    if kind.endswith(("parquet", "index")):
        path = tmp_path / "x.parquet"
        (frame.set_index("date") if kind == "dated index" else frame).to_parquet(path)
    else:
        text = frame.to_csv(index=False, sep="\t" if kind == "tsv" else ",")
        raw = text.encode("utf-16" if kind == "utf-16" else "utf-8")
        path = tmp_path / "x.csv" if "." not in kind and kind not in ("csv", "tsv") else path
        path.write_bytes(gzip.compress(raw) if "gz" in kind else raw)
    given: Any = path
    if kind.startswith("stdin"):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(path.read_bytes())))
        given = "-"
    table = read_table(given)
    assert table.columns == ("a", "b")
    np.testing.assert_array_equal(table.values, frame[["a", "b"]].to_numpy())


def test_ids_and_types_of_parquet(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": [7, 7, 8], "ts": pd.date_range("2024", periods=3), "y": [1, 2, 3]})
    frame.to_parquet(tmp_path / "x.parquet")
    found = read_long(source.open_source(tmp_path / "x.parquet"), TableOptions(timestamp_column="ts"))
    assert found.frame["id"].tolist() == [7, 7, 8]
    frame.assign(y=[True, False, True]).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(UsageError, match="column 'y' is not numeric \\(it holds bool\\)"):
        read_long(source.open_source(tmp_path / "x.parquet"), TableOptions(timestamp_column="ts", target="y"))


def test_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a\n" + "1\n" * 500)
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"a\n" + b"1\n" * 500))
    monkeypatch.setattr(source, "_MAX_BYTES", 900)
    for name in ("x.csv", "x.csv.gz"):
        with pytest.raises(UsageError, match="larger than 1 GiB"):
            read_table(tmp_path / name)
    monkeypatch.setattr(read, "_MAX_VALUES", 5)
    with pytest.raises(UsageError, match="2 series at 3 times are more than 5 values"):
        side_by_side("id,t,y\na,2024-01-01,1\na,2024-01-02,1\nb,2024-01-03,1\n", timestamp_column="t")


def attempt(what: Callable[[], Table]) -> tuple[Table | None, str]:
    try:
        return what(), ""
    except UsageError as error:
        return None, str(error)


VALUES = st.floats(-1e6, 1e6, allow_nan=False).map(lambda v: round(v, 3)) | st.none()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(VALUES, VALUES), min_size=3, max_size=12).filter(
        lambda v: all(any(x is not None for x in column) for column in zip(*v, strict=True))
    ),
    st.sampled_from([(",", "."), (";", ","), (";", "."), ("\t", ","), ("|", ".")]),
    st.sampled_from(["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d %b %Y", "%Y/%m/%d"]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_what_was_written_is_read_or_refused(
    values: list[tuple[float | None, float | None]],
    signs: tuple[str, str],
    form: str,
    long: bool,
    random: Any,
) -> None:
    """Any dialect, rows in any order, long or wide: the same series, or a question; never other numbers."""
    sep, decimal = signs
    days = [dt.date(2024, 1, 5) + dt.timedelta(days=i) for i in range(len(values))]

    def spell(value: float | None) -> str:
        return "" if value is None else repr(value).replace(".", decimal)

    if long:
        lines = [
            [k, day.strftime(form), spell(v)]
            for day, pair in zip(days, values, strict=True)
            for k, v in zip("xy", pair, strict=True)
        ]
    else:
        lines = [[day.strftime(form), *map(spell, pair)] for day, pair in zip(days, values, strict=True)]
    random.shuffle(lines)
    text = io.StringIO()
    csv.writer(text, delimiter=sep).writerows([["id", "date", "y"] if long else ["date", "x", "y"], *lines])
    table, error = attempt(lambda: side_by_side(text.getvalue(), ["x", "y"]))
    if table is None:
        assert "thousands" in error or "more than one date" in error
        return
    want = np.array([[np.nan if v is None else v for v in pair] for pair in values])
    np.testing.assert_array_equal(table.values, want)
