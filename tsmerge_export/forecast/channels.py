"""PatchTST and PatchTSMixer: all of the horizon in one run, as points or as a distribution to draw from.

A series goes into all channels of the model, and the first one's forecast counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tsmerge_export.backends.components import Session
from tsmerge_export.bundle import Bundle
from tsmerge_export.console.progress import Progress
from tsmerge_export.forecast import distributions
from tsmerge_export.forecast.base import Floats, Forecaster
from tsmerge_export.forecast.history import Arrays, channelled
from tsmerge_export.forecast.quantile_models import QuantileForecaster
from tsmerge_export.forecast.samples import HorizonSamples

# What a run takes per series, channel and step of context, generously.
_BYTES_PER_STEP = 2048


def forecaster(bundle: Bundle, session: Session, *, memory: int, progress: Progress) -> Forecaster:
    """By what the bundle's model gives: points or the parameters of a distribution."""
    sampled = (bundle.contents.pipeline or {}).get("distribution") is not None
    make = _Samples if sampled else _Points
    return make(bundle, session, memory=memory, progress=progress)


def _feed(session: Session, series: Floats) -> Arrays:
    values, mask = session.inputs
    _, context, channels = values.dims
    found = channelled(series, int(context), int(channels), spread=False)
    return {values.name: found["past_values"], mask.name: found["past_observed_mask"]}


def _bytes_per_step(session: Session) -> int:
    return _BYTES_PER_STEP * int(session.inputs[0].dims[-1])


class _Points(QuantileForecaster):
    """One quantile, the median."""

    def __init__(self, bundle: Bundle, session: Session, *, memory: int, progress: Progress) -> None:
        super().__init__(bundle, session, memory=memory, progress=progress)
        self.bytes_per_step = _bytes_per_step(session)

    def _seen(self, length: int) -> int:
        return self._context  # whatever a series has

    def run_once(self, context: Floats, steps: int) -> Floats:
        return self.session.run(_feed(self.session, context))["prediction_outputs"][:, None, :, 0]


class _Samples(HorizonSamples):
    """Every step drawn from its own distribution, independently of the others, as ``generate`` of transformers."""

    def _draw(
        self, context: Floats, features: dict[str, Any], samples: int, steps: int, seed: int, first: int
    ) -> Floats:
        name = distributions.check(self._settings["distribution"])
        found = self.session.run(_feed(self.session, context))
        values = {key: value[:, None, :steps, 0] for key, value in found.items()}
        loc, scale = values.pop("series_loc"), values.pop("series_scale")
        out = np.empty((len(context), samples, steps), np.float32)
        for row in range(len(context)):
            stream = np.random.SeedSequence(seed, spawn_key=(first + row,))
            given = {key: np.broadcast_to(value[row], (samples, steps)) for key, value in values.items()}
            out[row] = distributions.draw(name, given, loc[row], scale[row], np.random.default_rng(stream))
        return out

    def _bytes_per_series(self, samples: int, steps: int) -> int:
        return _bytes_per_step(self.session) * self._context + 64 * samples * steps
