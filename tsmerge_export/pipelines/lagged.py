"""Time Series Transformer and Informer: sample paths; the encoder once per series, the decoder step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tsmerge_export.bundle import Bundle
from tsmerge_export.errors import UsageError
from tsmerge_export.pipelines import inputs as check
from tsmerge_export.pipelines import lagged_decoder
from tsmerge_export.pipelines.base import Floats
from tsmerge_export.pipelines.samples import SampleForecaster
from tsmerge_export.progress import Progress
from tsmerge_export.runtimes.onnxruntime import Session

_FUTURE = "future_time_features"


class Lagged(SampleForecaster):
    """A bundle of a family over lagged values; see :func:`tsmerge_export.pipeline`.

    A series goes into all channels of the model, and the first one's forecast counts.
    """

    def __init__(self, bundle: Bundle, session: Session, *, memory: int, progress: Progress) -> None:
        super().__init__(bundle, session, memory=memory, progress=progress)
        missing = [name for name in ("encoder", "decoder") if name not in session.components]
        if missing:
            raise UsageError(
                f"{bundle.path}: has no component {missing[0]!r}; export it again with this version"
            )
        if not {"lags_sequence", "time_features", "distribution", "num_samples"} <= set(self._settings):
            raise UsageError(f"{bundle.path}: its pipeline settings are incomplete; export it again")

    def predict(
        self,
        inputs: Any,
        prediction_length: int | None = None,
        num_samples: int | None = None,
        limit_prediction_length: bool = False,
        *,
        seed: int | None = None,
        first_series: int = 0,
        features: Mapping[str, Any] | None = None,
    ) -> Floats:
        """Sample paths ``[B, num_samples, prediction_length]`` float32.

        Args:
            inputs: a series, a 2-D array of series, or a list of series of any lengths; NaN is missing.
            prediction_length: steps, at most the model's own (None). num_samples: the model's own for None.
            limit_prediction_length: without effect: longer horizons are refused.
            seed: the same seed gives the same paths; every series draws from a stream of its own. None: a fresh one.
            first_series: number of the first series in the seed's streams, to split a long call.
            features: what the model knows besides, a row for each series, by transformers' names:
                ``past_time_features [B, model_context_length, F]``, ``future_time_features [B, horizon, F]`` (the
                model's whole horizon), ``static_categorical_features``, ``static_real_features``. What is left out is
                made up: waves of 24 steps for a calendar, category 0, the number 0.

        Raises:
            UsageError: inputs, features or numbers that make no sense, or a longer horizon.
        """
        steps, seed = self._own_steps(prediction_length), check.seed(seed)
        samples = self._own_samples(num_samples)
        context = check.as_batch(inputs, self._context)
        known = self._features(features, len(context))
        encoder, decoder = self.session["encoder"], self.session["decoder"]

        def draw(start: int, stop: int) -> Floats:
            given = {name: value[start:stop] for name, value in known.items()}
            times = given.pop(_FUTURE, None)
            feed = lagged_decoder.encoder_inputs(encoder.inputs, context[start:stop], features=given)
            return lagged_decoder.sample_paths(
                self._settings, feed, encoder.run(feed), decoder.run, samples=samples, steps=steps, seed=seed,
                first=first_series + start, times=times,
            )  # fmt: skip

        return self._in_parts(len(context), self._bytes_per_series(samples), draw)

    def _features(self, features: Mapping[str, Any] | None, series: int) -> dict[str, Any]:
        """The given ones as arrays of the dtypes and shapes that the model takes."""
        known = {
            spec.name: (spec.dtype, spec.dims[1:])
            for spec in self.session["encoder"].inputs
            if not spec.name.startswith(("past_values", "past_observed"))
        }
        if "past_time_features" in known:
            dtype, dims = known["past_time_features"]
            known[_FUTURE] = (dtype, (self._horizon, *dims[1:]))
        out = {}
        for name, value in (features or {}).items():
            if name not in known:
                raise UsageError(f"features: {name!r} is none of {', '.join(known) or 'this model (none)'}")
            dtype, dims = known[name]
            try:
                array = np.asarray(value).astype(dtype)
            except (TypeError, ValueError):
                raise UsageError(f"features: {name} is not numeric") from None
            if array.shape != (series, *dims):
                raise UsageError(
                    f"features: {name} has shape {list(array.shape)}, expected {[series, *dims]}"
                )
            out[name] = array
        return out

    def _bytes_per_series(self, samples: int) -> int:
        """What one series takes, about: an encoder layer's scores, and the last step of the decoder."""
        features, states, _ = self.session["decoder"].inputs
        width, tokens = int(states.dims[-1]), self._context
        decoder = samples * self._horizon * (8 * width + 2 * int(features.dims[-1]) + 4 * tokens)
        return 4 * max(8 * tokens * tokens + 8 * tokens * width, decoder)
