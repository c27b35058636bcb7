"""The axis of time: rows in order, the frequency, gaps, and the timestamps that follow.

With a time zone, steps are even either in UTC (hours, minutes) or on the zone's own clock (days and more, as people
live them): a change of clocks is no gap.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsmerge_export.errors import UsageError

# A grid may have so many times more places than there are rows, and so many more: a wrong freq must not fill memory.
_GRID_TIMES, _GRID_MORE = 100, 100_000


class IrregularError(UsageError):
    """Rows whose distances in time have no frequency."""


@dataclass(frozen=True)
class Clock:
    """Even steps.

    Attributes:
        offset: pandas' offset of one step. name: the frequency. zone: of the timestamps, or None.
        wall: steps are even on the zone's clock, not in UTC.
    """

    offset: Any
    name: str
    zone: Any
    wall: bool

    def face(self, stamps: pd.DatetimeIndex) -> pd.DatetimeIndex:
        """Timestamps without a zone, on the clock on which steps are even."""
        if self.zone is None:
            return stamps
        return (stamps if self.wall else stamps.tz_convert("UTC")).tz_localize(None)

    def after(self, last: pd.DatetimeIndex, steps: int) -> pd.DatetimeIndex:
        """The ``steps`` timestamps behind each of ``last``, one series after the other.

        On a wall clock, an hour that is skipped becomes the next one, and of one that comes twice the first is meant.

        Raises:
            UsageError: beyond the last date that pandas can hold.
        """
        face = self.face(last)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", category=pd.errors.PerformanceWarning)
                ahead = np.stack([face + step * self.offset for step in range(1, steps + 1)], axis=1)
        except (OverflowError, pd.errors.OutOfBoundsDatetime, pd.errors.OutOfBoundsTimedelta):
            raise UsageError(
                f"{steps} steps of {self.name} go beyond the last date that pandas can hold"
            ) from None
        found = pd.DatetimeIndex(ahead.ravel())
        if self.zone is None:
            return found
        if not self.wall:
            return found.tz_localize("UTC").tz_convert(self.zone)
        return found.tz_localize(self.zone, nonexistent="shift_forward", ambiguous=np.ones(len(found), bool))


@dataclass(frozen=True)
class Rows:
    """Rows of series, grouped by series and in order of time.

    Attributes:
        stamps: of each row. starts, ends: first row of each series, and the one behind its last. names: of the series.
        labels: what a message calls each row. prefix: what messages begin with.
    """

    stamps: pd.DatetimeIndex
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    names: Sequence[Any]
    labels: NDArray[Any]
    prefix: str = ""

    def series(self) -> list[tuple[Any, slice]]:
        """Name and rows of each series."""
        return [(n, slice(a, b)) for n, a, b in zip(self.names, self.starts, self.ends, strict=True)]

    def row(self, position: int) -> str:
        """A row as messages call it."""
        return f"row {self.labels[position]} ({self.stamps[position]})"


def subject(name: Any) -> str:
    """A series as messages call it; None stands for the rows of a table with several series side by side."""
    return "the table" if name is None else f"series {name!r}"


def in_order(
    codes: NDArray[np.int64], stamps: pd.Series, names: Sequence[Any], prefix: str
) -> NDArray[np.int64]:
    """Positions of the rows by series, then by time; rows at the same time are refused.

    Args:
        codes: which of ``names`` each row belongs to. stamps: with or without a zone, labelled by its index.

    Raises:
        UsageError: a series has two rows at the same time.
    """
    moments = in_utc(stamps)
    order = np.lexsort([moments, codes])
    same = (np.diff(codes[order]) == 0) & (np.diff(moments[order]) == np.timedelta64(0, "ns"))
    if same.any():
        at = int(same.argmax())
        one, other = (stamps.index[order[i]] for i in (at, at + 1))
        name = names[int(codes[order[at]])]
        when = stamps.iloc[order[at]]
        raise UsageError(
            f"{prefix}{subject(name)} has two rows at {when} (rows {one} and {other}); keep one of them"
        )
    return order


def in_utc(stamps: pd.Series) -> NDArray[np.datetime64]:
    """Timestamps as numpy has them."""
    index = pd.DatetimeIndex(stamps)
    return (index if index.tz is None else index.tz_convert("UTC").tz_localize(None)).to_numpy()


def find_clock(rows: Rows, freq: str | None, advice: str) -> Clock:
    """The frequency, as given or found from series of at least three rows.

    Args:
        advice: how the user gives a frequency: ``freq`` or ``--freq``.

    Raises:
        UsageError: rows that are not regular, several frequencies, no frequency.
    """
    zone = rows.stamps.tz
    if freq is not None:
        offset = to_offset(freq, advice)
        walls = _turns(zone, offset)
        for wall in walls:
            clock = Clock(offset, freq, zone, wall)
            if all(_slots(clock, clock.face(rows.stamps[part]))[1] is None for _, part in rows.series()):
                return clock
        return Clock(offset, freq, zone, walls[0])
    fitting: dict[bool, dict[Any, Any]] = {}
    for wall in (True, False) if zone is not None else (True,):
        found = _frequencies(rows, wall)
        if len(found) == 1 and None not in found:
            (name,) = found
            clock = Clock(to_offset(name), name, zone, wall)
            if wall == _turns(zone, clock.offset)[0]:
                return clock
        fitting[wall] = found
    regular = [wall for wall, found in fitting.items() if len(found) == 1 and None not in found]
    if regular:
        (name,) = fitting[regular[0]]
        return Clock(to_offset(name), name, zone, regular[0])
    found = fitting[min(fitting, key=lambda wall: (None in fitting[wall], not wall))]
    if None in found:
        raise IrregularError(_irregular(rows, found[None], advice))
    if len(found) > 1:
        (one, first), (other, second) = list(found.items())[:2]
        raise UsageError(
            f"{rows.prefix}series {first!r} has frequency {one}, {second!r} {other}; forecast them apart"
        )
    raise UsageError(f"{rows.prefix}no series has three rows to find the frequency from; give {advice}")


def to_offset(freq: str, advice: str = "freq") -> Any:
    """pandas' offset of a frequency. Raises UsageError for none that it knows, and for steps back."""
    try:
        offset = pd.tseries.frequencies.to_offset(freq)
    except (ValueError, TypeError):
        offset = None
    if offset is None or offset.n < 1:
        raise UsageError(f"{advice} {freq!r} is not a frequency that pandas knows, such as h, D or W")
    return offset


