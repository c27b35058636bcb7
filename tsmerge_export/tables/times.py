"""Cells as timestamps. A date that may be two days is refused, and so is what only a guess makes a date."""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsmerge_export.console.notes import note
from tsmerge_export.errors import UsageError, first_line

_CLOCK = r"(?:[T ,]+\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?(?: ?[APap][Mm])?)?"
_ZONE = r"(?: ?(?:Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?))?"
_YEAR_FIRST = re.compile(rf"(\d{{4}})([-/.])(\d{{1,2}})(?:\2(\d{{1,2}}))?({_CLOCK})({_ZONE})")
_YEAR_LAST = re.compile(rf"(\d{{1,2}})([-/.])(\d{{1,2}})\2(\d{{4}}|\d{{2}})({_CLOCK})({_ZONE})")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_DAY_NAMED = re.compile(rf"(\d{{1,2}})[ -]?({_MONTH})[ ,-]*(\d{{4}})({_CLOCK})({_ZONE})", re.IGNORECASE)
_MONTH_NAMED = re.compile(
    rf"({_MONTH})[ -]+(?:(\d{{1,2}})(?:,| )[ ]*)?(\d{{4}})({_CLOCK})({_ZONE})", re.IGNORECASE
)
_COMPACT = re.compile(r"((?:1[89]|2[01])\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(T\d{4}(?:\d{2})?)?(Z?)")
_ANY = (_YEAR_FIRST, _YEAR_LAST, _DAY_NAMED, _MONTH_NAMED)
_SAMPLE = 100


class AmbiguousDateError(UsageError):
    """A date that may be one of two days."""


class Advice(NamedTuple):
    """What messages tell the user to give: flags on the command line, arguments or pandas in Python."""

    dayfirst: str = "convert the column with pandas.to_datetime first"
    format: str = "convert the column with pandas.to_datetime first"


_IN_PYTHON = Advice()


@dataclass(frozen=True)
class How:
    """How text becomes timestamps: see :class:`~tsmerge_export.tables.options.TableOptions`.

    Attributes:
        order_only: only the order of the timestamps counts: dates that may be two are accepted where both readings
            give the same.
    """

    date_format: str | None = None
    dayfirst: bool | None = None
    advice: Advice = _IN_PYTHON
    order_only: bool = False


def looks_like_date(cell: str) -> bool:
    """Whether a cell has a date with a year and a month; plain digits and mere times of day have none."""
    return any(form.fullmatch(cell) for form in _ANY)


def is_date_like(column: pd.Series) -> bool:
    """Whether most cells of a column are dates: of its first hundred that are not empty."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return True
    if not holds_text(column):
        return False
    cells = column[column != ""].iloc[:_SAMPLE]
    return len(cells) > 0 and 2 * sum(looks_like_date(str(cell)) for cell in cells) > len(cells)


def holds_text(column: pd.Series) -> bool:
    """Whether a column's first values are strings."""
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_numeric_dtype(column):
        return False
    seen = column.dropna()
    return len(seen) > 0 and isinstance(seen.iloc[0], str)


def timestamps(column: pd.Series, label: str, how: How | None = None) -> pd.Series:
    """A column as timestamps; those with a time zone keep it.

    Where the cells have offsets from UTC that differ, the result is in UTC, and a note says so.

    Args:
        column: timestamps, text, or datetime objects. label: what messages begin with.
        how: for text.

    Raises:
        UsageError: a cell is no date, or may be two days; numbers; some cells with a zone and some without. Rows are
            named by the column's index.
    """
    how = how or How()
    if holds_text(column):
        _refuse_missing(column.isna() | column.eq(""), label)
        found = _from_text(column.astype(str).str.strip(), label, how)
    elif pd.api.types.is_numeric_dtype(column):
        if how.date_format is None:
            raise UsageError(
                f"{label} holds numbers, not timestamps; give dates such as 2026-11-22 14:00, or {how.advice.format}"
            )
        found = _from_text(column.astype(str), label, how)
    elif pd.api.types.is_datetime64_any_dtype(column):
        found = pd.Series(pd.DatetimeIndex(column), index=column.index)  # also of Arrow's types
    else:
        found = _from_objects(column, label)
    _refuse_missing(found.isna(), label)
    return found


def _refuse_missing(missing: pd.Series, label: str) -> None:
    if missing.any():
        row = missing.index[int(missing.to_numpy().argmax())]
        raise UsageError(f"{label} has rows without a timestamp (row {row}); fill or drop them")


