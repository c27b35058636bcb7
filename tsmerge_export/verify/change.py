"""By how much an error changes: the one definition behind every per cent of error that this project reports.

Two models are compared column by column, on the same windows: ``100 * (after / before - 1)``. The figure of a table is
the median of its columns' changes, and the worst column is named beside it. It is not the change of a median error: the
medians before and after may belong to different columns.

A column whose error before is next to nothing has no change in per cent: any difference is a huge multiple of it. Next
to nothing is a mean absolute error below :data:`NEXT_TO_NOTHING` standard deviations of the column, and what amounts to
the same in the other metrics. Such columns are left out, by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Mean absolute error in standard deviations of the column below which a forecast counts as perfect.
NEXT_TO_NOTHING = 1e-4
#: Fewest windows of a column from which one can tell how far a change scatters. On simulated errors a bound of 90 %
#: (bootstrap over windows) holds in 80 to 86 of 100 cases with five, in 89 with 16, in 75 with two; of one window a
#: bootstrap makes copies, and the bound is the figure itself.
LEAST_WINDOWS = 5


@dataclass(frozen=True)
class Change:
    """Changes of one metric over the columns of a table, in per cent; above 0 is worse.

    Attributes:
        median, mean: over the columns that compare; NaN where none does.
        worst: index of the column that changed most for the worse (the first of several); None where none compares.
        worst_percent: its change; NaN where none compares.
        left_out: indices of the columns that do not compare.
        compared: how many do.
    """

    median: float
    mean: float
    worst: int | None
    worst_percent: float
    left_out: tuple[int, ...]
    compared: int


def least(metric: str, scale: float = 1.0) -> float:
    """The smallest error that a change is told from.

    Args:
        metric: ``mse`` or ``mae``, in standard deviations of the column, or ``wql``.
        scale: for ``wql``, what one standard deviation is in its unit; the others do not look at it.
    """
    return {"mse": NEXT_TO_NOTHING**2, "mae": NEXT_TO_NOTHING, "wql": NEXT_TO_NOTHING * scale}[metric]


def percent(before: float, after: float, smallest: float = 0.0) -> float:
    """Change of one error in per cent; NaN where ``before`` is not above ``smallest``, or either is no number."""
    return 100 * (after / before - 1) if before > smallest and math.isfinite(after) else math.nan


def over_columns(changes: Sequence[float]) -> Change:
    """Sum up the changes of columns; NaN for a column that does not compare."""
    known = [index for index, change in enumerate(changes) if not math.isnan(change)]
    left_out = tuple(index for index, change in enumerate(changes) if math.isnan(change))
    if not known:
        return Change(math.nan, math.nan, None, math.nan, left_out, 0)
    values = [changes[index] for index in known]
    worst = max(known, key=lambda index: changes[index])
    return Change(
        float(np.median(values)), float(np.mean(values)), worst, changes[worst], left_out, len(known)
    )
