"""How much worse one model forecasts than another on the same windows, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_RESAMPLES = 400
_LEVEL = 0.9

Errors = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Increase:
    """Increase of the error in per cent.

    Attributes:
        mean: over the columns. upper: bound that it stays below with 90 % confidence (bootstrap over the windows).
    """

    mean: float
    upper: float


def _mean_ratio(errors: Errors, reference: Errors) -> npt.NDArray[np.float64]:
    """Mean over columns of (sum over windows) / (sum of the reference); windows are the last axis, then columns."""
    ratios = np.nansum(errors, axis=-1) / np.nansum(reference, axis=-1)
    mean: npt.NDArray[np.float64] = np.mean(ratios, axis=-1)
    return mean


def increase(errors: Errors, reference: Errors, seed: int = 0) -> Increase:
    """Compare two models on the same windows.

    The ratio is taken per column, so that a column with large errors does not decide alone, and the columns' mean is
    the figure. The bound is the 90th percentile over bootstrap samples of the windows (Efron 1979): windows are drawn
    with replacement, the same ones for all columns (columns of one table are not independent) and for both models.

    Args:
        errors, reference: ``[C, W]``, error of every window; NaN where nothing was observed. Columns in which the
            reference has no error take no part.
        seed: of the bootstrap.

    Returns:
        :class:`Increase`; zero where no column takes part.
    """
    known = np.nansum(reference, axis=1) > 0
    if not known.any():
        return Increase(0.0, 0.0)
    errors, reference = errors[known], reference[known]
    mean = float(_mean_ratio(errors, reference))
    windows = errors.shape[1]
    draws = np.random.default_rng(seed).integers(windows, size=(_RESAMPLES, windows))
    with np.errstate(all="ignore"):
        # [C, R, W] -> [R, C, W]: a sample of every column at once.
        resampled = _mean_ratio(errors[:, draws].transpose(1, 0, 2), reference[:, draws].transpose(1, 0, 2))
    resampled = resampled[np.isfinite(resampled)]
    upper = float(np.quantile(resampled, _LEVEL)) if len(resampled) else mean
    return Increase(100 * (mean - 1), 100 * (max(upper, mean) - 1))
