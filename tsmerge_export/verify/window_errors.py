"""Forecasts of rolling windows, and their errors window by window: what files are compared by on the same windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from tsmerge_export.families.base import Arrays, Family, Forecast, Run
from tsmerge_export.verify import change, metrics
from tsmerge_export.verify.data import Windows
from tsmerge_export.verify.quality import Errors

METRICS = ("mse", "mae", "wql")
_CHUNK = 32  # series per forward, to bound memory


@dataclass(frozen=True)
class Forecasts:
    """Forecasts by what runs a model.

    Attributes:
        family, model: for what of a forecast no file does. run: as in ``Family.forecast``.
        seed: for families that sample.
        forecast: instead of ``family.forecast``, see :func:`~tsmerge_export.verify.decoded.decoded_by`.
    """

    family: Family
    model: nn.Module
    run: Run
    seed: int = 0
    forecast: Forecast | None = None

    def of_column(self, cut: Windows, column: int) -> npt.NDArray[np.float32]:
        """``[W, Q, H]``: the quantiles forecast for the windows of one column."""
        series = cut.context[column]
        return np.concatenate([self._of(series[i : i + _CHUNK]) for i in range(0, len(series), _CHUNK)])

    def quantiles(self, cut: Windows) -> npt.NDArray[np.float32]:
        """``[C, W, Q, H]``: those of all columns."""
        return np.stack([self.of_column(cut, column) for column in range(len(cut.columns))])

    def errors(self, cut: Windows, told: Callable[[int], None] | None = None) -> dict[str, Errors]:
        """By metric ``[C, W]``, see :func:`window_errors`. ``told`` is called with the number of columns done."""
        columns = []
        for column in range(len(cut.columns)):
            columns.append(self.of_column(cut, column))
            if told is not None:
                told(column + 1)
        return window_errors(np.stack(columns), self.family.quantile_levels(self.model), cut)

    def _of(self, series: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if self.forecast is not None:
            return self.forecast(self.run, series, self.seed)
        return self.family.forecast(self.model, self.run, series, self.seed)


def window_errors(
    quantiles: npt.NDArray[np.float32], levels: Sequence[float], cut: Windows
) -> dict[str, Errors]:
    """Errors of forecasts ``[C, W, Q, H]``, window by window.

    Returns:
        ``mse``, ``mae`` and ``wql``, each ``[C, W]``: the MSE of the median forecast in standard deviations squared,
        its MAE in standard deviations, and the pinball loss summed over steps, mean over the levels, in the unit of the
        data (the numerator of the weighted quantile loss: in a ratio of two losses the denominator cancels). NaN where
        a window has no observed target.
    """
    columns = [_of_column(own, levels, cut, column) for column, own in enumerate(quantiles)]
    return {name: np.stack([column[name] for column in columns]) for name in METRICS}


def _of_column(
    quantiles: npt.NDArray[np.float32], levels: Sequence[float], cut: Windows, column: int
) -> dict[str, Errors]:
    median = median_of(quantiles, levels)
    target = cut.target[column]
    found: dict[str, list[float]] = {name: [] for name in METRICS}
    for w in range(len(target)):
        observed = not np.isnan(target[w]).all()
        scaled = [
            (x[w] - cut.mean[column]) / cut.deviation[column] for x in (median.astype(np.float64), target)
        ]
        losses = [metrics.pinball(quantiles[w, i], target[w], q) for i, q in enumerate(levels)]
        found["mse"].append(metrics.mse(*scaled))
        found["mae"].append(metrics.mae(*scaled))
        found["wql"].append(float(np.mean(losses)) if observed else float("nan"))
    return {name: np.asarray(values) for name, values in found.items()}


def next_to_nothing(metric: str, cut: Windows) -> Errors:
    """``[C]``: an error of a window, a metric of :func:`window_errors`, that counts as next to nothing."""
    if metric != "wql":
        return np.full(len(cut.columns), change.least(metric))
    # A window's pinball losses are half of what the WQL sums up, over all of its steps.
    return change.least("mae") * cut.deviation * cut.target.shape[-1] / 2


def run_named(session: Any, names: Sequence[str], inputs: Arrays) -> Arrays:
    """Outputs by name of an ONNX Runtime session."""
    return dict(zip(names, session.run(list(names), inputs), strict=True))


def stream(window: int) -> int:
    """The number of a column's window in the seed's streams."""
    return window % _CHUNK


def median_of(quantiles: npt.NDArray[np.float32], levels: Sequence[float]) -> npt.NDArray[np.float32]:
    """``[W, H]``; a model without the level 0.5 has two nearest ones: their mean."""
    off = np.abs(np.asarray(levels) - 0.5)
    median: npt.NDArray[np.float32] = quantiles[:, np.isclose(off, off.min())].mean(axis=1)
    return median
