"""Chronos-Bolt: quantiles of a whole horizon in one run; longer horizons autoregressively."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from tsmerge_export.bundle import Bundle
from tsmerge_export.errors import UsageError
from tsmerge_export.pipelines import inputs as check
from tsmerge_export.pipelines.base import LEVELS, Floats, Forecaster, quantile
from tsmerge_export.progress import Progress
from tsmerge_export.runtimes.onnxruntime import Session

# What a run takes per series and step of context, generously: patches of 8 steps or more, a few kB per patch.
_BYTES_PER_STEP = 2048


class ChronosBolt(Forecaster):
    """A bundle of Chronos-Bolt; see :func:`tsmerge_export.pipeline`."""

    forecast_type = "quantiles"

    def __init__(self, bundle: Bundle, session: Session, *, memory: int, progress: Progress) -> None:
        super().__init__(bundle, session, memory=memory, progress=progress)
        try:
            self._levels = [float(level) for level in self._settings["quantiles"]]
        except (KeyError, TypeError, ValueError):
            raise UsageError(
                f"{bundle.path}: its pipeline settings are incomplete; export it again"
            ) from None

    @property
    def quantiles(self) -> list[float]:
        """The quantile levels that the model was trained on."""
        return list(self._levels)

    def predict(
        self,
        inputs: Any,
        prediction_length: int | None = None,
        limit_prediction_length: bool = False,
        *,
        seed: int | None = None,
    ) -> Floats:
        """Quantiles ``[B, len(quantiles), prediction_length]`` float32.

        Beyond the model's own horizon every quantile is taken for a path that goes on; the quantiles of all that
        follows from them are the next piece (chronos-forecasting's rule).

        Args:
            inputs: a series, a 2-D array of series, or a list of series of any lengths; NaN is missing.
            prediction_length: steps; the model's own for None.
            limit_prediction_length: refuse horizons beyond the model's own.
            seed: without effect, there is nothing random.

        Raises:
            UsageError: inputs or numbers that make no sense.
        """
        steps = check.prediction_length(prediction_length, self._horizon, limit_prediction_length)
        check.seed(0 if seed is None else seed)
        context = check.as_batch(inputs, self._context)
        if steps > self._horizon:
            warnings.warn(f"the model was made for {self._horizon} steps; {steps} may be worse")
        batch, levels = len(context), len(self._levels)
        pieces = -(-steps // self._horizon)
        piece = self._run(context, 0, pieces)
        out = [piece]
        paths = np.repeat(context[:, None], levels, axis=1) if pieces > 1 else context
        for index in range(1, pieces):
            paths = np.concatenate([paths, piece], axis=-1)[..., -self._context :]
            many = self._run(paths.reshape(batch * levels, -1), index, pieces)
            piece = np.moveaxis(quantile(many.reshape(batch, levels * levels, -1), self._levels, 1), -1, 1)
            out.append(piece)
        return np.ascontiguousarray(np.concatenate(out, axis=-1)[..., :steps])

    def predict_quantiles(
        self,
        inputs: Any,
        prediction_length: int | None = None,
        quantile_levels: Sequence[float] = LEVELS,
        **predict_kwargs: Any,
    ) -> tuple[Floats, Floats]:
        """See :meth:`Forecaster.predict_quantiles`. Levels between the model's own are interpolated, levels outside get
        its lowest or highest; the point forecast is the median."""
        levels = check.quantile_levels(quantile_levels)
        found = np.moveaxis(self.predict(inputs, prediction_length, **predict_kwargs), 1, 2)
        if set(levels) <= set(self._levels):
            chosen = found[..., [self._levels.index(level) for level in levels]]
        else:
            if min(levels) < min(self._levels) or max(levels) > max(self._levels):
                warnings.warn(
                    f"quantile levels beyond {min(self._levels)} to {max(self._levels)}, its own, "
                    "get its lowest or highest quantile"
                )
            # One more at each end, so that evenly spaced levels 0.1 to 0.9 stand at their ranks from 0 to 1.
            chosen = quantile(np.concatenate([found[..., :1], found, found[..., -1:]], -1), levels, axis=2)
        middle = min(range(len(self._levels)), key=lambda i: abs(self._levels[i] - 0.5))
        return np.ascontiguousarray(chosen), np.ascontiguousarray(found[..., middle])

    def _run(self, context: Floats, piece: int, pieces: int) -> Floats:
        """``[R, L]`` -> ``[R, Q, H]``, in parts that fit into the memory budget."""
        rows = max(1, self._memory // (_BYTES_PER_STEP * self._context))
        out = np.empty((len(context), len(self._levels), self._horizon), np.float32)
        with self._working():
            for start in range(0, len(context), rows):
                out[start : start + rows] = self.session.run({"context": context[start : start + rows]})[
                    "quantiles"
                ]
                self.progress.update(
                    piece * len(context) + min(start + rows, len(context)), pieces * len(context)
                )
        return out
