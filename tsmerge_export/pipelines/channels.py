"""PatchTST and PatchTSMixer: all of the horizon in one run, as points or as a distribution to draw from.

A series goes into all channels of the model, and the first one's forecast counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tsmerge_export.bundle import Bundle
from tsmerge_export.pipelines import distributions
from tsmerge_export.pipelines import inputs as check
from tsmerge_export.pipelines.base import Floats, Forecaster
from tsmerge_export.pipelines.history import Arrays, channelled
from tsmerge_export.pipelines.quantile_models import QuantileForecaster
from tsmerge_export.pipelines.samples import SampleForecaster
from tsmerge_export.progress import Progress
from tsmerge_export.runtimes.onnxruntime import Session

# What a run takes per series, channel and step of context, generously.
_BYTES_PER_STEP = 2048


def forecaster(bundle: Bundle, session: Session, *, memory: int, progress: Progress) -> Forecaster:
    """By what the bundle's model gives: points or the parameters of a distribution."""
    settings = bundle.manifest.get("pipeline")
    sampled = isinstance(settings, dict) and settings.get("distribution") is not None
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

    def _part(self, context: Floats, steps: int) -> Floats:
        return self.session.run(_feed(self.session, context))["prediction_outputs"][:, None, :, 0]


class _Samples(SampleForecaster):
    """Every step drawn from its own distribution, independently of the others, as ``generate`` of transformers."""

    def predict(
        self,
        inputs: Any,
        prediction_length: int | None = None,
        num_samples: int | None = None,
        limit_prediction_length: bool = False,
        *,
        seed: int | None = None,
        first_series: int = 0,
    ) -> Floats:
        """Sample paths ``[B, num_samples, prediction_length]`` float32.

        Args:
            inputs: a series, a 2-D array of series, or a list of series of any lengths; NaN is missing.
            prediction_length: steps, at most the model's own (None). num_samples: the model's own for None.
            limit_prediction_length: without effect: longer horizons are refused.
            seed: the same seed gives the same paths; every series draws from a stream of its own. None: a fresh one.
            first_series: number of the first series in the seed's streams, to split a long call.

        Raises:
            UsageError: inputs or numbers that make no sense, or a longer horizon.
        """
        steps, entropy = self._own_steps(prediction_length), check.seed(seed)
        samples = self._own_samples(num_samples)
        name = distributions.check(self._settings["distribution"])
        context = check.as_batch(inputs, self._context)

        def draw(start: int, stop: int) -> Floats:
            found = self.session.run(_feed(self.session, context[start:stop]))
            values = {key: value[:, None, :steps, 0] for key, value in found.items()}
            loc, scale = values.pop("series_loc"), values.pop("series_scale")
            out = np.empty((stop - start, samples, steps), np.float32)
            for row in range(stop - start):
                stream = np.random.SeedSequence(entropy, spawn_key=(first_series + start + row,))
                given = {key: np.broadcast_to(value[row], (samples, steps)) for key, value in values.items()}
                out[row] = distributions.draw(
                    name, given, loc[row], scale[row], np.random.default_rng(stream)
                )
            return out

        each = _bytes_per_step(self.session) * self._context + 64 * samples * steps
        return self._in_parts(len(context), each, draw)
