"""How much worse one model forecasts than another on the same windows, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tsmerge_export.errors import UsageError
from tsmerge_export.verify import change
from tsmerge_export.verify.change import LEAST_WINDOWS

_RESAMPLES = 400
_LEVEL = 0.9

Errors = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Increase:
    """Increase of the error in per cent, see :mod:`tsmerge_export.verify.change`.

    Attributes:
        median: over the columns; NaN where no column compares.
        upper: bound that it stays below with 90 % confidence (bootstrap over the windows); infinite where unknown.
        worst: index of the column with the largest increase; None where no column compares. worst_percent: of it.
    """

    median: float
    upper: float
    worst: int | None = None
    worst_percent: float = math.nan


def columns_that_compare(reference: Errors, smallest: Errors | None = None) -> npt.NDArray[np.bool_]:
    """``[C]``: whether a column's error in the reference is more than next to nothing.

    Args:
        reference: ``[C, W]``. smallest: ``[C]``, an error per window that counts as next to nothing; None is 0.
    """
    seen = (~np.isnan(reference)).sum(axis=1)
    known: npt.NDArray[np.bool_] = np.nansum(reference, axis=1) > (0 if smallest is None else smallest * seen)
    return known


def require_windows(name: str, errors: Errors, smallest: Errors | None = None) -> None:
    """Raises UsageError where the unmerged model's errors ``[C, W]`` leave no column or too few windows."""
    known = columns_that_compare(errors, smallest)
    if not known.any():
        raise UsageError(
            f"--data {name}: the unmerged model's error is next to nothing in every column, so that no increase can be "
            "told in per cent; give harder series"
        )
    seen = int((~np.isnan(errors[known]).all(axis=0)).sum())
    if seen < LEAST_WINDOWS:
        raise UsageError(
            f"--data {name}: only {seen} validation windows have observed values to forecast; a bound of 90 % takes at "
            f"least {LEAST_WINDOWS}"
        )


def _median_ratio(errors: Errors, reference: Errors) -> npt.NDArray[np.float64]:
    """Median over columns of (sum over windows) / (sum of the reference); windows are the last axis, then columns."""
    ratios = np.nansum(errors, axis=-1) / np.nansum(reference, axis=-1)
    median: npt.NDArray[np.float64] = np.median(ratios, axis=-1)
    return median


def increase(errors: Errors, reference: Errors, smallest: Errors | None = None, seed: int = 0) -> Increase:
    """Compare two models on the same windows.

    The ratio is taken per column, and the columns' median is the figure. The bound is the 90th percentile over
    bootstrap samples of the windows (Efron 1979): windows are drawn with replacement, the same ones for all columns
    (columns of one table are not independent) and for both models.

    Args:
        errors, reference: ``[C, W]``, error of every window; NaN where nothing was observed.
        smallest: see :func:`columns_that_compare`; the other columns take no part.
        seed: of the bootstrap.

    Returns:
        :class:`Increase`.
    """
    known = np.flatnonzero(columns_that_compare(reference, smallest))
    if not len(known):
        return Increase(math.nan, math.inf)
    # A forecast that is no number where the target is one: infinitely worse, not unobserved.
    errors = np.where(np.isnan(errors) & ~np.isnan(reference), np.inf, errors)[known]
    reference = reference[known]
    if not np.isfinite(np.nansum(errors)):
        first = int(known[~np.isfinite(np.nansum(errors, axis=1))][0])
        return Increase(math.inf, math.inf, first, math.inf)
    changes = [
        change.percent(float(before), float(after))
        for before, after in zip(np.nansum(reference, axis=1), np.nansum(errors, axis=1), strict=True)
    ]
    found = change.over_columns(changes)
    worst = None if found.worst is None else int(known[found.worst])
    windows = int((~np.isnan(reference).all(axis=0)).sum())
    upper = math.inf
    if windows >= LEAST_WINDOWS:
        resampled = _resampled(errors, reference, seed)
        if len(resampled):
            upper = max(100 * (float(np.quantile(resampled, _LEVEL)) - 1), found.median)
    return Increase(found.median, upper, worst, found.worst_percent)


def spread(
    errors: Errors, reference: Errors, smallest: Errors | None = None, seed: int = 0
) -> tuple[float, float]:
    """The interval that holds the increase of :func:`increase`, per cent, with 90 % confidence: from the 5th to the
    95th percentile of the same bootstrap. NaN where no column compares, or a forecast is no number."""
    known = np.flatnonzero(columns_that_compare(reference, smallest))
    if not len(known):
        return math.nan, math.nan
    resampled = _resampled(errors[known], reference[known], seed)
    if not len(resampled):
        return math.nan, math.nan
    low, high = np.quantile(resampled, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return 100 * (float(low) - 1), 100 * (float(high) - 1)


def _resampled(errors: Errors, reference: Errors, seed: int) -> Errors:
    """Median ratios of bootstrap samples of the windows; those that are numbers."""
    draws = np.random.default_rng(seed).integers(errors.shape[1], size=(_RESAMPLES, errors.shape[1]))
    with np.errstate(all="ignore"):
        # [C, R, W] -> [R, C, W]: a sample of every column at once.
        ratios = _median_ratio(errors[:, draws].transpose(1, 0, 2), reference[:, draws].transpose(1, 0, 2))
    return ratios[np.isfinite(ratios)]
