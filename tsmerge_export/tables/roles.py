"""Which column of a table is what: whose row it is, when, and which numbers are series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from tsmerge_export.errors import UsageError
from tsmerge_export.tables.cells import IDS, TARGETS, TIMES, Cells, known_as
from tsmerge_export.tables.numbers import parsed
from tsmerge_export.tables.options import TableOptions
from tsmerge_export.tables.times import holds_text, is_date_like

_SHOWN = 20


@dataclass(frozen=True)
class Roles:
    """Columns by what they are for.

    Attributes:
        id: which series a row belongs to. time: of the row. None where there is none.
        target: the one column that is forecast; None where every numeric column is a series.
        rest: the other columns, in order; without the index that pandas writes.
    """

    id: str | None
    time: str | None
    target: str | None
    rest: tuple[str, ...]


def find_roles(cells: Cells, options: TableOptions, *, one_target: bool, all_used: bool = True) -> Roles:
    """Columns as the flags name them, or by their usual names, without regard to case and space around them.

    Without a usual name, a first column of dates is the time.

    Args:
        one_target: a usual name of a target means that column alone, also where no column has ids.
        all_used: refuse dates that are not used, where no flag says which are the time.

    Raises:
        UsageError: no such column; dates that are not used; ids that are all different; no single target.
    """
    names = list(cells.frame.columns)
    identity = named_column(cells, options.id_column, "id-column") or _usual(names, IDS)
    target = named_column(cells, options.target, "target")
    time = named_column(cells, options.timestamp_column, "timestamp-column")
    others = [name for name in names if name not in (identity, target)]
    if time is None:
        time = _time(cells, others)
        if all_used:
            _refuse_unused(cells, time, others)
    if cells.unnamed_first and names[0] not in (identity, target, time):
        names = names[1:]
    if (
        identity is not None
        and options.id_column is None
        and len(cells.frame) > 1
        and cells.frame[identity].is_unique
    ):
        raise UsageError(
            f"{cells.label}: column {identity!r} is different in every row: if it counts the rows, remove it; if every "
            f"row is a series, give --id-column {identity!r}"
        )
    left = [name for name in names if name not in (identity, time)]
    if target is None and (identity is not None or one_target):
        target = _usual(left, TARGETS)
    if target is None and identity is not None:
        target = _only_numbers(cells, left)
    return Roles(identity, time, target, tuple(name for name in left if name != target))


def is_number_like(column: pd.Series) -> bool:
    """Whether at least half of the values of a column are numbers, and there is one."""
    if not holds_text(column):
        return bool(pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column))
    wrong = parsed(column, ".")[1]
    if wrong.any():
        other = parsed(column, ",")[1]
        wrong = wrong if wrong.sum() <= other.sum() else other
    good = len(column) - int(wrong.sum()) - int((column == "").sum())
    return good > 0 and good >= wrong.sum()


def named_column(cells: Cells, name: str | None, flag: str) -> str | None:
    """The column that a flag names: exactly, or else without regard to case and space."""
    if name is None:
        return None
    names = list(cells.frame.columns)
    if name in names:
        return name
    alike = [other for other in names if known_as(other) == known_as(name)]
    if len(alike) == 1:
        return str(alike[0])
    raise UsageError(f"--{flag} {name}: no such column in {cells.label}; it has: {', '.join(names[:_SHOWN])}")


def _usual(names: Sequence[str], usual: Sequence[str]) -> str | None:
    return next((name for known in usual for name in names if known_as(name) == known), None)


def _time(cells: Cells, others: Sequence[str]) -> str | None:
    """By its usual name, one with dates first; or the first column of the table, if it holds dates."""
    usual = [name for known in TIMES for name in others if known_as(name) == known]
    dated = [name for name in usual if is_date_like(cells.frame[name])]
    if usual:
        return (dated or usual)[0]
    first = str(cells.frame.columns[0])
    return first if first in others and is_date_like(cells.frame[first]) else None


def _refuse_unused(cells: Cells, time: str | None, others: Sequence[str]) -> None:
    for name in others:
        if name == time or not is_date_like(cells.frame[name]):
            continue
        if time is None:
            raise UsageError(
                f"{cells.label}: column {name!r} holds dates that are not used; give --timestamp-column {name!r}, or "
                "remove it"
            )
        raise UsageError(
            f"{cells.label}: columns {time!r} and {name!r} hold dates; say which are the times with "
            f"--timestamp-column {time!r}"
        )


def _only_numbers(cells: Cells, names: Sequence[str]) -> str:
    numeric = [name for name in names if is_number_like(cells.frame[name])]
    if len(numeric) != 1:
        raise UsageError(f"{cells.label}: which column shall be forecast? Give --target, one of: "
                         f"{', '.join((numeric or list(names))[:_SHOWN])}")  # fmt: skip
    return numeric[0]