def slots(rows: Rows, clock: Clock, advice: str) -> list[NDArray[np.int64]]:
    """For each series the place of its rows on the clock's grid, which begins at its first row.

    Raises:
        UsageError: a row lies beside the grid, or the grid is far larger than the rows.
    """
    found = []
    for name, part in rows.series():
        places, wrong = _slots(clock, clock.face(rows.stamps[part]))
        who, step = f"{rows.prefix}{subject(name)}", f"{advice} {clock.name}"
        if wrong is not None:
            raise UsageError(
                f"{who}: {rows.row(part.start + wrong)} is not on the grid of {step}, which begins at "
                f"{rows.row(part.start)}; mend it, or give another {advice}"
            )
        if places is None:
            raise UsageError(
                f"{who}: {step} makes far more steps than it has rows ({part.stop - part.start}); give a longer one"
            )
        found.append(places)
    return found


def _turns(zone: Any, offset: Any) -> tuple[bool, ...]:
    """Whether steps are even on the zone's clock, the likely answer first."""
    if zone is None:
        return (True,)
    return (False, True) if _is_fixed(offset) and not _is_days(offset) else (True, False)


def _is_days(offset: Any) -> bool:
    return isinstance(offset, pd.tseries.offsets.Day) or pd.Timedelta(offset) % pd.Timedelta(
        days=1
    ) == pd.Timedelta(0)


def _is_fixed(offset: Any) -> bool:
    return isinstance(offset, pd.tseries.offsets.Tick | pd.tseries.offsets.Day)


def _slots(clock: Clock, face: pd.DatetimeIndex) -> tuple[NDArray[np.int64] | None, int | None]:
    """Places on the grid, or None where it is far larger than the rows; the first row that lies beside it, or None."""
    limit = _GRID_TIMES * len(face) + _GRID_MORE
    if not _is_fixed(clock.offset):
        if (face[-1] - face[0]).days > limit:
            return None, None
        grid = pd.date_range(face[0], face[-1], freq=clock.offset)
        places = grid.get_indexer(face).astype(np.int64)
        wrong = places < 0
        if len(places) > 1:
            wrong[1:] |= np.diff(places) <= 0
        return places, int(wrong.argmax()) if wrong.any() else None
    days = isinstance(clock.offset, pd.tseries.offsets.Day)
    step = pd.Timedelta(days=clock.offset.n) if days else pd.Timedelta(clock.offset)
    small = step.value % 1000  # of a microsecond; nanoseconds do not reach far dates
    length = np.timedelta64(step.value, "ns") if small else np.timedelta64(step.value // 1000, "us")
    since = face.to_numpy() - face.to_numpy()[0]
    places, beside = since // length, since % length != np.timedelta64(0, "ns")
    if len(places) > 1:
        beside[1:] |= np.diff(places) <= 0
    if beside.any():
        return None, int(beside.argmax())
    return (None if places[-1] >= limit else places.astype(np.int64)), None


def _frequencies(rows: Rows, wall: bool) -> dict[Any, Any]:
    """Frequency -> the first series that has it; None for one that is irregular. Short series have none."""
    found: dict[Any, Any] = {}
    for name, part in rows.series():
        if part.stop - part.start < 3:
            continue
        face = Clock(None, "", rows.stamps.tz, wall).face(rows.stamps[part])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pandas 3 announces that this will be an offset
            freq = pd.infer_freq(face)
        found.setdefault(getattr(freq, "freqstr", freq), name)
    return found


def _irregular(rows: Rows, name: Any, advice: str) -> str:
    """What to say of a series whose rows have no frequency: the row with the oddest distance from the one before."""
    part = dict(rows.series())[name]
    index = rows.stamps[part]
    steps = np.diff((index if index.tz is None else index.tz_convert("UTC").tz_localize(None)).to_numpy())
    sizes, counts = np.unique(steps, return_counts=True)
    usual = sizes[int(counts.argmax())]
    ratio = np.maximum(steps, np.timedelta64(1, "ns")) / max(usual, np.timedelta64(1, "ns"))
    odd = int(np.maximum(ratio, 1 / ratio).argmax())
    told = [
        str(pd.Timedelta(step)).removeprefix("0 days ").removesuffix(" 00:00:00")
        for step in (steps[odd], usual)
    ]
    return (
        f"{rows.prefix}{subject(name)}: its timestamps are not regular: {rows.row(part.start + odd + 1)} comes "
        f"{told[0]} after the row before it, most come {told[1]} after; mend it, or give {advice}{_guess(usual)}, "
        "which leaves gaps without a value"
    )


def _guess(step: np.timedelta64) -> str:
    """The frequency of a step, with a space in front; none for steps that may be months."""
    length = pd.Timedelta(step)
    if not pd.Timedelta(0) < length <= pd.Timedelta(days=7):
        return ""
    if length % pd.Timedelta(days=1) == pd.Timedelta(0):
        return f" {length.days}D" if length.days > 1 else " D"
    return f" {pd.tseries.frequencies.to_offset(length).freqstr}"
