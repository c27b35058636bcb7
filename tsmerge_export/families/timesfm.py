"""TimesFM 1 and 2 (``TimesFmModelForPrediction`` of transformers; arXiv 2310.10688): a causal decoder over patches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import TimesFmConfig, TimesFmModelForPrediction

from tsmerge_export.families.base import PATCHES, Arrays, Card, Component, Published, TensorSpec
from tsmerge_export.families.timesfm_base import (
    TOKENS,
    UNSUPPORTED,
    TimesFmFamily,
    TimesFmModel,
    attended,
    causal_biases,
    in_patches,
    projected,
)
from tsmerge_export.families.timesfm_hooks import Follower
from tsmerge_export.merge.run import MergeRun


class _ExportModule(nn.Module):
    """``TimesFmModelForPrediction.forward`` of the first horizon, written for any batch and length."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, context: Tensor, padding: Tensor, freq: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, L]``, ``[B, L]`` float32 (1 is padding), ``[B]`` int64 -> ``[B, H, 1 + Q]``, token mask ``[B, N]``."""
        config, core = self.model.config, self.model.decoder
        x, padding = in_patches(context, padding, config.context_length, config.patch_length)
        marked = (x - config.pad_val).abs() < config.tolerance
        padding = torch.where(marked, 1.0, padding)
        loc, scale = self._first_statistics(x, 1 - padding)
        x = (x - loc) / scale * (1 - padding)
        x = core.input_ff_layer(torch.cat([x, padding], -1))
        real = 1 - padding.amin(-1)
        tokens = x.shape[1]
        if config.use_positional_embedding:
            # Counted from the first real token; the places in front of it go on from the end.
            shift = (1 - real).sum(1, keepdim=True)
            positions = torch.arange(tokens)[None] - shift
            x = x + core.position_emb(position=torch.where(positions < 0, positions + tokens, positions))
        x = x + core.freq_emb(freq[:, None])
        x = self.model.horizon_ff_layer(self._decoder(x, real)[:, -1])
        out: Tensor = x.unflatten(1, (config.horizon_length, -1)) * scale + loc
        return out, real

    def _first_statistics(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation ``[B, 1, 1]`` of the first patch of ``[B, N, p]`` with three valid values.

        The last patch where there is none.
        """
        tokens = x.shape[1]
        enough = valid.sum(-1) >= 3
        order = torch.arange(tokens)[None].expand(enough.shape)
        chosen = torch.where(enough, order, tokens - 1).amin(1, keepdim=True)
        own = (order == chosen)[..., None].to(x.dtype) * valid  # [B, N, p], all 0 but for one patch
        count = own.sum((1, 2), keepdim=True).clamp(min=1)
        loc = (x * own).sum((1, 2), keepdim=True) / count
        variance = ((x - loc) * own).square().sum((1, 2), keepdim=True) / count
        return loc, variance.sqrt().clamp(min=self.model.config.tolerance)

    def _decoder(self, x: Tensor, real: Tensor) -> Tensor:
        """``[B, N, D]``, 1 where a token is real ``[B, N]`` -> ``[B, N, D]``."""
        biases = causal_biases(real)
        for layer in self.model.decoder.layers:
            attention = layer.self_attn
            query, key, value = projected(attention, layer.input_layernorm(x), self.model.config.head_dim)
            # One scale for each feature; the number is the logarithm of e to base 2.
            scale = nn.functional.softplus(attention.scaling) * (1.442695041 / math.sqrt(query.shape[-1]))
            update = attended(query * scale, key, value, biases)
            # A padded token has nobody to attend to; it stays as it is.
            x = attention.o_proj(update) * real[..., None] + x
            x = layer.mlp(x, paddings=1 - real)
        return x


class _Follower(Follower):
    def align(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self.run.merged:
            return None
        # By place or by name, by the version of transformers.
        hidden = args[0] if args else kwargs["hidden_states"]
        return args, {**kwargs, "attention_mask": self.mask(kwargs["attention_mask"], hidden)}

    def start(self, _module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.begin(1 - kwargs["paddings"].float())

    def keep_key(self, heads: int) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
            self.key = output.unflatten(-1, (heads, -1))

        return hook

    def merge(self, layer: int) -> Any:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> Any:
            merged = self.run.merge(layer, args[0], self.key)
            return (merged,), {**kwargs, "paddings": 1 - self.run.align(self.real, 1)}

        return hook


class _Model(TimesFmModel):
    def __init__(self, model: Any) -> None:
        super().__init__(model, _ExportModule, TensorSpec("freq", "int64", ("batch",)))

    def eager(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        result = model(**self.ragged(model, inputs), freq=inputs["freq"].tolist())
        return {"predictions": result.full_predictions}

    def from_series(self, model: Any, series: NDArray[np.float32]) -> Arrays:
        """Of high frequency (0)."""
        return {**super().from_series(model, series), "freq": np.zeros(len(series), np.int64)}

    def example(self, model: Any, batch: int, length: int, seed: int = 0) -> Arrays:
        """Random walks of random frequencies, some of which begin late."""
        rng = np.random.default_rng(seed)
        series = rng.standard_normal((batch, length)).cumsum(1).astype(np.float32)
        for row in series[rng.random(batch) < 0.5]:
            row[: rng.integers(0, length)] = np.nan
        return {**self.from_series(model, series), "freq": rng.integers(0, model.config.freq_size, batch)}


class TimesFm(TimesFmFamily):
    """Google's TimesFM 1 and 2."""

    name = "timesfm"
    default = PATCHES
    hides_padding = True
    model_class, config_class = TimesFmModelForPrediction, TimesFmConfig
    card = Card(
        (("model", "`context`, `padding`, `freq` -> `predictions` (mean and quantiles)"),),
        TOKENS,
        runtimes=("ONNX Runtime",),
        unsupported=(UNSUPPORTED,),
    )
    # The defaults of the class are the published ones.
    published = Published(
        "google/timesfm-2.0-500m", {"architectures": ["TimesFmModelForPrediction"], "model_type": "timesfm"}
    )

    def decoder(self, model: Any) -> Any:
        return model.decoder

    def components(self, model: Any) -> tuple[Component, ...]:
        return (_Model(model),)

    def instrument(self, model: Any, run: MergeRun) -> list[RemovableHandle]:
        """Merge after the attention residual of each layer; every token is given its output back at the end."""
        follow = _Follower(run)
        layers = model.decoder.layers
        handles = [layers[0].register_forward_pre_hook(follow.start, with_kwargs=True)]
        for index, layer in enumerate(layers):
            attention = layer.self_attn
            handles += [
                layer.register_forward_pre_hook(follow.align, with_kwargs=True),
                attention.k_proj.register_forward_hook(follow.keep_key(attention.num_heads)),
                attention.register_forward_hook(follow.keep_out_padding),
                layer.mlp.register_forward_pre_hook(follow.merge(index), with_kwargs=True),
            ]
        handles.append(model.decoder.register_forward_hook(follow.unmerge))
        return handles

    def pipeline(self, model: Any) -> dict[str, Any]:
        return super().pipeline(model) | {"freq": 0}  # high frequency
