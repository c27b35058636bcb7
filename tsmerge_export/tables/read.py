"""The one reader of tables: long or wide files, as a long frame or as series side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsmerge_export.console.notes import note
from tsmerge_export.console.one_line import by_fields
from tsmerge_export.errors import UsageError
from tsmerge_export.tables import axis, times
from tsmerge_export.tables.cells import Cells, read_cells
from tsmerge_export.tables.numbers import decimal_sign, is_missing, parsed, to_numbers
from tsmerge_export.tables.options import TableOptions
from tsmerge_export.tables.roles import Roles, find_roles, is_number_like, named_column
from tsmerge_export.tables.source import Source, open_source
from tsmerge_export.tables.table import Table

_MAX_VALUES = 1 << 27  # 1 GiB of float64
_ADVICE = times.Advice(
    "give --dayfirst or --no-dayfirst, or --date-format such as %d/%m/%Y",
    "give --date-format such as %d/%m/%Y",
)
SERIES = "item_id"  # column of ids where a file has none
VALUE = "target"  # column of values of a wide file's series


@dataclass(frozen=True)
class Long:
    """Series as rows.

    Attributes:
        frame: a row per series and time, its index the row in the file. Further columns of a long file are kept.
        id, time, target: names of columns; no time where rows are one step apart.
        wide: whether it was made of a wide file: ids are its columns.
        more: targets behind the first.
    """

    frame: pd.DataFrame
    id: str
    time: str | None
    target: str
    wide: bool
    more: tuple[str, ...] = ()

    @property
    def targets(self) -> tuple[str, ...]:
        """All targets."""
        return (self.target, *self.more)

    def __repr__(self) -> str:
        return by_fields(self)


def read_long(
    source: Source, options: TableOptions, *, targets: Sequence[str] = (), covariates: bool = False
) -> Long:
    """The series of a file for a forecast: of a long one the target by ids, of a wide one every numeric column.

    Args:
        targets: columns of ``--targets``; without ids the file is one series.
        covariates: make numbers, or words and None, of the further columns of a long file.

    Raises:
        UsageError: a table that cannot be read, or in more than one way.
        MissingDependencyError: parquet without pyarrow.
    """
    cells = read_cells(source, options)
    chosen = [str(named_column(cells, name, "targets")) for name in targets]
    twice = next((name for name in chosen if chosen.count(name) > 1), None)
    if twice is not None:
        raise UsageError(
            f"--targets {','.join(targets)}: column {twice!r} is there twice; name each column once"
        )
    if chosen:
        options = replace(options, target=chosen[0])
    roles = find_roles(cells, options, one_target=True)
    numeric = [name for name in roles.rest if name not in chosen and is_number_like(cells.frame[name])]
    decimal = _decimal(cells, roles, options, roles.rest, (*chosen[1:], *(numeric if covariates else ())))
    stamps = None if roles.time is None else stamps_of(cells, roles.time, options)
    wordy = [
        name for name in roles.rest if not is_number_like(cells.frame[name]) and _has_words(cells.frame[name])
    ]
    if roles.id is None and wordy:
        _refuse_hidden_ids(cells, stamps, wordy[0])
    if roles.target is not None:
        columns = {} if roles.time is None or stamps is None else {roles.time: stamps}
        for name in (roles.target, *chosen[1:]):
            columns[name] = pd.Series(_numbers(cells, name, decimal), index=cells.frame.index)
        for name in roles.rest if covariates else ():
            if name not in chosen:
                columns[name] = covariate(cells, name, decimal, name in numeric)
        identity = roles.id or SERIES
        columns[identity] = (
            _ids(cells, roles.id)
            if roles.id
            else pd.Series(",".join(chosen) or roles.target, index=cells.frame.index)
        )
        frame = cells.frame[list(roles.rest)].assign(**columns)
        return Long(frame, identity, roles.time, roles.target, False, tuple(chosen[1:]))
    for name in wordy:
        note(f"{cells.label}: column {name!r} is not numeric: left out")
    chosen = [name for name in roles.rest if name not in wordy]
    if not chosen:
        raise UsageError(f"{cells.label}: no numeric column; give one column per series, or a long table")
    parts = []
    time = roles.time if roles.time not in (SERIES, VALUE) else f"{roles.time}_"
    for name in chosen:
        part = pd.DataFrame({SERIES: name, VALUE: _numbers(cells, name, decimal)}, index=cells.frame.index)
        parts.append(part if stamps is None else part.assign(**{str(time): stamps}))
    return Long(pd.concat(parts), SERIES, time if stamps is not None else None, VALUE, True)


def read_table(
    path: str | Path | Source,
    columns: Sequence[str] | None = None,
    *,
    empty_allowed: bool = False,
    options: TableOptions | None = None,
    flag: str = "--data",
) -> Table:
    """Series of a file side by side: of a wide one its columns, of a long one its ids; in order of time.

    Text (.csv, .tsv, .txt, also .gz) or .parquet, or ``-`` for standard input. The separator and the decimal sign are
    found from the rows. A first row that names the columns is the header. A first column with an empty name, which
    pandas writes for its index, is dropped. Empty cells and pandas' words for missing values are NaN. Rows that are not
    evenly spaced in time are taken as they come, with a note, unless ``options.freq`` says where values are missing.

    Args:
        columns: names of the series to read, in this order; the others are not looked at. None is all.
        empty_allowed: return a series without values as NaN, for :func:`usable_columns` to leave out.
        flag: what messages have in front of the path.

    Raises:
        UsageError: no such file, not a table, no such column, a column that is not numeric, holds infinities or is
            empty, two rows at one time, dates that may be others.
        MissingDependencyError: parquet without pyarrow.
    """
    options = options or TableOptions()
    source = path if isinstance(path, Source) else open_source(path, flag)
    cells = read_cells(source, options)
    roles = find_roles(cells, options, one_target=False, all_used=columns is None)
    if roles.target is None:
        names, values = _wide(cells, roles, options, columns)
    else:
        names, values = _pivoted(cells, roles, options, columns)
    for name, column in zip(names, values.T, strict=True):
        if np.isnan(column).all() and not empty_allowed:
            raise UsageError(f"{cells.label}: column {name!r} holds no values; remove it")
    return Table(cells.name, tuple(names), values, source.path, options)


def _wide(
    cells: Cells, roles: Roles, options: TableOptions, columns: Sequence[str] | None
) -> tuple[list[str], NDArray[np.float64]]:
    if not roles.rest:
        raise UsageError(f"{cells.label}: no numeric column; give one column per series")
    names = _chosen(cells, columns, roles.rest)
    decimal = _decimal(cells, roles, options, names)
    values = np.stack([_numbers(cells, name, decimal) for name in names], axis=1)
    if roles.time is None:
        return names, values
    stamps, sure = _order(cells, roles.time, options)
    order = axis.in_order(np.zeros(len(stamps), np.int64), stamps, [None], f"{cells.label}: ")
    return names, _even(values[order], stamps.iloc[order], cells, options, sure)


def _pivoted(
    cells: Cells, roles: Roles, options: TableOptions, columns: Sequence[str] | None
) -> tuple[list[str], NDArray[np.float64]]:
    """Ids as columns, over the times of all of them; without times the series end together."""
    assert roles.target is not None
    decimal = _decimal(cells, roles, options, ())
    target = _numbers(cells, roles.target, decimal)
    codes, ids = pd.factorize(
        _ids(cells, roles.id) if roles.id else pd.Series(roles.target, index=cells.frame.index)
    )
    if roles.time is None:
        count = np.bincount(codes)
        if count.min() < count.max():
            note(
                f"{cells.label}: its series have {count.min()} to {count.max()} rows and no times; they are taken to "
                "end together"
            )
        place = pd.Series(codes).groupby(codes).cumcount().to_numpy() + (count.max() - count)[codes]
        rows, stamps, sure = int(count.max()), None, True
    else:
        found, sure = _order(cells, roles.time, options)
        axis.in_order(codes, found, ids, f"{cells.label}: ")
        place, first = np.unique(axis.in_utc(found), return_index=True, return_inverse=True)[2], None
        first = np.unique(place, return_index=True)[1]
        rows, stamps = len(first), found.iloc[first]
    if rows * len(ids) > _MAX_VALUES:
        raise UsageError(
            f"{cells.label}: {len(ids)} series at {rows} times are more than {_MAX_VALUES} values; give a part of it"
        )
    values = np.full((rows, len(ids)), np.nan)
    values[place, codes] = target
    if stamps is not None:
        values = _even(values, stamps, cells, options, sure)
    every = [str(name) for name in ids]
    names = _chosen(cells, columns, every)
    return names, values[:, [every.index(name) for name in names]]


def _chosen(cells: Cells, columns: Sequence[str] | None, names: Sequence[str]) -> list[str]:
    missing = next((name for name in columns or () if name not in names), None)
    if missing is not None:
        raise UsageError(f"--column {missing}: not in {cells.name}; choose from {', '.join(names)}")
    return list(names if columns is None else columns)


def _decimal(
    cells: Cells, roles: Roles, options: TableOptions, names: Sequence[str], beside: Sequence[str] = ()
) -> str:
    """The decimal sign: as told, or as the cells of the series have it, and of what is used beside a target."""
    if options.decimal is not None:
        return options.decimal
    used = names if roles.target is None else (roles.target, *beside)
    return decimal_sign([cells.frame[n] for n in used if times.holds_text(cells.frame[n])], cells.label)


def _numbers(cells: Cells, name: str, decimal: str) -> NDArray[np.float64]:
    column, label = cells.frame[name], f"{cells.label}: column {name!r}"
    if times.holds_text(column):
        return to_numbers(column, decimal, label)
    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        raise UsageError(f"{label} is not numeric (it holds {column.dtype}); remove it")
    try:
        values: NDArray[np.float64] = column.to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise UsageError(f"{label} is not numeric (it holds {column.dtype}); remove it") from None
    if np.isinf(values).any():
        row = column.index[int(np.isinf(values).argmax())]
        raise UsageError(f"{label} holds infinite values (in row {row}); leave those cells empty")
    return values


def _ids(cells: Cells, name: str) -> pd.Series:
    """Ids as they stand: of a text file text, so that 007 and NA are kept."""
    ids = cells.frame[name]
    empty = ids.isna() | (ids.astype(str) == "")
    if empty.any():
        row = ids.index[int(empty.to_numpy().argmax())]
        raise UsageError(
            f"{cells.label}: column {name!r} has rows without an id (row {row}); fill or drop them"
        )
    return ids


def covariate(cells: Cells, name: str, decimal: str, numeric: bool) -> pd.Series:
    """A column as numbers, or as it is with None where a cell says that there is no value.

    Raises:
        UsageError: a column of numbers with a cell that is none.
    """
    column = cells.frame[name]
    if numeric:
        return pd.Series(_numbers(cells, name, decimal), index=column.index)
    if not times.holds_text(column):
        return column
    return column.astype(object).where(~column.map(is_missing).astype(bool), None)


def stamps_of(cells: Cells, name: str, options: TableOptions, order_only: bool = False) -> pd.Series:
    """Timestamps of a column. Raises UsageError for what is none, or may be read in two ways."""
    how = times.How(options.date_format, options.dayfirst, _ADVICE, order_only)
    return times.timestamps(cells.frame[name], f"{cells.label}: column {name!r}", how)


def _order(cells: Cells, name: str, options: TableOptions) -> tuple[pd.Series, bool]:
    """Timestamps whose order is sure, and whether they themselves are: dates that may be two can have one order."""
    try:
        return stamps_of(cells, name, options), True
    except times.AmbiguousDateError:
        if options.freq is not None:
            raise
        return stamps_of(cells, name, options, order_only=True), False


def _even(
    values: NDArray[np.float64], stamps: pd.Series, cells: Cells, options: TableOptions, sure: bool
) -> NDArray[np.float64]:
    """Rows at even steps: with a frequency, gaps are filled with NaN; without, rows are what they are."""
    index = pd.DatetimeIndex(stamps)
    rows = axis.Rows(
        index, np.array([0]), np.array([len(index)]), [None], stamps.index.to_numpy(), f"{cells.label}: "
    )
    if options.freq is None:
        try:
            if sure and len(index) > 2:
                axis.find_clock(rows, None, "--freq")
        except axis.IrregularError as error:
            note(f"{error}; as it is, rows count as even steps")
        return values
    (places,) = axis.slots(rows, axis.find_clock(rows, options.freq, "--freq"), "--freq")
    found = np.full((int(places[-1]) + 1, values.shape[1]), np.nan)
    found[places] = values
    return found


def _has_words(column: pd.Series) -> bool:
    return times.holds_text(column) and bool(column.ne("").any())


def _refuse_hidden_ids(cells: Cells, stamps: pd.Series | None, name: str) -> None:
    """Without ids, a column of words may be them: rows of several series shall not become one."""
    if stamps is not None and stamps.is_unique:
        return
    why = "has no times" if stamps is None else f"has several rows at {stamps[stamps.duplicated()].iloc[0]}"
    raise UsageError(
        f"{cells.label}: {why}, and column {name!r} holds words ({_first_word(cells, name)}): if they say which series "
        f"a row belongs to, give --id-column {name!r}; else remove it"
    )


def _first_word(cells: Cells, name: str) -> str:
    """The first cell of a column that is no number, and its row."""
    column = cells.frame[name]
    row = int(parsed(column, ".")[1].argmax())
    return f"{column.iloc[row][:40]!r} in row {column.index[row]}"
