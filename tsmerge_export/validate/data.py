"""Reading a user's series (``--data``), and cutting it into rolling windows for the merge cost."""

from __future__ import annotations

import csv
import gzip
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from tsmerge_export.errors import UsageError

_SUFFIXES = (".csv", ".txt", ".csv.gz", ".txt.gz")
_SEPARATORS = ",;\t"
_MAX_BYTES = 1 << 30
_SHARE_TESTED = 0.2


@dataclass(frozen=True)
class Table:
    """Series of one file.

    Attributes:
        name: of the file. columns: C names. values: ``[T, C]`` float64, NaN is missing.
    """

    name: str
    columns: tuple[str, ...]
    values: npt.NDArray[np.float64]


def read_table(
    path: str | Path, columns: Sequence[str] | None = None, *, empty_allowed: bool = False
) -> Table:
    """Read series from a text file, plain or gzipped (.csv, .txt, .csv.gz, .txt.gz); one column is one series.

    Separated by commas, semicolons or tabs (what the first line has most of). A first line with any cell that is
    neither a number, a date nor empty is the header. A first column of dates is dropped, and so is one with an empty
    name, which pandas writes for its index. Empty cells and ``nan`` are missing values.

    Args:
        columns: names of the columns to read, in this order; the others are not looked at. None is all.
        empty_allowed: return a column without values as NaN, for :func:`usable_columns` to leave out.

    Raises:
        UsageError: no such file, not a text table, no such column, a column that is not numeric, holds infinities or
            is empty.
    """
    path = Path(path)
    text = _read_text(path)
    first_line = text.lstrip().split("\n", 1)[0]
    separator = max(_SEPARATORS, key=first_line.count)
    try:
        width = len(next(csv.reader([first_line.strip("\r")], delimiter=separator)))
        cells = pd.read_csv(
            io.StringIO(text), sep=separator, header=None, names=range(width), dtype=str, skipinitialspace=True,
            keep_default_na=False, index_col=False, on_bad_lines="error",
        )  # fmt: skip
    except (StopIteration, ValueError, csv.Error, pd.errors.ParserError) as error:
        reason = " ".join(str(error).split()) or "it holds nothing"
        raise UsageError(f"--data {path}: not a table of comma-separated values: {reason}") from None
    cells = cells.apply(lambda column: column.fillna("").str.strip())
    header = None
    if any(_is_name(cell, first=i == 0) for i, cell in enumerate(cells.iloc[0])):
        header, cells = list(cells.iloc[0]), cells.iloc[1:]
    if cells.empty:
        raise UsageError(f"--data {path}: no rows below the header; give a table with one row per time step")
    names = [name or f"column {i + 1}" for i, name in enumerate(header or [""] * width)]
    start = 1 if (header and width > 1 and not header[0]) or _are_dates(cells[0]) else 0
    if start == width:
        raise UsageError(f"--data {path}: no numeric column; give one column per series")
    wanted = range(start, width) if columns is None else [_find(path, names, name, start) for name in columns]
    series = [_numbers(path, names[i], cells[i], empty_allowed) for i in wanted]
    return Table(path.name, tuple(names[i] for i in wanted), np.stack(series, axis=1))


def _find(path: Path, names: Sequence[str], name: str, start: int) -> int:
    if name not in names[start:]:
        raise UsageError(f"--column {name}: not in {path}; choose from {', '.join(names[start:])}")
    return names.index(name, start)


def usable_columns(table: Table) -> tuple[Table, list[str]]:
    """The columns that say something, and a sentence for each that is left out: constant, or without a value.

    Raises:
        UsageError: nothing is left.
    """
    notes, kept = [], []
    for index, name in enumerate(table.columns):
        seen = table.values[:, index][~np.isnan(table.values[:, index])]
        if not len(seen) or seen.min() == seen.max():
            why = "is constant" if len(seen) else "holds no values"
            notes.append(f"column {name!r} {why}: left out")
        else:
            kept.append(index)
    if not kept:
        named = ", ".join(note.removesuffix(": left out") for note in notes)
        raise UsageError(f"--data {table.name}: no column to work with: {named}; give series that vary")
    return Table(table.name, tuple(table.columns[i] for i in kept), table.values[:, kept]), notes


