"""A table as a frame of text cells, or of typed columns: names in front, rows numbered as in the file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import pandas as pd

from tsmerge_export.console.missing import how_to_install
from tsmerge_export.errors import MissingDependencyError, UsageError, first_line
from tsmerge_export.tables import sniff
from tsmerge_export.tables.numbers import is_missing, looks_numeric
from tsmerge_export.tables.options import TableOptions
from tsmerge_export.tables.source import Source
from tsmerge_export.tables.times import holds_text, looks_like_date

_BODY = 200  # rows that are compared with the first one
_MAX_CELLS = 1 << 27  # 1 GiB of float64
_NO_ROWS = "has no rows below the header; give a table with one row per time step"
# Names by which the columns of a long table are known without a flag, and those of timestamps.
IDS = ("item_id", "unique_id", "id")
TIMES = ("timestamp", "datetime", "date_time", "date", "ds", "time")
TARGETS = ("target", "y")


@dataclass(frozen=True)
class Cells:
    """What a file holds.

    Attributes:
        label: what messages begin with, and name: of the file.
        frame: columns of stripped text, or with their own types; the index is the row in the file, counted from 1, the
            header counted.
        unnamed_first: whether the first column has no name below a header, as the index that pandas writes.
    """

    label: str
    name: str
    frame: pd.DataFrame
    unnamed_first: bool = False


def known_as(name: str) -> str:
    """A name without case, surrounding space and the kind of its inner separators."""
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def read_cells(source: Source, options: TableOptions) -> Cells:
    """Take a file apart.

    Raises:
        UsageError: not a table, or one whose separator cannot be told.
        MissingDependencyError: parquet without pyarrow.
    """
    return _typed(source) if source.is_parquet else _text(source, options)


def _text(source: Source, options: TableOptions) -> Cells:
    text, label = source.text(), source.label
    lines = sniff.head(text)
    sep = options.sep
    try:
        if sep is None:
            sep = sniff.separator(lines, label)
        first = sniff.split(lines, sep)
        width = len(first[0])
        cells = pd.read_csv(
            io.StringIO(text), sep=r"\s+" if sep == sniff.SPACES else sep, header=None, names=range(width), dtype=str,
            skipinitialspace=True, keep_default_na=False, index_col=False, on_bad_lines="error",
        )  # fmt: skip
    except (ValueError, IndexError, csv.Error, pd.errors.ParserError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{label}: not a table of separated values: {_reason(error)}") from None
    cells = cells.apply(lambda column: column.fillna("").str.strip())
    cells.index = pd.Index(_numbering(text, len(cells)))
    names = [""] * width
    has_header = _is_header(cells)
    if has_header:
        names = list(cells.iloc[0])
        cells = cells.iloc[1:]
    if cells.empty:
        raise UsageError(f"{label}: {_NO_ROWS}")
    while len(names) > 1 and not names[-1] and cells[len(names) - 1].eq("").all():  # `a;b;` on every line
        del cells[len(names) - 1], names[-1]
    unnamed = has_header and len(names) > 1 and not names[0]
    cells.columns = pd.Index(_distinct([name or f"column {i + 1}" for i, name in enumerate(names)]))
    return Cells(label, source.name, cells, unnamed)


def _reason(error: Exception) -> str:
    counts = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
    if counts:
        return f"row {counts[2]} has {counts[3]} cells, the first row {counts[1]}; mend it, or give --sep"
    quote = re.search(r"EOF inside string starting at row (\d+)", str(error))
    if quote:
        return f"a quote that begins in row {int(quote[1]) + 1} has no end"
    return " ".join(str(error).split()) or "it holds nothing"


def _numbering(text: str, rows: int) -> Sequence[int]:
    """Numbers of the rows in the file: lines, blank ones counted. Where a cell spans lines, blank ones are not."""
    if "\n\n" not in text and not text.startswith("\n") and re.search(r"\n[ \t]+\n", text) is None:
        return range(1, rows + 1)
    lines = [i for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    return lines if len(lines) == rows else range(1, rows + 1)


def _distinct(names: Sequence[str]) -> list[str]:
    """Names that occur again get a number, as in pandas."""
    seen: dict[str, int] = {}
    found = []
    for name in (re.sub(r"\s*\n\s*", " ", name) for name in names):  # messages are one line
        count = seen[name] = seen.get(name, -1) + 1
        found.append(f"{name}.{count}" if count else name)
    return found


def _is_header(cells: pd.DataFrame) -> bool:
    """Whether the first row names the columns.

    It does where it has a usual name, a word above numbers or dates, or counts the columns as pandas does. It does not
    where it has a date above dates, a word that comes again below, or numbers above numbers and no name. Where nothing
    tells, words are names.
    """
    first, body = list(cells.iloc[0]), cells.iloc[1 : _BODY + 1]
    if any(known_as(cell) in (*IDS, *TIMES, *TARGETS) for cell in first):
        return True
    if len(first) > 1 and first == ["", *map(str, range(len(first) - 1))]:
        return True
    named = numbered = False
    for cell, name in zip(first, cells.columns, strict=True):
        below = [other for other in body[name] if not is_missing(other)]
        values = 2 * sum(map(_is_value, below)) > len(below)
        if _is_word(cell):
            if cell in below:
                return False
            named = named or values
        elif looks_like_date(cell) and 2 * sum(map(looks_like_date, below)) > len(below):
            return False
        else:
            numbered = numbered or (values and not is_missing(cell))
    return named or (not numbered and any(map(_is_word, first)))


def _is_word(cell: str) -> bool:
    return not is_missing(cell) and not _is_value(cell) and any(sign.isalnum() for sign in cell)


def _is_value(cell: str) -> bool:
    return looks_numeric(cell, ".") or looks_numeric(cell, ",") or looks_like_date(cell)


def _typed(source: Source) -> Cells:
    if find_spec("pyarrow") is None:
        raise MissingDependencyError(f"{source.label}: {how_to_install('pyarrow')}")
    from pyarrow import parquet

    try:
        data = parquet.ParquetFile(io.BytesIO(source.content))
        if data.metadata.num_rows * max(1, data.metadata.num_columns) > _MAX_CELLS:
            raise UsageError(f"{source.label}: has more than {_MAX_CELLS} cells; give a part of it")
        frame = data.read().to_pandas()
    except (MemoryError, UsageError):
        raise
    except Exception as error:  # pyarrow and its codecs have no common base class
        raise UsageError(f"{source.label}: cannot be read: {first_line(error)}") from None
    frame = _index_as_column(frame)
    if not len(frame) or not len(frame.columns):
        raise UsageError(f"{source.label}: {_NO_ROWS.replace('below the header', 'in it')}")
    frame.columns = pd.Index(_distinct([str(name).strip() for name in frame.columns]))
    for name in frame.columns:
        if holds_text(frame[name]):
            frame[name] = frame[name].fillna("").map(str).str.strip()
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return Cells(source.label, source.name, frame)


def _index_as_column(frame: pd.DataFrame) -> pd.DataFrame:
    """An index of names or dates, which pandas keeps in parquet, is a column like others; one of numbers is dropped."""
    dated = isinstance(frame.index, pd.DatetimeIndex)
    if frame.index.names == [None] and not dated:
        return frame.reset_index(drop=True)
    named = [name if name is not None else "timestamp" for name in frame.index.names]
    return frame.reset_index(names=named, allow_duplicates=True)
