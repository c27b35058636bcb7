"""What transformers' PatchTST and PatchTSMixer have in common: all channels of a window in, all of the horizon out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tsmerge_export.families.base import Arrays, Component, TensorSpec
from tsmerge_export.families.hf import TransformersFamily
from tsmerge_export.families.objective import Batch, ByComponent, Objective, Predicted, Series
from tsmerge_export.forecast import distributions
from tsmerge_export.forecast.history import channelled

#: Of every such model, for its card.
COMPONENT = (
    "model",
    "past values and mask -> `prediction_outputs`, or with a distribution head its parameters, `series_loc` and "
    "`series_scale`",
)


def parameters(model: Any) -> tuple[str, ...]:
    """Names of the parameters of the model's distribution head; none for a point forecast."""
    return () if model.distribution_output is None else tuple(model.distribution_output.args_dim)


class ChannelModel(Component):
    """The whole model. ``module`` is left to the family.

    Args:
        mask: name of the model's argument for observed values.
        predicted: channels that are forecast.
    """

    name = "model"

    def __init__(self, model: Any, mask: str, predicted: int | None = None) -> None:
        config = model.config
        history = ("batch", int(config.context_length), int(config.num_input_channels))
        self.mask, self._parameters = mask, parameters(model)
        self.inputs = tuple(TensorSpec(name, "float32", history) for name in ("past_values", mask))
        future = ("batch", int(config.prediction_length), predicted or int(config.num_input_channels))
        if self._parameters:
            self.outputs = (
                *(TensorSpec(name, "float32", future) for name in self._parameters),
                TensorSpec("series_loc", "float32", (future[0], 1, future[2])),
                TensorSpec("series_scale", "float32", (future[0], 1, future[2])),
            )
        else:
            self.outputs = (TensorSpec("prediction_outputs", "float32", future),)

    def eager(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :meth:`Component.eager`."""
        result = model(**inputs)
        if not self._parameters:
            return {"prediction_outputs": result.prediction_outputs}
        out = dict(zip(self._parameters, result.prediction_outputs, strict=True))
        return out | {"series_loc": result.loc, "series_scale": result.scale}

    def feed(self, model: Any, series: NDArray[np.float32], *, spread: bool) -> Arrays:
        """Series ``[B, L]`` as inputs, see :func:`~tsmerge_export.forecast.history.channelled`."""
        config = model.config
        found = channelled(series, config.context_length, config.num_input_channels, spread=spread)
        return {"past_values": found["past_values"], self.mask: found["past_observed_mask"]}

    def from_series(self, model: Any, series: NDArray[np.float32]) -> Arrays:
        """See :meth:`Component.from_series`."""
        return self.feed(model, series, spread=True)


class _Channels(ByComponent):
    """Points, or the parameters of a distribution; all channels read one series and forecast it."""

    any_length = False

    def __init__(self, component: ChannelModel, model: Any, horizon: int) -> None:
        super().__init__(component, horizon)
        self._names = parameters(model)
        self.kind = "distribution" if self._names else "points"
        self._distribution = str(model.config.distribution_output) if self._names else None

    def feed(
        self, model: Any, context: Series, future: Series
    ) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
        component: Any = self.component
        return component.feed(model, context, spread=False), future

    def outputs(self, model: Any, batch: Batch) -> Predicted:
        found = self.component.eager(model, batch.inputs)
        if not self._names:
            return Predicted("points", {"points": found["prediction_outputs"]}, batch.unit)
        return Predicted("distribution", found, batch.unit, distribution=self._distribution)


class ChannelFamily(TransformersFamily):
    """One component, a :class:`ChannelModel`."""

    def objective(self, model: Any) -> Objective:
        """See :meth:`Family.objective`."""
        component: Any = self.components(model)[0]
        return _Channels(component, model, self.horizon(model))

    def horizon(self, model: Any) -> int:
        """See :meth:`Family.horizon`."""
        return int(model.config.prediction_length)

    def context(self, model: Any) -> int:
        """See :meth:`Family.context`."""
        return int(model.config.context_length)

    def pipeline(self, model: Any) -> dict[str, Any]:
        """See :meth:`Family.pipeline`; ``distribution`` is None for points."""
        config = model.config
        name = None if model.distribution_output is None else config.distribution_output
        return super().pipeline(model) | {
            "quantiles": list(self.quantile_levels(model)),
            "distribution": name,
            "num_samples": int(config.num_parallel_samples),
        }

    def forecast(
        self, model: Any, run: Callable[[Arrays], Arrays], series: NDArray[np.float32], seed: int = 0
    ) -> NDArray[np.float32]:
        """See :meth:`Family.forecast`: every channel reads the series, the first one's forecast counts."""
        component: Any = self.components(model)[0]
        found = run(component.feed(model, series, spread=False))
        names = parameters(model)
        if not names:
            return found["prediction_outputs"][:, None, :, 0]
        loc, scale = found["series_loc"], found["series_scale"]
        values = {name: found[name] for name in names}
        return distributions.mean(model.config.distribution_output, values, loc, scale)[:, None, :, 0]