def _from_objects(column: pd.Series, label: str) -> pd.Series:
    _refuse_missing(column.isna(), label)
    zones = {str(getattr(value, "tzinfo", None)) for value in column}
    if len(zones) > 1 and "None" in zones:
        raise UsageError(f"{label} has timestamps with a time zone and others without; give all of them one")
    try:
        found = pd.to_datetime(column, utc=len(zones) > 1)
    except (ValueError, TypeError, OverflowError) as error:
        reason = first_line(error).split(". ")[0].split(", at position")[0]
        raise UsageError(f"{label} does not hold timestamps: {reason}") from None
    if len(zones) > 1:
        _say_utc(label)
    return found


def _say_utc(label: str) -> None:
    note(f"{label} has several offsets from UTC and no time zone; its timestamps are given in UTC")


def _from_text(cells: pd.Series, label: str, how: How) -> pd.Series:
    codes, _ = pd.factorize(cells)  # long tables repeat their timestamps
    firsts = np.unique(codes, return_index=True)[1]
    found = _parsed(cells.iloc[firsts], label, how)
    return pd.Series(pd.DatetimeIndex(found)[codes], index=cells.index)


def _parsed(cells: pd.Series, label: str, how: How) -> pd.Series:
    if how.date_format is not None:
        return _formatted(cells, label, how.date_format)
    quick = _iso(cells)
    if quick is not None:
        return quick
    parts = [_match(cell) for cell in cells]
    wrong = next((i for i, part in enumerate(parts) if part is None), None)
    if wrong is not None:
        raise _no_date(cells, wrong, label, how)
    forms = [part for part in parts if part is not None]
    year, first, second, clock, zone, turn = (np.array(values) for values in zip(*forms, strict=True))
    swap = turn.astype(bool)

    def with_day(dayfirst: bool) -> pd.Series:
        month = np.where(swap & (not dayfirst), first, second)
        day = np.where(swap & (not dayfirst), second, first)
        return _assembled(cells, label, (year, month, day, clock), zone, how)

    order = _day_is_first(cells, label, year, first, second, swap, how)
    if order is not None:
        return with_day(order)
    one, other = with_day(True), with_day(False)
    if how.order_only and np.array_equal(one.rank(), other.rank()):
        return one
    raise AmbiguousDateError(
        f"{label}: {_cell(cells, int(swap.argmax()))} can be read as more than one date; {how.advice.dayfirst}"
    )


def _iso(cells: pd.Series) -> pd.Series | None:
    """Dates with the year first, by pandas' own fast reader; None where any cell is something else."""
    if not all(_YEAR_FIRST.fullmatch(cell) for cell in cells.iloc[:_SAMPLE]) or cells.str.len().min() < len(
        "2024-01"
    ):
        return None
    try:
        found = pd.to_datetime(cells, format="ISO8601", errors="coerce")
    except ValueError:  # zones that differ
        return None
    return None if found.dtype.kind != "M" or found.isna().any() else found


# year, day (or the first of two that may be), month, clock, zone, whether day and month may be the other way round
_Parts = tuple[str, int, int, str, str, bool]


def _match(cell: str) -> _Parts | None:
    if found := _YEAR_FIRST.fullmatch(cell):
        year, _, month, day, clock, zone = found.groups()
        return year, int(day or 1), int(month), clock, zone or "", False
    if found := _YEAR_LAST.fullmatch(cell):
        first, _, second, year, clock, zone = found.groups()
        return year, int(first), int(second), clock, zone or "", True
    if found := _DAY_NAMED.fullmatch(cell):
        day, name, year, clock, zone = found.groups()
        return year, int(day), _MONTHS.index(name[:3].lower()) + 1, clock, zone or "", False
    if found := _MONTH_NAMED.fullmatch(cell):
        name, day, year, clock, zone = found.groups()
        return year, int(day or 1), _MONTHS.index(name[:3].lower()) + 1, clock, zone or "", False
    if found := _COMPACT.fullmatch(cell):
        year, month, day, clock, zone = found.groups()
        spelled = "" if clock is None else " " + ":".join(re.findall(r"\d\d", clock))
        return year, int(day), int(month), spelled, zone, False
    return None


