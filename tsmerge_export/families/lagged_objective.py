"""How models over lagged values are trained: the distribution of every step, given the true ones before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tsmerge_export.families.lagged_decoder import LaggedGeneration
from tsmerge_export.families.objective import Batch, Objective, Predicted, Series
from tsmerge_export.forecast.lagged_decoder import PREFIX


class EveryStep(Objective):
    """Parameters of the distribution of every future step under teacher forcing; all channels read one series.

    Args:
        distribution: its name in transformers.
    """

    kind = "distribution"
    any_length = False

    def __init__(self, generation: LaggedGeneration, encoder: Any, horizon: int, distribution: str) -> None:
        self._generation, self._encoder, self.horizon = generation, encoder, horizon
        self._distribution = distribution

    def feed(
        self, model: Any, context: Series, future: Series
    ) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
        """The decoder is given the last known value in the place of a missing one."""
        inputs: dict[str, NDArray[Any]] = self._encoder.feed(context, spread=False)
        past = inputs["past_values"]
        last = past[:, -1].reshape(len(past), -1)[:, :1]
        known = np.concatenate([last, np.asarray(future, np.float32)], axis=1)
        steps = np.arange(known.shape[1])
        seen = np.maximum.accumulate(np.where(np.isnan(known), 0, steps), axis=1)
        given = np.take_along_axis(known, seen, axis=1)[:, 1:]
        if past.ndim == 3:
            given = np.repeat(given[..., None], past.shape[2], axis=2)
        return inputs | {"future_values": given}, future

    def outputs(self, model: Any, batch: Batch) -> Predicted:
        found, loc, scale = self._generation.predict(model, batch.inputs)
        named = {name.removeprefix(PREFIX): value for name, value in found.items()}
        series = {"series_loc": loc, "series_scale": scale}
        rows = len(batch.unit)  # loc and scale are [B], [B, 1], [B, C] or [B, 1, C], by the scaler
        flat = {name: torch.reshape(value, (rows, 1, -1)) for name, value in series.items()}
        return Predicted(self.kind, named | flat, batch.unit, distribution=self._distribution)
