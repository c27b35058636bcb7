"""What transformers' Time Series Transformer and Informer have in common: lagged values, time features and static ones
through an encoder, one token a time step, whose output a decoder attends to (:mod:`.lagged_decoder`)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tsmerge_export.families.base import Arrays, Component, Generation, Handle, Hints, TensorSpec
from tsmerge_export.families.hf import TransformersFamily, eager_attention
from tsmerge_export.families.lagged_decoder import (
    Decoder,
    LaggedDecoder,
    LaggedGeneration,
    full_attention,
    places,
    point_forecast,
)
from tsmerge_export.families.lagged_objective import EveryStep
from tsmerge_export.families.objective import Objective
from tsmerge_export.forecast.lagged_decoder import encoder_inputs
from tsmerge_export.merge.applied import run_of
from tsmerge_export.merge.run import MergeRun


def past_length(config: Any) -> int:
    """Steps that the model reads: its context, and what the farthest lag reaches beyond."""
    return int(config.context_length) + max(config.lags_sequence)


def time_features(config: Any) -> int:
    """Features of every time step."""
    return int(config.num_time_features + config.num_dynamic_real_features)


Network = Callable[[Any, dict[str, Any]], Sequence[Tensor]]
"""(the transformers model without its head, its arguments) -> ``features [B, L, F]``, loc, scale, static features."""


class _Optional:
    """The model's inputs: those that its config does without are left out of the graph, which knows no empty tensor."""

    def __init__(self, config: Any) -> None:
        self._config = config
        rows = ("batch", past_length(config))
        values = rows if config.input_size == 1 else (*rows, int(config.input_size))
        self.specs = [
            TensorSpec("past_values", "float32", values),
            TensorSpec("past_observed_mask", "float32", values),
        ]
        for name, dtype, count in (
            ("past_time_features", "float32", time_features(config)),
            ("static_categorical_features", "int64", int(config.num_static_categorical_features)),
            ("static_real_features", "float32", int(config.num_static_real_features)),
        ):
            if count:
                dims = (*rows, count) if name == "past_time_features" else ("batch", count)
                self.specs.append(TensorSpec(name, dtype, dims))

    def named(self, tensors: Sequence[Tensor]) -> dict[str, Any]:
        """Arguments of ``create_network_inputs``: the given ones, and what it needs besides."""
        given: dict[str, Any] = dict(zip([spec.name for spec in self.specs], tensors, strict=True))
        if "past_time_features" not in given:
            values = given["past_values"]
            given["past_time_features"] = values.new_zeros((values.shape[0], past_length(self._config), 0))
        return given

    def arrays(self, series: NDArray[np.float32], *, spread: bool) -> Arrays:
        """Series ``[B, L]`` as inputs; calendar and static features are made up."""
        return encoder_inputs(self.specs, series, spread=spread, cardinality=self._config.cardinality or ())