def _day_is_first(
    cells: pd.Series, label: str, year: NDArray[Any], first: NDArray[Any], second: NDArray[Any],
    swap: NDArray[np.bool_], how: How,
) -> bool | None:  # fmt: skip
    """Whether 01/02 is 1 February: as told, or as a number above 12 anywhere proves; None where nothing says so."""
    if not swap.any():
        return True
    days, months = swap & (first > 12), swap & (second > 12)
    if how.dayfirst is not None:
        against = months if how.dayfirst else days
        if against.any():
            order = "day" if how.dayfirst else "month"
            raise UsageError(
                f"{label}: {_cell(cells, int(against.argmax()))} does not have the {order} first; mend it"
            )
        return how.dayfirst
    if days.any() and months.any():
        one, other = _cell(cells, int(days.argmax())), _cell(cells, int(months.argmax()))
        raise UsageError(f"{label} has the day first ({one}) and the month first ({other}); mend one of them")
    short = swap & (np.char.str_len(year) == 2)  # which of three numbers is the year?
    if short.any():
        raise UsageError(f"{label}: {_cell(cells, int(short.argmax()))} can be read as more than one date; "
                         f"{how.advice.dayfirst}")  # fmt: skip
    if (days | months).any() or (first == second)[swap].all():
        return bool(not months.any())
    return None


def _assembled(
    cells: pd.Series, label: str, parts: tuple[NDArray[Any], ...], zone: NDArray[Any], how: How
) -> pd.Series:
    offset = np.array([_offset(text) for text in zone])
    offsets = set(offset)
    if len(offsets) > 1 and "" in offsets:
        row = int((offset == "").argmax()) if offset[0] else int((offset != "").argmax())
        raise UsageError(
            f"{label} has timestamps with a time zone and others without ({_cell(cells, row)}); give all of them one"
        )
    text = [
        f"{_century(year)}-{int(month):02d}-{int(day):02d}{_hours(clock)}{zone_}"
        for year, month, day, clock, zone_ in zip(*parts, offset, strict=True)
    ]
    found = pd.to_datetime(
        pd.Series(text, index=cells.index), format="ISO8601", errors="coerce", utc=len(offsets) > 1
    )
    if found.isna().any():
        raise _no_date(cells, int(found.isna().to_numpy().argmax()), label, how)
    if len(offsets) > 1:
        _say_utc(label)
    return found


def _century(year: str) -> str:
    """Two digits are of this century: data are seldom older, and a far year is seen in the output."""
    return year if len(year) == 4 else f"20{year}"


def _hours(clock: str) -> str:
    """A time of day as ISO 8601 has it."""
    if not clock:
        return ""
    text = clock.strip("T ,").lower()
    half = text[-2:] if text[-1] == "m" else ""
    hour, rest = text.removesuffix(half).strip().split(":", 1)
    number = int(hour)
    if half and not 1 <= number <= 12:
        return " 99:99"  # no such time: becomes an error that names the cell
    if half:
        number = number % 12 + (12 if half == "pm" else 0)
    return f" {number:02d}:{rest.replace(',', '.')}"


def _offset(zone: str) -> str:
    """``+hh:mm``, or nothing."""
    text = zone.strip()
    if text in ("", "Z", "UTC", "GMT"):
        return "+00:00" if text else ""
    digits = text[1:].replace(":", "").ljust(4, "0")
    return f"{text[0]}{digits[:2]}:{digits[2:]}"


def _formatted(cells: pd.Series, label: str, date_format: str) -> pd.Series:
    zoned = "%z" in date_format or "%Z" in date_format
    mixed = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = pd.to_datetime(cells, format=date_format, errors="coerce", utc=zoned)
            if zoned and not found.isna().any():
                mixed = True
                with suppress(ValueError):  # pandas 3 refuses offsets that differ, pandas 2 returns objects
                    local = pd.to_datetime(cells, format=date_format)
                    if local.dtype.kind == "M":
                        found, mixed = local, False
    except (ValueError, TypeError) as error:
        raise UsageError(f"--date-format {date_format}: {first_line(error)}") from None
    if found.isna().any():
        row = int(found.isna().to_numpy().argmax())
        raise UsageError(
            f"{label}: {_cell(cells, row)} does not have the format {date_format}; mend one of them"
        )
    if mixed:
        _say_utc(label)
    return found


def _cell(cells: pd.Series, position: int) -> str:
    return f"{str(cells.iloc[position])[:40]!r} in row {cells.index[position]}"


def _no_date(cells: pd.Series, position: int, label: str, how: How) -> UsageError:
    return UsageError(
        f"{label} does not hold timestamps: {_cell(cells, position)} is no date that is known; mend it, or "
        f"{how.advice.format}"
    )
