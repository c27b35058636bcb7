"""TimesFM: padded series, and what is done around a pass of the model (numpy; the families forecast by it too)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsmerge_export.forecast.base import Floats
from tsmerge_export.forecast.history import filled
from tsmerge_export.forecast.quantile_models import QuantileForecaster

Arrays = dict[str, NDArray[Any]]


def quantiles(run: Callable[[Arrays], Arrays], settings: Mapping[str, Any], series: Floats) -> Floats:
    """Quantiles ``[B, Q, H]`` of series ``[B, L]``, NaN is missing.

    With flip invariance (the mean of the forecast and that of the negated series, negated) and forecasts of series that
    are nowhere negative cut at 0, where the settings ask for them.

    Args:
        run: runs the model. settings: of the family's pipeline; ``freq`` is there where the model has such an input.
    """
    context, padding = filled(series)
    feed: Arrays = {"context": context, "padding": padding}
    if "freq" in settings:
        feed["freq"] = np.full(len(series), settings["freq"], np.int64)
    if settings.get("flip_invariance"):
        both = {name: np.concatenate([value, value]) for name, value in feed.items()}
        both["context"][len(series) :] *= -1
        straight, flipped = np.split(run(both)["predictions"][..., 1:], 2)
        found = (straight - flipped[..., ::-1]) / 2
    else:
        found = run(feed)["predictions"][..., 1:]
    if settings.get("keep_positive"):
        least = context[:, -int(settings["context_length"]) :].min(1)[:, None, None]
        found = np.where(least >= 0, np.maximum(found, 0), found)
    return np.ascontiguousarray(found.transpose(0, 2, 1), np.float32)


class TimesFm(QuantileForecaster):
    """A bundle of TimesFM, any version; see :func:`tsmerge_export.pipeline`."""

    def run_once(self, context: Floats, steps: int) -> Floats:
        return quantiles(self.session.run, self._settings, context)
