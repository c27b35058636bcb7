"""Cutting a user's series (``--data``) into rolling windows for the merge cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tsmerge_export.console.one_line import by_fields
from tsmerge_export.errors import UsageError
from tsmerge_export.tables.read import read_table
from tsmerge_export.tables.table import Table, usable_columns

__all__ = ["Table", "Windows", "need_rows", "read_table", "rolling_windows", "usable_columns"]

#: Of the rows of a table, the last ones.
SHARE_TESTED = 0.2


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

    def __repr__(self) -> str:
        return by_fields(self)


def context_before(rows: int, longest: int, horizon: int, share: float) -> int:
    """What lies before the first target of as many windows as there can be, at most ``longest``, in steps."""
    return min(longest, max(horizon, rows - target_rows(rows, horizon, share)))


def enough_rows(rows: int, windows: Callable[[int], int], least: int) -> int:
    """The first number from ``rows`` on of which ``windows`` has at least so many."""
    while windows(rows) < least:
        rows += 1
    return rows


def need_rows(path: str, rows: int, context: int, horizon: int) -> None:
    """Raises UsageError when a table of ``rows`` rows has no room for one window."""
    if rows < context + horizon:
        raise UsageError(
            f"--data {path}: {rows} rows are too few; it takes {context + horizon} "
            f"(context {context} + horizon {horizon})"
        )


def target_rows(rows: int, horizon: int, share: float = SHARE_TESTED) -> int:
    """How many rows at the end of a table are targets of windows, where there is room for a context before them."""
    return max(horizon, int(rows * share))


def _first_target(rows: int, context: int, horizon: int, share: float) -> int:
    return max(context, rows - target_rows(rows, horizon, share))


def count_windows(rows: int, context: int, horizon: int, share: float = SHARE_TESTED) -> int:
    """How many windows :func:`rolling_windows` cuts, without a limit; 0 where there is no room for one."""
    return max(0, (rows - _first_target(rows, context, horizon, share)) // horizon)


def rolling_windows(
    table: Table, context: int, horizon: int, *, limit: int | None = None, share: float = SHARE_TESTED
) -> Windows:
    """Windows whose targets follow each other without overlap and fill the last 20 % of the rows, or ``share``.

    There is always at least one window, the last one; those without a full context before them are left out.

    Args:
        context, horizon: steps.
        limit: at most so many windows, spread evenly. share: of the rows, the last ones, that are targets.

    Raises:
        UsageError: fewer rows than context + horizon.
    """
    rows = len(table.values)
    need_rows(table.name, rows, context, horizon)
    first = _first_target(rows, context, horizon, share)
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
