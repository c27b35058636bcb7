"""The decoder of the families over lagged values as a graph, and encoder and decoder in a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tsmerge_export.families.base import (
    Arrays,
    Component,
    Forecast,
    Forecasts,
    Generation,
    Hints,
    Run,
    TensorSpec,
)
from tsmerge_export.families.hf import LastAxis, detached_twin
from tsmerge_export.forecast import lagged_decoder
from tsmerge_export.forecast.base import LEVELS, quantile
from tsmerge_export.forecast.lagged_decoder import PREFIX

_LEAST = torch.finfo(torch.float32).min

#: (a self-attention, its queries, keys and values ``[R, H, T, head]``) -> ``[R, H, T, head]``, causal.
Attend = Callable[[Any, Tensor, Tensor, Tensor], Tensor]


def causal_weights(scores: Tensor) -> Tensor:
    """Softmax of scores ``[.., T, T]`` over a query's own step and those before it."""
    order = torch.arange(scores.shape[-1])
    later = torch.where(order[None, :] > order[:, None], _LEAST, 0.0)
    return (scores + later).softmax(-1)


def full_attention(attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """An :data:`Attend`: every step before a query is read."""
    return causal_weights(query @ key.transpose(2, 3) * attention.scaling) @ value


def places(table: nn.Embedding, first: int, count: int) -> Tensor:
    """Rows ``[count, D]`` of a position embedding, from ``first`` on.

    Read from the table, for what its own forward takes differs between versions of transformers.
    """
    return nn.functional.embedding(torch.arange(first, first + count), table.weight)


class _ExportModule(nn.Module):
    """The decoder over all steps drawn so far, without its branches on masks.

    The paths of a series are the query axis of cross-attention, so that they share its keys and values.
    """

    def __init__(self, model: Any, attend: Attend) -> None:
        super().__init__()
        self.decoder, self.attend = model.model.decoder, attend
        self.projections = model.parameter_projection.proj
        self.domain = LastAxis(model.parameter_projection.domain_map)
        self.first = int(model.config.context_length)

    def forward(self, features: Tensor, hidden: Tensor, log_size: Tensor) -> tuple[Tensor, ...]:
        """``[B, S, T, F]``, ``[B, M, D]``, ``[B, M]`` float32 -> parameters, each ``[B, S, T, C]``."""
        decoder = self.decoder
        batch, paths, steps, _ = features.shape
        x = decoder.value_embedding(features)
        x = decoder.layernorm_embedding(x + places(decoder.embed_positions, self.first, steps))
        for layer in decoder.layers:
            attention = layer.self_attn
            heads = attention.num_heads
            query, key, value = (
                f(x).reshape(batch * paths, steps, heads, -1).transpose(1, 2)
                for f in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            update = self.attend(attention, query, key, value).transpose(1, 2)
            x = layer.self_attn_layer_norm(
                x + attention.out_proj(update.reshape(batch, paths, steps, x.shape[-1]))
            )
            attention = layer.encoder_attn
            query = attention.q_proj(x).reshape(batch, paths * steps, heads, -1).transpose(1, 2)
            key, value = (
                f(hidden).reshape(batch, -1, heads, query.shape[-1]).transpose(1, 2)
                for f in (attention.k_proj, attention.v_proj)
            )
            scores = query @ key.transpose(2, 3) * attention.scaling + log_size[:, None, None, :]
            update = (scores.softmax(-1) @ value).transpose(1, 2)
            x = layer.encoder_attn_layer_norm(
                x + attention.out_proj(update.reshape(batch, paths, steps, x.shape[-1]))
            )
            x = layer.final_layer_norm(x + layer.fc2(layer.activation_fn(layer.fc1(x))))
        found: tuple[Tensor, ...] = self.domain(*(projection(x) for projection in self.projections))
        return found


class LaggedDecoder(Component):
    """A component behind the encoder, whose outputs are parameters of distributions."""

    name = "decoder"
    mergeable = False
    hints = Hints()

    def run(self, model: Any) -> Run:
        """The original as if it was exported."""

        def run(feed: Arrays) -> Arrays:
            with torch.no_grad():
                found = self.eager(model, {name: torch.from_numpy(value) for name, value in feed.items()})
            return {name: value.numpy() for name, value in found.items()}

        return run


class Decoder(LaggedDecoder):
    """``features [B, S, T, F]`` of the steps drawn so far and the encoder's outputs -> the distribution of every step's
    value, a parameter each ``[B, S, T, C]``.

    Args:
        attend: what its self-attention computes. context: inside it the original draws nothing at random.
    """

    def __init__(self, model: Any, attend: Attend, context: Callable[[], Any]) -> None:
        config = model.config
        self._attend, self._context, self._most = attend, context, int(config.prediction_length)
        self._channels = int(config.input_size)
        rows = ("batch", "samples", "drawn_steps")
        features = int(model.model.decoder.value_embedding.value_projection.in_features)
        self.inputs = (
            TensorSpec("features", "float32", (*rows, features)),
            TensorSpec("last_hidden_state", "float32", ("batch", "tokens", int(config.d_model))),
            TensorSpec("encoder_log_size", "float32", ("batch", "tokens")),
        )
        self.outputs = tuple(
            TensorSpec(PREFIX + name, "float32", (*rows, self._channels))
            for name in model.distribution_output.args_dim
        )

    def module(self, model: Any) -> nn.Module:
        return _ExportModule(detached_twin(model), self._attend)

    def eager(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The original decoder, one row for each path."""
        features = inputs["features"]
        paths = features.shape[1]
        log_size = inputs["encoder_log_size"][:, None, None, :]
        with self._context():
            states = model.model.decoder(
                inputs_embeds=features.flatten(0, 1),
                encoder_hidden_states=inputs["last_hidden_state"].repeat_interleave(paths, 0),
                encoder_attention_mask=log_size.repeat_interleave(paths, 0) if bool(log_size.any()) else None,
                use_cache=False,
            ).last_hidden_state
        return {name: value.unflatten(0, features.shape[:2]) for name, value in _named(model, states).items()}

    def from_series(self, model: Any, series: NDArray[np.float32]) -> Arrays:
        return self.example(model, *series.shape)

    def example(self, model: Any, batch: int, length: int, seed: int = 0) -> Arrays:
        """Random features and encoder outputs of ``length`` tokens; paths and steps vary with the seed."""
        rng = np.random.default_rng(seed)
        paths, steps = (
            (5, 7) if seed == 0 else (int(rng.integers(1, 7)), int(rng.integers(1, self._most + 1)))
        )
        named: dict[Any, int] = {"batch": batch, "tokens": length, "samples": paths, "drawn_steps": steps}
        out: Arrays = {
            spec.name: rng.standard_normal([int(named.get(dim, dim)) for dim in spec.dims]).astype(np.float32)
            for spec in self.inputs
        }
        out["encoder_log_size"] = np.log(rng.integers(1, 9, (batch, length))).astype(np.float32)
        return out


def _named(model: Any, states: Tensor) -> dict[str, Tensor]:
    """The original's parameters for decoder states ``[R, T, D]``, see :func:`by_name`."""
    return by_name(model, model.output_params(states))


def by_name(model: Any, found: Sequence[Tensor]) -> dict[str, Tensor]:
    """A distribution's parameters ``[R, T]`` or ``[R, T, C]`` by output name, each ``[R, T, C]``."""
    names = model.distribution_output.args_dim
    return {
        PREFIX + name: value if value.dim() == 3 else value[..., None]
        for name, value in zip(names, found, strict=True)
    }


class InARow(Generation):
    """Encoder and decoder in a row, and forecasts by their files.

    Args:
        encoder: the first component. settings: of the family's pipeline. context: inside it the original runs.
    """

    def __init__(
        self, model: Any, encoder: Any, settings: Mapping[str, Any], context: Callable[[], Any]
    ) -> None:
        config = model.config
        self._encoder, self._settings, self._context = encoder, settings, context
        self._channels, rows = int(config.input_size), ("batch", int(config.prediction_length))
        self.outputs = tuple(
            TensorSpec(PREFIX + name, "float32", (*rows, self._channels))
            for name in model.distribution_output.args_dim
        )

    def forecaster(self, sessions: Mapping[str, Any], memory: int) -> Forecast:
        """The path of means, which leaves the noise of draws out of the comparison; nothing is random."""

        def forecast(run: Run, series: NDArray[np.float32], seed: int = 0) -> NDArray[np.float32]:
            return point_forecast(self._settings, self._encoder, run, sessions["decoder"].run, series)

        return forecast

    def forecasts(self, sessions: Mapping[str, Any], memory: int) -> Forecasts:
        """Quantiles of sample paths, which the cost leaves out."""

        def draw(run: Run, series: NDArray[np.float32], seed: int, first: int) -> NDArray[np.float32]:
            feed = self._encoder.feed(series, spread=False)
            paths = lagged_decoder.sample_paths(
                self._settings, feed, run(feed), sessions["decoder"].run, samples=int(self._settings["num_samples"]),
                steps=int(self._settings["prediction_length"]), seed=seed, first=first,
            )  # fmt: skip
            return quantile(paths, LEVELS, axis=1).transpose(0, 2, 1)

        return Forecasts(LEVELS, draw)


class LaggedGeneration(InARow):
    """``future_values [B, T]`` (or ``[B, T, C]``) are given instead of draws."""

    def __init__(
        self, model: Any, encoder: Any, settings: Mapping[str, Any], context: Callable[[], Any]
    ) -> None:
        super().__init__(model, encoder, settings, context)
        past = next(spec for spec in encoder.inputs if spec.name == "past_values")
        rows = ("batch", int(model.config.prediction_length))
        self.inputs = (*encoder.inputs, TensorSpec("future_values", "float32", (*rows, *past.dims[2:])))

    def eager(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The original over all steps at once; it makes the decoder's features by itself."""
        return self.predict(model, inputs)[0]

    def predict(self, model: Any, inputs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The same, and place and scale of the series, in whose unit the distributions are."""
        future = inputs["future_values"]
        given = self._encoder.named([inputs[spec.name] for spec in self._encoder.inputs])
        wave = lagged_decoder.clock(0, future.shape[1], int(self._settings["time_features"]))
        with self._context():
            found = model.model(
                **given,
                future_values=future,
                future_time_features=torch.from_numpy(wave).to(future.device).expand(len(future), -1, -1),
                use_cache=False,
            )
        return _named(model, found.last_hidden_state), found.loc, found.scale

    def from_series(self, model: Any, series: NDArray[np.float32]) -> Arrays:
        """The future is a random walk with the deviation of the past."""
        inputs: Arrays = self._encoder.from_series(model, series)
        past = inputs["past_values"]
        steps = np.random.default_rng(series.shape).standard_normal(
            (len(past), int(self._settings["prediction_length"]), *past.shape[2:])
        )
        walk = past[:, -1:] + past.std(1, keepdims=True) * steps.cumsum(1) / 4
        return inputs | {"future_values": walk.astype(np.float32)}

    def follow(self, sessions: Mapping[str, Any]) -> Callable[[Arrays, Arrays], Arrays]:
        """Features of one path, filled step by step as a forecaster does, and the decoder once."""

        def run(inputs: Arrays, encoded: Arrays) -> Arrays:
            path = lagged_decoder.Unrolled(self._settings, inputs, encoded, 1)
            future = inputs["future_values"].reshape(len(encoded["loc"]), -1, 1, self._channels)
            for step in range(future.shape[1] - 1):
                path.feed()
                path.append(future[:, step])
            found = sessions["decoder"].run(path.feed())
            return {name: value[:, 0] for name, value in found.items()}

        return run


def point_forecast(
    settings: Mapping[str, Any], encoder: Any, run: Run, decode: Run, series: NDArray[np.float32]
) -> NDArray[np.float32]:
    """:func:`~tsmerge_export.forecast.lagged_decoder.mean_path` as :meth:`Family.forecast` has it, ``[B, 1, H]``."""
    feed = encoder.feed(series, spread=False)
    return lagged_decoder.mean_path(settings, feed, run(feed), decode)[:, None]
