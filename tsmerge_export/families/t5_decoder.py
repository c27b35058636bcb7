"""The decoder of a T5 encoder-decoder as two graphs: cross-attention's keys and values, and one step with caches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache

from tsmerge_export.families.base import Arrays, Component, Hints, TensorSpec
from tsmerge_export.families.hf import eager_attention

_MASKED = torch.finfo(torch.float32).min


class _Sizes:
    def __init__(self, model: Any) -> None:
        config = model.config
        self.layers = len(model.decoder.block)
        self.heads, self.head, self.vocab = int(config.num_heads), int(config.d_kv), int(config.vocab_size)
        self.width = int(config.d_model)

    def cross(self) -> tuple[TensorSpec, ...]:
        """Per layer keys, then values; keys stand transposed, ready for the product with the queries."""
        keys = ("batch", self.heads, self.head, "tokens")
        values = ("batch", self.heads, "tokens", self.head)
        return tuple(
            TensorSpec(f"cross_{name}_{layer}", "float32", dims)
            for name, dims in (("key", keys), ("value", values))
            for layer in range(self.layers)
        )

    def caches(self) -> tuple[TensorSpec, ...]:
        """Per layer keys, then values, with room for ``capacity`` steps; a step is one contiguous row of a head."""
        dims = ("batch", "samples", self.heads, "capacity", self.head)
        return tuple(
            TensorSpec(f"past_{name}_{layer}", "float32", dims)
            for name in ("key", "value")
            for layer in range(self.layers)
        )

    def news(self) -> tuple[TensorSpec, ...]:
        """Per layer keys, then values, of the step itself; heads side by side, as the products give them."""
        dims = ("batch", "samples", self.heads * self.head)
        return tuple(
            TensorSpec(f"new_{name}_{layer}", "float32", dims)
            for name in ("key", "value")
            for layer in range(self.layers)
        )


class _CrossModule(nn.Module):
    def __init__(self, decoder: Any, sizes: _Sizes) -> None:
        super().__init__()
        self.attention = nn.ModuleList(block.layer[1].EncDecAttention for block in decoder.block)
        self.sizes = sizes

    def forward(self, hidden: Tensor, mask: Tensor, log_size: Tensor) -> tuple[Tensor, ...]:
        """``[B, M, D]``, ``[B, M]`` int64, ``[B, M]`` -> ``cross_bias [B, 1, 1, M]``, keys, values."""
        bias = torch.where(mask != 0, log_size, _MASKED)[:, None, None, :]
        split = (*hidden.shape[:2], self.sizes.heads, self.sizes.head)
        layers: list[Any] = list(self.attention)
        keys = [attention.k(hidden).reshape(split).permute(0, 2, 3, 1) for attention in layers]
        values = [attention.v(hidden).reshape(split).permute(0, 2, 1, 3) for attention in layers]
        return (bias, *keys, *values)


class Cross(Component):
    """Encoder output -> keys and values of every layer's cross-attention, once per series."""

    name = "cross"
    mergeable = False
    hints = Hints()

    def __init__(self, model: Any) -> None:
        self._sizes = _Sizes(model)
        rows = ("batch", "tokens")
        self.inputs = (
            TensorSpec("last_hidden_state", "float32", (*rows, self._sizes.width)),
            TensorSpec("encoder_mask", "int64", rows),
            TensorSpec("encoder_log_size", "float32", rows),
        )
        self.outputs = (
            TensorSpec("cross_bias", "float32", ("batch", 1, 1, "tokens")),
            *self._sizes.cross(),
        )

    def module(self, model: Any) -> nn.Module:
        return _CrossModule(model.decoder, self._sizes)

    def eager(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Through the cache that the original decoder fills in a step of its own."""
        hidden, mask = inputs["last_hidden_state"], inputs["encoder_mask"]
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        start = torch.full((len(hidden), 1), model.config.decoder_start_token_id)
        model.decoder(
            input_ids=start, encoder_hidden_states=hidden, encoder_attention_mask=mask,
            past_key_values=cache, use_cache=True,
        )  # fmt: skip
        layers = cache.cross_attention_cache.layers
        hidden_away = torch.full_like(inputs["encoder_log_size"], _MASKED)
        bias = inputs["encoder_log_size"].where(mask != 0, hidden_away)
        out = {"cross_bias": bias[:, None, None, :]}
        out |= {f"cross_key_{i}": layer.keys.transpose(2, 3) for i, layer in enumerate(layers)}
        return out | {f"cross_value_{i}": layer.values for i, layer in enumerate(layers)}

    def from_series(self, model: Any, series: NDArray[np.float32]) -> Arrays:
        return self.example(model, *series.shape)

    def example(self, model: Any, batch: int, length: int, seed: int = 0) -> Arrays:
        """Random encoder outputs; about a tenth of the tokens is masked, never the last."""
        rng = np.random.default_rng(seed)
        mask = (rng.random((batch, length)) < 0.9).astype(np.int64)
        mask[:, -1] = 1
        return {
            "last_hidden_state": rng.standard_normal((batch, length, self._sizes.width)).astype(np.float32),
            "encoder_mask": mask,
            "encoder_log_size": np.log(rng.integers(1, 9, (batch, length))).astype(np.float32),
        }


def _norm(layer: Any, x: Tensor) -> Tensor:
    """T5's norm, divided by the root: ONNX Runtime fuses this form into one operator, and not the original's product
    with the reciprocal."""
    normed: Tensor = layer.weight * (x / (x.pow(2).mean(-1, keepdim=True) + layer.variance_epsilon).sqrt())
    return normed


class _StepModule(nn.Module):
    """One decoder step for all samples of all series.

    The step's own key and value stay apart from the caches: a graph that appended to them would copy them at every
    step. Their owner writes the new ones into the free slots, which ``position`` masks until then. Samples are the
    query axis of cross-attention, so keys and values of a series are read once for all of its samples.
    """

    def __init__(self, model: Any, sizes: _Sizes) -> None:
        super().__init__()
        self.decoder, self.head, self.sizes = model.decoder, model.lm_head, sizes
        self.scale = sizes.width**-0.5 if model.config.scale_decoder_outputs else None
        attention = model.decoder.block[0].layer[0].SelfAttention
        self.farthest = int(attention.relative_attention_max_distance)
        # Farther keys share the last bucket. The original's own numbers, so no logarithm is left to differ: of the last
        # query, by distance.
        steps = self.farthest + 1
        with torch.no_grad():
            bias = attention.compute_bias(steps, steps)[0, :, -1].flip(-1).T
        self.register_buffer("bias", bias.contiguous())

    def forward(
        self,
        token_ids: Tensor,
        position: Tensor,
        cross_bias: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        """``[B, S]`` int64, ``[]`` int64, ``[B, 1, 1, M]``, keys and values -> ``logits [B, S, V]``, new ones."""
        n, heads, head = self.sizes.layers, self.sizes.heads, self.sizes.head
        cross_keys, cross_values, past_keys, past_values = (tensors[i : i + n] for i in range(0, 4 * n, n))
        x = self.decoder.embed_tokens(token_ids)
        batch, samples = token_ids.shape
        table: Tensor = self.bias  # type: ignore[assignment]
        slots = torch.arange(past_values[0].shape[3])
        past_bias = table[(position - slots).clamp(0, self.farthest)].T[:, None, :]
        past_bias = torch.where(slots < position, past_bias, _MASKED)
        own_bias = table[0][:, None, None]
        new_keys, new_values = [], []
        for layer, block in enumerate(self.decoder.block):
            normed = _norm(block.layer[0].layer_norm, x)
            attention = block.layer[0].SelfAttention
            # Not reshaped before they go out: ONNX Runtime copies what a Reshape passes on to an output.
            new_keys.append(attention.k(normed))
            new_values.append(attention.v(normed))
            query, key, value = (
                projected.reshape(batch, samples, heads, 1, head)
                for projected in (attention.q(normed), new_keys[-1], new_values[-1])
            )
            own = (query * key).sum(-1, keepdim=True) + own_bias
            # The query as a column: the rows of the cache are read as they lie.
            past = (past_keys[layer] @ query.reshape(batch, samples, heads, head, 1)).reshape(
                batch, samples, heads, 1, -1
            )
            weights = torch.cat([past + past_bias, own], -1).softmax(-1)
            mixed = weights[..., :-1] @ past_values[layer] + weights[..., -1:] * value
            x = x + attention.o(mixed.reshape(batch, samples, heads * head))

            attention = block.layer[1].EncDecAttention
            query = attention.q(_norm(block.layer[1].layer_norm, x)).reshape(batch, samples, heads, head)
            weights = (query.transpose(1, 2) @ cross_keys[layer] + cross_bias).softmax(-1)
            mixed = (weights @ cross_values[layer]).transpose(1, 2)
            x = x + attention.o(mixed.reshape(batch, samples, heads * head))
            x = x + block.layer[2].DenseReluDense(_norm(block.layer[2].layer_norm, x))
        x = _norm(self.decoder.final_layer_norm, x)
        if self.scale is not None:
            x = x * self.scale
        return (self.head(x), *new_keys, *new_values)


class Decoder(Component):
    """One step: the tokens drawn last -> logits of the next, with self-attention caches of any capacity."""

    name = "decoder"
    mergeable = False
    hints = Hints()

    def __init__(self, model: Any) -> None:
        sizes = self._sizes = _Sizes(model)
        rows = ("batch", "samples")
        self.inputs = (
            TensorSpec("token_ids", "int64", rows),
            TensorSpec("position", "int64", ()),
            TensorSpec("cross_bias", "float32", ("batch", 1, 1, "tokens")),
            *sizes.cross(),
            *sizes.caches(),
        )
        self.outputs = (TensorSpec("logits", "float32", (*rows, sizes.vocab)), *sizes.news())

    def module(self, model: Any) -> nn.Module:
        return _StepModule(eager_attention(model), self._sizes)

    def eager(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step of the original decoder, caches and all, one row per sample."""
        samples = inputs["token_ids"].shape[1]
        position = int(inputs["position"])
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        for i in range(self._sizes.layers):
            if position:
                past = (
                    inputs[f"past_{kind}_{i}"][..., :position, :].flatten(0, 1) for kind in ("key", "value")
                )
                cache.self_attention_cache.update(*past, i)
            keys, values = inputs[f"cross_key_{i}"].transpose(2, 3), inputs[f"cross_value_{i}"]
            cache.cross_attention_cache.update(
                keys.repeat_interleave(samples, 0), values.repeat_interleave(samples, 0), i
            )
            cache.is_updated[i] = True
        bias = inputs["cross_bias"].repeat_interleave(samples, 0)
        hidden = bias.new_zeros(
            len(bias), bias.shape[3], self._sizes.width
        )  # only its shape is read: keys are cached
        result = model.decoder(
            input_ids=inputs["token_ids"].flatten()[:, None], past_key_values=cache, use_cache=True,
            encoder_hidden_states=hidden, encoder_attention_mask=bias,
        ).last_hidden_state  # fmt: skip
        if model.config.scale_decoder_outputs:
            result = result * model.config.d_model**-0.5
        shape = inputs["token_ids"].shape
        out = {"logits": model.lm_head(result).unflatten(0, shape).squeeze(2)}
        for i, layer in enumerate(cache.self_attention_cache.layers):
            for kind, cached in (("key", layer.keys), ("value", layer.values)):
                out[f"new_{kind}_{i}"] = cached[:, :, -1].flatten(1).unflatten(0, shape)
        return out

    def from_series(self, model: Any, series: NDArray[np.float32]) -> Arrays:
        return self.example(model, *series.shape)

    def example(self, model: Any, batch: int, length: int, seed: int = 0) -> Arrays:
        """Random tokens and caches, ``length`` encoder tokens; samples, capacity and position vary with the seed."""
        rng = np.random.default_rng(seed)
        samples, capacity = (5, 11) if seed == 0 else (int(n) for n in rng.integers(1, (7, 41)))
        named: dict[Any, int] = {
            "batch": batch,
            "tokens": length,
            "samples": samples,
            "capacity": capacity,
        }
        out: Arrays = {
            spec.name: rng.standard_normal([int(cast(int, named.get(dim, dim))) for dim in spec.dims]).astype(
                np.float32
            )
            for spec in self.inputs
        }
        out["token_ids"] = rng.integers(0, self._sizes.vocab, (batch, samples))
        out["position"] = np.asarray(rng.integers(0, capacity + 1))
        return out
