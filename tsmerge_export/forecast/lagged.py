"""Time Series Transformer, Informer and Autoformer: sample paths; the encoder once per series, the decoder step by
step or, in Autoformer, once."""

from __future__ import annotations

from typing import Any

from tsmerge_export.backends.components import Session
from tsmerge_export.bundle import Bundle
from tsmerge_export.console.progress import Progress
from tsmerge_export.errors import UsageError
from tsmerge_export.forecast import lagged_decoder
from tsmerge_export.forecast.base import Floats
from tsmerge_export.forecast.lagged_decoder import FUTURE
from tsmerge_export.forecast.samples import HorizonSamples


class Lagged(HorizonSamples):
    """A bundle of a family over lagged values; see :func:`tsmerge_export.pipeline`.

    A series goes into all channels of the model, and the first one's forecast counts. ``features`` of :meth:`predict`
    have transformers' names: ``past_time_features [B, model_context_length, F]``, ``future_time_features
    [B, horizon, F]`` (the model's whole horizon), ``static_categorical_features``, ``static_real_features``. What is
    left out is made up: waves of 24 steps for a calendar, category 0, the number 0.
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

    def _draw(
        self, context: Floats, features: dict[str, Any], samples: int, steps: int, seed: int, first: int
    ) -> Floats:
        times = features.pop(FUTURE, None)
        encoder, decoder = self.session["encoder"], self.session["decoder"]
        feed = lagged_decoder.encoder_inputs(encoder.inputs, context, features=features)
        return lagged_decoder.sample_paths(
            self._settings, feed, encoder.run(feed), decoder.run, samples=samples, steps=steps, seed=seed,
            first=first, times=times,
        )  # fmt: skip

    def _known_features(self) -> dict[str, tuple[str, tuple[Any, ...]]]:
        known: dict[str, tuple[str, tuple[Any, ...]]] = {
            spec.name: (spec.dtype, tuple(spec.dims[1:]))
            for spec in self.session["encoder"].inputs
            if not spec.name.startswith(("past_values", "past_observed"))
        }
        if "past_time_features" in known:
            dtype, dims = known["past_time_features"]
            known[FUTURE] = (dtype, (self._horizon, *dims[1:]))
        return known

    def _bytes_per_series(self, samples: int, steps: int) -> int:
        """What one series takes, about: an encoder layer's scores, and the last step of the decoder."""
        dims = {info.name: info.dims for info in self.session["decoder"].inputs}
        width, tokens = int(dims["last_hidden_state"][-1]), self._context
        features = int(dims["features"][-1]) if "features" in dims else 0  # none where it runs once
        decoder = samples * self._horizon * (8 * width + 2 * features + 4 * tokens)
        return 4 * max(8 * tokens * tokens + 8 * tokens * width, decoder)
