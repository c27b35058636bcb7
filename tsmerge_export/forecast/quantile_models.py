"""Forecasters whose model gives quantiles of a whole horizon in one run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from tsmerge_export.backends.components import Session
from tsmerge_export.bundle import Bundle
from tsmerge_export.console.notes import note
from tsmerge_export.console.progress import Progress
from tsmerge_export.errors import UsageError
from tsmerge_export.forecast import inputs as check
from tsmerge_export.forecast.base import LEVELS, Floats, Forecaster


class QuantileForecaster(Forecaster):
    """Quantiles at the levels of the model; a point forecast is one quantile, the median.

    Attributes:
        bytes_per_step: what a run takes per series and step of context, generously.
    """

    forecast_type = "quantiles"
    bytes_per_step = 2048

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
        ratio: Any = None,
    ) -> Floats:
        """Quantiles ``[B, len(quantiles), prediction_length]`` float32.

        Args:
            inputs: a series, a 2-D array of series, or a list of series of any lengths; NaN is missing.
            prediction_length: steps, at most the model's own (None).
            limit_prediction_length: without effect: longer horizons are refused.
            seed: without effect, there is nothing random.
            ratio: of a bundle whose ratio is chosen at run time, the share of the tokens that each merge removes, from
                0 (nothing merges) to 1/2; None is ``.default_ratio``.

        Raises:
            UsageError: inputs or numbers that make no sense, or a longer horizon.
        """
        steps = self._own_steps(prediction_length)
        check.seed(0 if seed is None else seed)
        return np.ascontiguousarray(self.at(ratio)._run(self._rows(inputs), steps)[..., :steps])

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
        found = self.predict(inputs, prediction_length, **predict_kwargs)
        self._tell_beyond(levels)
        return self._at_levels(found, levels), self._points(found)

    def _tell_beyond(self, levels: Sequence[float]) -> None:
        """Note levels outside the model's own."""
        if min(levels) < min(self._levels) or max(levels) > max(self._levels):
            note(
                f"quantile levels beyond {min(self._levels)} to {max(self._levels)}, its own, "
                "get its lowest or highest quantile"
            )

    def _at_levels(self, found: Floats, levels: Sequence[float]) -> Floats:
        """Quantiles ``[B, Q, H]`` at the model's levels -> ``[B, H, len(levels)]`` at those."""
        found = np.moveaxis(found, 1, 2)
        if set(levels) <= set(self._levels):
            return np.ascontiguousarray(found[..., [self._levels.index(level) for level in levels]])
        return np.ascontiguousarray(self._between(found, levels))

    def _points(self, found: Floats) -> Floats:
        """Quantiles ``[B, Q, H]`` -> the median, or the level nearest to it, ``[B, H]``."""
        middle = min(range(len(self._levels)), key=lambda i: abs(self._levels[i] - 0.5))
        return np.ascontiguousarray(found[:, middle])

    def _rows(self, inputs: Any) -> list[Floats]:
        """See :func:`~tsmerge_export.forecast.inputs.as_rows`; UsageError also for values that have no variance.

        These models divide by a standard deviation, for which they add up squares in float32. Where the sum is infinite
        they forecast anything, upstream too; a half is left for what they append to a series themselves.
        """
        rows = check.as_rows(inputs, self._context)
        for index, row in enumerate(rows):
            self._has_variance(row, f"series {index}")
        return rows

    def _has_variance(self, row: Floats, name: str) -> None:
        """UsageError, which begins with ``name``, for values whose variance float32 cannot hold."""
        largest = np.sqrt(np.finfo(np.float32).max / self._context) / 2
        found = np.abs(row[~np.isnan(row)]).max(initial=0)
        if found > largest:
            raise UsageError(
                f"{name} holds {found:.3g}, too large for a variance in float32; divide it by a number, "
                f"to at most {largest:.1g}, and multiply the forecasts"
            )

    def _between(self, found: Floats, levels: Sequence[float]) -> Floats:
        """Quantiles ``[.., Q]`` at the model's levels -> at others, linearly between neighbours."""
        own = np.asarray(self._levels)
        place = np.interp(levels, own, np.arange(len(own)))
        below = np.floor(place).astype(np.int64)
        share = (place - below).astype(np.float32)
        low, high = found[..., below], found[..., np.minimum(below + 1, len(own) - 1)]
        return (low + share * (high - low)).astype(np.float32)

    def _run(self, rows: Sequence[Floats], steps: int, piece: int = 0, pieces: int = 1) -> Floats:
        """R series ``[L]`` -> ``[R, Q, steps or more]``, in parts that fit into the memory budget.

        Args:
            piece, pieces: which part of a longer horizon this is, for the progress.
        """
        rows = self._fitting(rows)
        out, done = np.empty((0,), np.float32), 0
        size = max(1, self._memory // (self.bytes_per_step * self._context))
        with self._working():
            for group in self._together(rows):
                for start in range(0, len(group), size):
                    part = group[start : start + size]
                    found = self.run_once(check.padded([rows[index] for index in part]), steps)
                    if not done:
                        out = np.empty((len(rows), *found.shape[1:]), np.float32)
                    out[part] = found
                    done += len(part)
                    self.progress.update(piece * len(rows) + done, pieces * len(rows))
        return out

    @abstractmethod
    def run_once(self, context: Floats, steps: int) -> Floats:
        """One run: ``[R, L]``, NaN is missing, -> ``[R, Q, steps or more]``."""
