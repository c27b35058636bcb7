"""The decoder of Autoformer as a graph: all steps at once, from the end of the context and the encoder's states."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tsmerge_export.families.autoformer_modules import rewrite_modules
from tsmerge_export.families.base import Arrays, Component, TensorSpec
from tsmerge_export.families.hf import LastAxis, ReplacedForward, detached_twin
from tsmerge_export.families.lagged_decoder import InARow, LaggedDecoder, by_name, places
from tsmerge_export.forecast.lagged_decoder import FUTURE, PREFIX, at_once

_PAST = "past_time_features"


class _ExportModule(nn.Module):
    """Its inputs as ``generate`` makes them, and the decoder without the mask that the original makes of none."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.core, self.names, self.config = model.model, names, model.config
        self.projections = model.parameter_projection.proj
        self.domain = LastAxis(model.parameter_projection.domain_map)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The inputs of :class:`AtOnceDecoder` in order -> parameters, each ``[B, T, C]``."""
        given = dict(zip(self.names, tensors, strict=True))
        decoder, context = self.core.decoder, int(self.config.context_length)
        first, steps = context - int(self.config.label_length), int(self.config.prediction_length)
        scaled = (given["past_values"] - given["loc"]) / given["scale"]
        lagged = self.core.get_lagged_subsequences(scaled, context).flatten(
            2
        )  # an axis of channels may be there
        seasonal, trend = (part[:, first:] for part in self.core.decomposition_layer(lagged))
        level = lagged.mean(1, keepdim=True).expand(-1, steps, -1)
        known = given["static_features"][:, None].expand(-1, context - first + steps, -1)
        if FUTURE in given:
            past = given[_PAST]
            times = torch.cat([past[:, past.shape[1] - context + first :], given[FUTURE]], 1)
            known = torch.cat([known, times], -1)
        x = torch.cat([torch.cat([seasonal, torch.zeros_like(level)], 1), known], -1)
        trend = torch.cat([torch.cat([trend, level], 1), known], -1)
        x = decoder.value_embedding(x) + places(decoder.embed_positions, first, context - first + steps)
        x = decoder.layernorm_embedding(x)
        for layer in decoder.layers:
            found = layer(x, encoder_hidden_states=given["last_hidden_state"], use_cache=False)
            x, update = found[0] if isinstance(found[0], tuple) else found[:2]  # a pair of its own up to 5.3
            trend = trend + update
        ahead = (decoder.seasonality_projection(x) + trend)[:, context - first :]
        parameters: tuple[Tensor, ...] = self.domain(*(projection(ahead) for projection in self.projections))
        return parameters


class AtOnceDecoder(LaggedDecoder):
    """What the encoder reads and gives, and time features of the horizon -> the distribution of every step's value, a
    parameter each ``[B, T, C]``.

    Args:
        encoder: whose inputs and outputs these are. times: features of every time step.
        context: inside it the original computes each series alone.
    """

    def __init__(self, model: Any, encoder: Component, times: int, context: Callable[[], Any]) -> None:
        self._context = context
        config = model.config
        given = {spec.name: spec for spec in (*encoder.inputs, *encoder.outputs)}
        states = TensorSpec(
            "last_hidden_state", "float32", ("batch", int(config.context_length), int(config.d_model))
        )
        horizon = ("batch", int(config.prediction_length))
        future = [TensorSpec(FUTURE, "float32", (*horizon, times))] if times else []
        self.inputs = (
            *(given[name] for name in ("past_values", _PAST) if name in given),
            *future,
            states,
            *(given[name] for name in ("loc", "scale", "static_features")),
        )
        self.outputs = tuple(
            TensorSpec(PREFIX + name, "float32", (*horizon, int(config.input_size)))
            for name in model.distribution_output.args_dim
        )

    def module(self, model: Any) -> nn.Module:
        twin = detached_twin(model)
        rewrite_modules(twin)
        return _ExportModule(twin, [spec.name for spec in self.inputs])

    def eager(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``generate`` behind an encoder whose outputs are given."""
        encoded = SimpleNamespace(
            encoder_last_hidden_state=inputs["last_hidden_state"],
            **{name: inputs[name] for name in ("loc", "scale", "static_features")},
        )
        replaced = ReplacedForward(model, lambda **_: encoded)
        given = {name: inputs[name] for name in ("past_values", _PAST, FUTURE) if name in inputs}
        try:
            with self._context():
                return generated(model, given)
        finally:
            replaced.remove()

    def from_series(self, model: Any, series: NDArray[np.float32]) -> Arrays:
        return self.example(model, *series.shape)

    def example(self, model: Any, batch: int, length: int, seed: int = 0) -> Arrays:
        """Random values, features and encoder outputs; all lengths are the config's."""
        rng = np.random.default_rng(seed)
        out: Arrays = {
            spec.name: rng.standard_normal([batch if dim == "batch" else int(dim) for dim in spec.dims])
            .astype(np.float32)
            for spec in self.inputs
        }  # fmt: skip
        return out | {"scale": np.abs(out["scale"]) + 1}


def generated(model: Any, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters of the distribution that ``generate`` of the original draws from, by output name ``[B, T, C]``.

    Args:
        given: arguments of ``generate``; time features that the model has none of may be left out.
    """
    found: list[Tensor] = []

    def keep(parameters: Sequence[Tensor], **_: Any) -> Any:
        found.extend(parameters)
        return SimpleNamespace(sample=lambda: parameters[0])

    values, steps = given["past_values"], int(model.config.prediction_length)
    times = {
        name: given.get(name, values.new_zeros(len(values), count, 0))
        for name, count in ((_PAST, values.shape[1]), (FUTURE, steps))
    }
    with ExitStack() as stack:
        stack.enter_context(patch.object(model, "output_distribution", keep))
        stack.enter_context(patch.object(model.config, "num_parallel_samples", 1))
        model.generate(**{**given, **times})
    return by_name(model, found)


class AtOnceGeneration(InARow):
    """Nothing is given instead of draws: the decoder is told of none."""

    def __init__(
        self, model: Any, encoder: Any, settings: Mapping[str, Any], context: Callable[[], Any]
    ) -> None:
        super().__init__(model, encoder, settings, context)
        times = int(settings["time_features"])
        horizon = ("batch", int(model.config.prediction_length), times)
        self.inputs = (*encoder.inputs, *([TensorSpec(FUTURE, "float32", horizon)] if times else []))

    def eager(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The original's ``generate`` up to its draws."""
        with self._context():
            return generated(model, inputs)

    def from_series(self, model: Any, series: NDArray[np.float32]) -> Arrays:
        """The calendar ahead is made up, another one for each series."""
        inputs: Arrays = self._encoder.from_series(model, series)
        dims = next((spec.dims for spec in self.inputs if spec.name == FUTURE), None)
        if dims is None:
            return inputs
        rng = np.random.default_rng(series.shape)
        times = rng.standard_normal((len(series), *(int(dim) for dim in dims[1:])))
        return inputs | {FUTURE: times.astype(np.float32)}

    def follow(self, sessions: Mapping[str, Any]) -> Callable[[Arrays, Arrays], Arrays]:
        """The decoder once."""

        def run(inputs: Arrays, encoded: Arrays) -> Arrays:
            values = inputs["past_values"]
            steps = int(self._settings["prediction_length"])
            none = np.zeros((len(values), steps, 0), np.float32)
            found: Arrays = sessions["decoder"].run(at_once(inputs, encoded, inputs.get(FUTURE, none)))
            return found

        return run
