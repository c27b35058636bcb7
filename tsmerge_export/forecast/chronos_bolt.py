"""Chronos-Bolt: quantiles of a whole horizon in one run; longer horizons autoregressively."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tsmerge_export.console.notes import note
from tsmerge_export.forecast import inputs as check
from tsmerge_export.forecast.base import Floats, quantile
from tsmerge_export.forecast.quantile_models import QuantileForecaster


class ChronosBolt(QuantileForecaster):
    """A bundle of Chronos-Bolt; see :func:`tsmerge_export.pipeline`."""

    def predict(
        self,
        inputs: Any,
        prediction_length: int | None = None,
        limit_prediction_length: bool = False,
        *,
        seed: int | None = None,
        ratio: Any = None,
    ) -> Floats:
        """Quantiles ``[B, len(quantiles), prediction_length]`` float32.

        Beyond the model's own horizon every quantile is taken for a path that goes on; the quantiles of all that
        follows from them are the next piece (chronos-forecasting's rule).

        Args:
            inputs: a series, a 2-D array of series, or a list of series of any lengths; NaN is missing.
            prediction_length: steps; the model's own for None.
            limit_prediction_length: refuse horizons beyond the model's own.
            seed: without effect, there is nothing random.
            ratio: of a bundle whose ratio is chosen at run time, the share of the tokens that each merge removes, from
                0 (nothing merges) to 1/2; None is ``.default_ratio``.

        Raises:
            UsageError: inputs or numbers that make no sense.
        """
        steps = check.prediction_length(prediction_length, self._horizon, limit_prediction_length)
        check.seed(0 if seed is None else seed)
        rows, run = self._rows(inputs), self.at(ratio)._run
        if steps > self._horizon:
            note(f"the model was made for {self._horizon} steps; {steps} may be worse")
        batch, levels = len(rows), len(self._levels)
        pieces = -(-steps // self._horizon)
        piece = run(rows, self._horizon, 0, pieces)
        out = [piece]
        paths = [row for row in rows for _ in range(levels)]
        for index in range(1, pieces):
            # Each grows from its own length: which of them pad alike may change from piece to piece.
            paths = [
                np.concatenate([path, more])[-self._context :]
                for path, more in zip(paths, piece.reshape(batch * levels, -1), strict=True)
            ]
            many = run(paths, self._horizon, index, pieces)
            piece = np.moveaxis(quantile(many.reshape(batch, levels * levels, -1), self._levels, 1), -1, 1)
            out.append(piece)
        return np.ascontiguousarray(np.concatenate(out, axis=-1)[..., :steps])

    def _between(self, found: Floats, levels: Sequence[float]) -> Floats:
        # One more at each end, so that evenly spaced levels 0.1 to 0.9 stand at their ranks from 0 to 1.
        return quantile(np.concatenate([found[..., :1], found, found[..., -1:]], -1), levels, axis=2)

    def run_once(self, context: Floats, steps: int) -> Floats:
        return self.session.run({"context": context})["quantiles"]