class _ExportModule(nn.Module):
    """Network inputs and encoder without the mask that the original makes of none."""

    def __init__(self, core: Any, inputs: _Optional, network: Network, context: Callable[[], Any]) -> None:
        super().__init__()
        self.core, self.inputs, self.network, self.context = core, inputs, network, context

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The inputs in order -> the outputs of :class:`Encoder`."""
        core, encoder = self.core, self.core.encoder
        features, loc, scale, static = self.network(core, self.inputs.named(tensors))
        hidden = encoder.value_embedding(features)
        hidden = encoder.layernorm_embedding(hidden + places(encoder.embed_positions, 0, features.shape[1]))
        convs = getattr(encoder, "conv_layers", [None] * len(encoder.layers))
        with self.context():
            for layer, conv in zip(encoder.layers, convs, strict=True):
                found = layer(hidden, None)
                hidden = found[0] if isinstance(found, tuple) else found  # a tuple up to transformers 5.0
                hidden = hidden if conv is None else conv(hidden)
        # All 0 as long as every token stands for itself. Computed from the tokens, it stays an axis of them.
        return hidden, (hidden[..., 0] * 0.0).abs(), loc, scale, static


class Encoder(Component):
    """Past values and features -> encoder states, which stay merged, and what scales a forecast."""

    name = "encoder"

    def __init__(self, model: Any, network: Network, scope: str | None, context: Callable[[], Any]) -> None:
        config = model.config
        self._inputs, self._network, self._context = _Optional(config), network, context
        self.mergeable = scope is not None
        self.inputs = tuple(self._inputs.specs)
        channels = () if config.input_size == 1 else (int(config.input_size),)
        keep = (
            () if config.scaling in ("mean", "std", True) and not getattr(config, "keepdim", True) else (1,)
        )
        # What a time step holds besides lagged values: static features, and those of the time.
        static = (
            int(config.feature_size) - config.input_size * len(config.lags_sequence) - time_features(config)
        )
        self.outputs = (
            TensorSpec("last_hidden_state", "float32", ("batch", "tokens", int(config.d_model))),
            TensorSpec("encoder_log_size", "float32", ("batch", "tokens")),
            TensorSpec("loc", "float32", ("batch", *keep, *channels)),
            TensorSpec("scale", "float32", ("batch", *keep, *channels)),
            TensorSpec("static_features", "float32", ("batch", static)),
        )
        self.hints = Hints(token_log_size="encoder_log_size", scope=scope)

    def named(self, tensors: Sequence[Tensor]) -> dict[str, Any]:
        """Arguments of the original model for :attr:`inputs`."""
        return self._inputs.named(tensors)

    def feed(self, series: NDArray[np.float32], *, spread: bool) -> Arrays:
        """Series ``[B, L]`` as inputs, see :func:`~tsmerge_export.forecast.history.channelled`."""
        return self._inputs.arrays(series, spread=spread)

    def module(self, model: Any) -> nn.Module:
        twin: Any = eager_attention(model)
        return _ExportModule(twin.model, self._inputs, self._network, self._context)

    def eager(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        given = self._inputs.named([inputs[spec.name] for spec in self.inputs])
        with self._context():
            # The whole model, for its outputs are the original's; the decoder sees one empty step.
            found = model.model(**given, use_cache=False)
        hidden = found.encoder_last_hidden_state
        run = run_of(model)
        log_size = None if run is None else run.log_size()
        return {
            "last_hidden_state": hidden,
            "encoder_log_size": torch.zeros(hidden.shape[:2]) if log_size is None else log_size,
            "loc": found.loc,
            "scale": found.scale,
            "static_features": found.static_features,
        }

    def from_series(self, model: Any, series: NDArray[np.float32]) -> Arrays:
        return self.feed(series, spread=True)


class LaggedFamily(TransformersFamily):
    """Encoder exported and merged, decoder exported as one pass over all steps drawn so far."""

    @abstractmethod
    def merging_layers(self, model: Any) -> Sequence[int]:
        """Encoder layers that tokens can merge in."""

    @contextmanager
    def deterministic(self) -> Iterator[None]:
        """Inside, the original module draws nothing at random in its encoder."""
        yield

    def network_inputs(self, core: Any, given: dict[str, Any]) -> Sequence[Tensor]:
        """See :data:`Network`."""
        found: Sequence[Tensor] = core.create_network_inputs(**given)
        return found

    def _scope(self, model: Any) -> str | None:
        """Exporter scopes of those layers; None where there are none."""
        layers = self.merging_layers(model)
        return rf"encoder\.layers\.({'|'.join(map(str, layers))})\b" if layers else None

    def components(self, model: Any) -> tuple[Component, ...]:
        return (
            Encoder(model, self.network_inputs, self._scope(model), self.deterministic),
            Decoder(model, self.attend, self.deterministic),
        )

    def generation(self, model: Any) -> Generation | None:
        encoder = self.components(model)[0]
        return LaggedGeneration(model, encoder, self.pipeline(model), self.deterministic)

    def attend(self, attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """What the decoder's self-attention computes, see :data:`~.lagged_decoder.Attend`."""
        return full_attention(attention, query, key, value)

    def pipeline(self, model: Any) -> dict[str, Any]:
        config = model.config
        return super().pipeline(model) | {
            "lags_sequence": [int(lag) for lag in config.lags_sequence],
            "time_features": time_features(config),
            "distribution": config.distribution_output,
            "num_samples": int(config.num_parallel_samples),
        }

    def instrument(self, model: Any, run: MergeRun) -> Sequence[Handle]:
        """Merge behind the normalisation of every attention; unmerge before a convolution over the tokens."""
        encoder, keys = model.model.encoder, list[Tensor]()
        convs = getattr(encoder, "conv_layers", None) or []

        def begin(*_: Any) -> None:
            run.begin(None)

        def align(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden, mask, *rest = args
            proportion = run.proportion(hidden.shape[0])
            mask = mask if mask is None or not run.merged else run.align(mask, 2, 3)
            if proportion is not None:
                mask = proportion if mask is None else mask + proportion
            return (hidden, mask, *rest), kwargs

        def keep_keys(heads: int) -> Any:
            def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
                keys[:] = [output.unflatten(-1, (heads, -1))]

            return hook

        def merge(point: int) -> Any:
            return lambda _module, _args, output: run.merge(point, output, *keys)

        def unmerge(_module: nn.Module, args: tuple[Tensor, ...]) -> Any:
            whole = run.unmerge(args[0])
            run.restart()
            return (whole,)

        def weigh(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden = kwargs.get("encoder_hidden_states")
            proportion = None if hidden is None else run.proportion(hidden.shape[0])
            return args, kwargs if proportion is None else {**kwargs, "encoder_attention_mask": proportion}

        handles: list[Handle] = [
            encoder.register_forward_pre_hook(begin),
            model.model.decoder.register_forward_pre_hook(weigh, with_kwargs=True),
        ]
        for point, index in enumerate(self.merging_layers(model)):
            layer = encoder.layers[index]
            if self.keys_are_read(layer):
                heads = keep_keys(layer.self_attn.num_heads)
                handles.append(layer.self_attn.k_proj.register_forward_hook(heads))
            handles.append(layer.self_attn_layer_norm.register_forward_hook(merge(point)))
        handles += [
            layer.register_forward_pre_hook(align, with_kwargs=True)
            for layer in encoder.layers
        ]  # fmt: skip
        handles += [conv.register_forward_pre_hook(unmerge) for conv in convs if conv is not None]
        return handles

    def objective(self, model: Any) -> Objective | None:
        """See :meth:`Family.objective`."""
        generation = self.generation(model)
        assert isinstance(generation, LaggedGeneration)
        name = str(model.config.distribution_output)
        return EveryStep(generation, self.components(model)[0], self.horizon(model), name)

    def keys_are_read(self, layer: Any) -> bool:
        """Whether the attention of a layer compares all queries with all keys, so that its keys are a metric."""
        return True

    def horizon(self, model: Any) -> int:
        return int(model.config.prediction_length)

    def context(self, model: Any) -> int:
        return past_length(model.config)

    def forecast(
        self, model: Any, run: Callable[[Arrays], Arrays], series: NDArray[np.float32], seed: int = 0
    ) -> NDArray[np.float32]:
        """See :meth:`Family.forecast`: the encoder is the exported one, the decoder the original module.

        A point forecast: as ``generate``, with the mean of every step's distribution in place of a sample. With several
        channels each reads the series, and the first one's forecast counts.
        """
        encoder, decoder = self.components(model)
        assert isinstance(decoder, LaggedDecoder)
        return point_forecast(self.pipeline(model), encoder, run, decoder.run(model), series)
