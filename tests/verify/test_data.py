"""Series files: what is read, what is refused in one line, and which windows are cut."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from tsmerge_export.demo import series
from tsmerge_export.errors import UsageError
from tsmerge_export.verify.data import Table, read_table, rolling_windows, usable_columns

REPO = Path(__file__).parents[2]
SAMPLE = REPO / "tsmerge_export" / "demo" / "sample.csv"


def write(folder: Path, text: str | bytes, name: str = "x.csv") -> Path:
    path = folder / name
    raw = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return path


@pytest.mark.parametrize(
    ("text", "columns", "values"),
    [
        ("date,a,b\n2020-01-01,1,2\n2020-01-02,3,4\n", ("a", "b"), [[1, 2], [3, 4]]),
        ("a,b\n1,2\n3,4", ("a", "b"), [[1, 2], [3, 4]]),
        ("1,2\n3,4\n", ("column 1", "column 2"), [[1, 2], [3, 4]]),
        ("5\n6\n", ("column 1",), [[5], [6]]),
        ("value\n5\n6\n", ("value",), [[5], [6]]),
        ("2020-01-01 01:00,1\n2020-01-01 02:00,2\n", ("column 2",), [[1], [2]]),
        ("01/02/2020;1;2\n02/02/2020;3;4\n", ("column 2", "column 3"), [[1, 2], [3, 4]]),
        (",a\n0,7\n1,8\n", ("a",), [[7], [8]]),  # the index that pandas writes
        ("a\tb\r\n1\t2\r\n\r\n3\t4\r\n", ("a", "b"), [[1, 2], [3, 4]]),
        ("\ufeffa,b\n1e3, -2.5\n", ("a", "b"), [[1000, -2.5]]),
        ('date,"a, b"\n2020-01-01,1\n', ("a, b",), [[1]]),
    ],
)
def test_forms_that_are_read(
    tmp_path: Path, text: str, columns: tuple[str, ...], values: list[list[float]]
) -> None:
    table = read_table(write(tmp_path, text))
    assert table.columns == columns
    assert table.values.tolist() == values


def test_missing_values_and_compressed_files(tmp_path: Path) -> None:
    text = "t,a,b\n2020-01-01,1,\n2020-01-02,nan,3\n"
    for name in ("x.csv.gz", "x.txt", "x.txt.gz", "X.CSV"):
        table = read_table(write(tmp_path, text, name))
        np.testing.assert_array_equal(table.values, [[1, np.nan], [np.nan, 3]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("date,a,b\n2020-01-01,1,x\n", r"column 'b' is not numeric \('x' in row 2\)"),
        ("a,b\n1,2\n3,four\n", r"column 'b' is not numeric \('four' in row 3\)"),
        ("date,a\nsoon,1\nlater,2\n", "column 'date' does not hold timestamps: 'soon' in row 2"),
        ("a,b\n1,1_000\n", "column 'b' is not numeric"),
        ("a,b\n1,inf\n", "column 'b' holds infinite values"),
        ("a,b\n1,\n2,\n", "column 'b' holds no values"),
        ("a,b\n1,2\n3,4,5\n", "not a table"),
        ("date\n2020-01-01\n", "no numeric column"),
        ("a,b\n", "no rows below the header"),
        ("", "empty"),
        ("  \n\n", "empty"),
        (b"\xff\xfe\x00", "not a UTF-8 text file"),
        ("date,a\n2020-01-01,\xfc\n".encode("latin-1"), "not a UTF-8 text file"),
        (b"PK\x03\x04\x00\x00", "not a text file"),
    ],
)
def test_forms_that_are_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError, match=message) as caught:
        read_table(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    write(tmp_path, b"no gzip").rename(tmp_path / "bad.csv.gz")
    whole = gzip.compress(b"a\n" + b"1\n" * 5000)
    (tmp_path / "short.csv.gz").write_bytes(whole[: len(whole) // 2])
    broken = bytearray(whole)
    broken[12:20] = b"\xff" * 8
    (tmp_path / "broken.csv.gz").write_bytes(bytes(broken))
    write(tmp_path, "a\n1\n", "x.parquet")
    write(tmp_path, "a\n1\n", "x.xlsx")
    for name, message in (
        ("none.csv", "no such file"),
        ("folder.csv", "cannot be read"),
        ("bad.csv.gz", "cannot be read"),
        ("short.csv.gz", "truncated"),
        ("broken.csv.gz", "cannot be"),
        ("x.parquet", "cannot be read"),
        ("x.xlsx", "unknown kind of file; give a .csv, .tsv"),
    ):
        with pytest.raises(UsageError, match=message):
            read_table(tmp_path / name)


def table(rows: int, columns: int = 2) -> Table:
    return Table(
        "t.csv",
        tuple(f"c{i}" for i in range(columns)),
        np.arange(rows * columns, dtype=float).reshape(rows, -1),
    )


def test_windows_fill_the_last_fifth_without_overlap() -> None:
    data = table(1000)
    cut = rolling_windows(data, context=100, horizon=50)
    assert cut.context.shape == (2, 4, 100)
    assert cut.target.shape == (2, 4, 50)
    for w in range(4):
        start = 800 + 50 * w
        np.testing.assert_array_equal(cut.target[1, w], data.values[start : start + 50, 1])
        np.testing.assert_array_equal(
            cut.context[1, w], data.values[start - 100 : start, 1].astype(np.float32)
        )
    before = data.values[:800, 0]
    assert cut.mean[0] == pytest.approx(before.mean())
    assert cut.deviation[0] == pytest.approx(before.std())


def test_windows_of_a_short_table() -> None:
    cut = rolling_windows(table(150), context=100, horizon=50)
    assert cut.context.shape == (2, 1, 100)
    assert cut.target[0, 0, -1] == 298  # the last row
    with pytest.raises(UsageError, match=r"149 rows are too few; it takes 150 \(context 100 \+ horizon 50\)"):
        rolling_windows(table(149), context=100, horizon=50)


def test_limited_windows_keep_the_first_and_the_last() -> None:
    every, some = rolling_windows(table(2000), 100, 20), rolling_windows(table(2000), 100, 20, limit=3)
    assert some.target.shape[1] == 3
    np.testing.assert_array_equal(some.target[:, [0, -1]], every.target[:, [0, -1]])


def test_missing_values_and_constants_in_the_standardisation() -> None:
    data = table(1000)
    data.values[5, 0] = np.nan
    data.values[:, 1] = 7.0
    cut = rolling_windows(data, 100, 50)
    assert cut.mean[0] == pytest.approx(np.nanmean(data.values[:800, 0]))
    assert cut.deviation.tolist() == [pytest.approx(np.nanstd(data.values[:800, 0])), 1.0]


def test_the_sample_is_what_its_script_makes() -> None:
    sample = read_table(SAMPLE)
    assert sample.columns == series.COLUMNS
    # Not bit for bit: sines may differ in the last digit between machines.
    np.testing.assert_allclose(sample.values, series.make(), atol=2e-3)


def test_columns_are_chosen_by_name(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("date,a,words,b\n2024-01-01,1,x,4\n2024-01-02,2,y,5\n")
    table = read_table(file, ["b", "a"])  # the column of words is not looked at
    assert table.columns == ("b", "a")
    assert table.values.tolist() == [[4, 1], [5, 2]]
    with pytest.raises(UsageError, match=r"--column z: not in .*t.csv; choose from a, words, b"):
        read_table(file, ["z"])
    with pytest.raises(UsageError, match="choose from a, words, b"):
        read_table(file, ["date"])


def test_columns_that_say_nothing_are_left_out_by_name(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("a,flat,none\n1,7,\n,7,nan\n2,,\n")
    with pytest.raises(UsageError, match="column 'none' holds no values"):
        read_table(file)
    table, notes = usable_columns(read_table(file, empty_allowed=True))
    assert table.columns == ("a",)
    np.testing.assert_array_equal(table.values, [[1], [np.nan], [2]])
    assert notes == ["column 'flat' is constant: left out", "column 'none' holds no values: left out"]
    with pytest.raises(UsageError, match="no column to work with: column 'flat' is constant; give series"):
        usable_columns(read_table(file, ["flat"]))