def _read_text(path: Path) -> str:
    if not path.name.lower().endswith(_SUFFIXES):
        raise UsageError(f"--data {path}: unknown kind of file; give one of {', '.join(_SUFFIXES)}")
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"--data {path}: no such file") from None
    except EOFError:
        raise UsageError(f"--data {path}: the gzip file is truncated") from None
    except OSError as error:  # also gzip.BadGzipFile
        raise UsageError(f"--data {path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # zlib.error has no public base class
        raise UsageError(f"--data {path}: cannot be unpacked: {error}") from None
    if len(raw) > _MAX_BYTES:
        raise UsageError(f"--data {path}: larger than 1 GiB; give a shorter part of it")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"--data {path}: not a UTF-8 text file") from None
    if "\0" in text:
        raise UsageError(f"--data {path}: not a text file")
    if not text.strip():
        raise UsageError(f"--data {path}: the file is empty; give a table with one row per time step")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _number(cell: str) -> float | None:
    try:
        return float(cell) if "_" not in cell else None
    except ValueError:
        return None


def _is_name(cell: str, first: bool) -> bool:
    return bool(cell) and _number(cell) is None and not (first and _are_dates(pd.Series([cell])))


def _are_dates(column: pd.Series) -> bool:
    """Whether every cell is a date and none a plain number."""
    if column.map(_number).notna().any() or (column == "").any():
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas warns when it has to guess the format
        return bool(pd.to_datetime(column, errors="coerce", utc=True, format="mixed").notna().all())


def _numbers(path: Path, name: str, column: pd.Series, empty_allowed: bool) -> npt.NDArray[np.float64]:
    column = column.reset_index(drop=True)
    values = pd.to_numeric(column.where(column.str.lower().ne("nan"), ""), errors="coerce").to_numpy(
        np.float64
    )
    wrong = np.isnan(values) & column.ne("").to_numpy() & column.str.lower().ne("nan").to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise UsageError(
            f"--data {path}: column {name!r} is not numeric ({column[row][:40]!r} in row {row + 1}); remove it"
        )
    if np.isinf(values).any():
        raise UsageError(f"--data {path}: column {name!r} holds infinite values; leave those cells empty")
    if np.isnan(values).all() and not empty_allowed:
        raise UsageError(f"--data {path}: column {name!r} holds no values; remove it")
    return values


@dataclass(frozen=True)
class Windows:
    """Rolling windows over the last part of a table, column by column.

    Attributes:
        columns: C names.
        context: ``[C, W, context]`` float32, in the unit of the data.
        target: ``[C, W, horizon]`` float64, the steps that follow each context.
        mean, deviation: ``[C]``, of the rows before the first target: to standardise errors by.
    """

    columns: tuple[str, ...]
    context: npt.NDArray[np.float32]
    target: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]


def need_rows(path: str, rows: int, context: int, horizon: int) -> None:
    """Raises UsageError when a table of ``rows`` rows has no room for one window."""
    if rows < context + horizon:
        raise UsageError(
            f"--data {path}: {rows} rows are too few; it takes {context + horizon} "
            f"(context {context} + horizon {horizon})"
        )


def tested_rows(rows: int, horizon: int) -> int:
    """How many rows at the end of a table are targets of windows, where there is room for a context before them."""
    return max(horizon, int(rows * _SHARE_TESTED))


def _first_target(rows: int, context: int, horizon: int) -> int:
    return max(context, rows - tested_rows(rows, horizon))


def count_windows(rows: int, context: int, horizon: int) -> int:
    """How many windows :func:`rolling_windows` cuts, without a limit; 0 where there is no room for one."""
    return max(0, (rows - _first_target(rows, context, horizon)) // horizon)


def rolling_windows(table: Table, context: int, horizon: int, *, limit: int | None = None) -> Windows:
    """Windows whose targets follow each other without overlap and fill the last 20 % of the rows.

    There is always at least one window, the last one; those without a full context before them are left out.

    Args:
        context, horizon: steps.
        limit: at most so many windows, spread evenly.

    Raises:
        UsageError: fewer rows than context + horizon.
    """
    rows = len(table.values)
    need_rows(table.name, rows, context, horizon)
    first = _first_target(rows, context, horizon)
    starts = np.arange(rows - horizon, first - 1, -horizon)[::-1]
    if limit is not None and len(starts) > limit:
        starts = starts[np.linspace(0, len(starts) - 1, limit).round().astype(int)]
    values = table.values.T
    before = values[:, : starts[0]]
    count = np.maximum((~np.isnan(before)).sum(1), 1)
    mean = np.nansum(before, axis=1) / count
    deviation = np.sqrt(np.nansum((before - mean[:, None]) ** 2, axis=1) / count)
    return Windows(
        table.columns,
        _cut(values, starts - context, context).astype(np.float32),
        _cut(values, starts, horizon),
        mean,
        np.where(deviation > 0, deviation, 1.0),  # a constant column has no scale of its own
    )


def _cut(
    values: npt.NDArray[np.float64], starts: npt.NDArray[np.int64], length: int
) -> npt.NDArray[np.float64]:
    return np.stack([values[:, s : s + length] for s in starts], axis=1)
