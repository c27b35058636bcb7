"""Forecasters whose model draws sample paths."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tsmerge_export.errors import UsageError
from tsmerge_export.forecast import inputs as check
from tsmerge_export.forecast.base import LEVELS, Floats, Forecaster, quantile


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


class HorizonSamples(SampleForecaster):
    """Sample paths of a model that does not go on behind its own horizon, and may know features of the series."""

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
        ratio: Any = None,
    ) -> Floats:
        """Sample paths ``[B, num_samples, prediction_length]`` float32.

        Args:
            inputs: a series, a 2-D array of series, or a list of series of any lengths; NaN is missing.
            prediction_length: steps, at most the model's own (None). num_samples: the model's own for None.
            limit_prediction_length: without effect: longer horizons are refused.
            seed: the same seed gives the same paths; every series draws from a stream of its own. None: a fresh one.
            first_series: number of the first series in the seed's streams, to split a long call.
            features: what the model knows besides, a row for each series, see the family's forecaster.
            ratio: of a bundle whose ratio is chosen at run time, the share of the tokens that each merge removes, from
                0 (nothing merges) to 1/2; None is ``.default_ratio``.

        Raises:
            UsageError: inputs, features or numbers that make no sense, or a longer horizon.
        """
        steps, entropy = self._own_steps(prediction_length), check.seed(seed)
        samples = self._own_samples(num_samples)
        context, model = check.as_batch(inputs, self._context), self.at(ratio)
        known = self._arrays(features, len(context))

        def draw(start: int, stop: int) -> Floats:
            part = {name: value[start:stop] for name, value in known.items()}
            return model._draw(context[start:stop], part, samples, steps, entropy, first_series + start)

        return self._in_parts(len(context), self._bytes_per_series(samples, steps), draw)

    def _arrays(self, features: Mapping[str, Any] | None, series: int) -> dict[str, Any]:
        """The given features as arrays of the dtypes and shapes that the model takes."""
        known, out = self._known_features(), {}
        for name, value in (features or {}).items():
            if name not in known:
                raise UsageError(f"features: {name!r} is none of {', '.join(known) or 'this model (none)'}")
            dtype, dims = known[name]
            if np.ma.is_masked(value):
                raise UsageError(f"features: {name} has masked values; fill them")
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

    def _known_features(self) -> dict[str, tuple[str, tuple[Any, ...]]]:
        """Features that :meth:`predict` takes: dtype and dims behind the series."""
        return {}

    @abstractmethod
    def _bytes_per_series(self, samples: int, steps: int) -> int:
        """What one series takes, about."""

    @abstractmethod
    def _draw(
        self, context: Floats, features: dict[str, Any], samples: int, steps: int, seed: int, first: int
    ) -> Floats:
        """Paths ``[R, samples, steps]`` of series ``[R, L]``; the first of them has number ``first`` in the streams."""
