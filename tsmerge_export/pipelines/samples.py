"""Forecasters whose model draws sample paths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tsmerge_export.pipelines import inputs as check
from tsmerge_export.pipelines.base import LEVELS, Floats, Forecaster, quantile


class SampleForecaster(Forecaster):
    """Quantiles are those of the paths, the point forecast is their mean."""

    forecast_type = "samples"

    def predict_quantiles(
        self,
        inputs: Any,
        prediction_length: int | None = None,
        quantile_levels: Sequence[float] = LEVELS,
        **predict_kwargs: Any,
    ) -> tuple[Floats, Floats]:
        levels = check.quantile_levels(quantile_levels)
        paths = self.predict(inputs, prediction_length=prediction_length, **predict_kwargs)
        return quantile(paths, levels, axis=1), paths.mean(axis=1)

    def _place(self, start: int) -> dict[str, Any]:
        return {"first_series": start}

    def _in_parts(self, series: int, each: int, draw: Callable[[int, int], Floats]) -> Floats:
        """What ``draw(start, stop)`` gives for as many series at a time as fit into memory, ``each`` bytes of one."""
        size = max(1, self._memory // each)
        parts = []
        with self._working():
            for start in range(0, series, size):
                stop = min(start + size, series)
                parts.append(draw(start, stop))
                self.progress.update(stop, series)
        return np.concatenate(parts)
