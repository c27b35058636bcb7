"""TimesFM 2.5 (``TimesFm2_5ModelForPrediction`` of transformers; arXiv 2310.10688): a causal decoder over patches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.utils.hooks import RemovableHandle
from transformers import TimesFm2_5Config, TimesFm2_5ModelForPrediction
from transformers.models.timesfm2_5.modeling_timesfm2_5 import apply_rotary_pos_emb

from tsmerge_export.errors import UsageError
from tsmerge_export.families.base import PATCHES, Card, Component, Published
from tsmerge_export.families.timesfm2_5_hooks import instrument_decoder
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
from tsmerge_export.merge.run import MergeRun

_TOLERANCE = 1e-6  # a smaller standard deviation counts as none, as upstream


def running_statistics(x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of all valid values up to each patch: twice ``[B, N, p]`` -> twice ``[B, N]``.

    The original's loop (Welford) in closed form. What a patch adds to the sum of squares is not negative, so that
    nothing cancels: its own, and the distance of its mean to the mean before it.
    """
    count = valid.sum(-1)
    total = count.cumsum(1)
    mean = (x * valid).sum(-1) / count.clamp(min=1)
    own = ((x - mean[..., None]) * valid).square().sum(-1)
    running = (count * mean).cumsum(1) / total.clamp(min=1)
    before = torch.cat([torch.zeros_like(running[:, :1]), running[:, :-1]], 1)
    gain = own + (total - count) * count / total.clamp(min=1) * (mean - before).square()
    return running, (gain.cumsum(1) / total.clamp(min=1)).sqrt()


def _safe(scale: Tensor) -> Tensor:
    return torch.where(scale < _TOLERANCE, 1.0, scale)


class _ExportModule(nn.Module):
    """``TimesFm2_5ModelForPrediction.forward``, one pass, without its loop over the patches."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, context: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, L]``, ``[B, L]`` float32 (1 is padding) -> ``[B, H, 1 + Q]``, token mask ``[B, N]``."""
        config, core = self.model.config, self.model.model
        x, padding = in_patches(context, padding, config.context_length, config.patch_length)
        steps = x.shape[1] * x.shape[2]
        loc = x.mean((1, 2), keepdim=True)
        scale = ((x - loc).square().sum((1, 2), keepdim=True) / (steps - 1)).sqrt()
        x = (x - loc) / _safe(scale)
        mean, std = running_statistics(x, 1 - padding)
        x = (x - mean[..., None]) / _safe(std)[..., None] * (1 - padding)
        real = 1 - padding[..., -1]
        x = self._decoder(core.input_ff_layer(torch.cat([x, padding], -1)), real)[:, -1]
        point, spread = (
            (head(x) * std[:, -1:] + mean[:, -1:]).unflatten(1, (-1, len(config.quantiles) + 1))
            for head in (self.model.output_projection_point, self.model.output_projection_quantiles)
        )
        if config.use_continuous_quantile_head:
            point = self._continuous(point, spread)
        return point * scale + loc, real

    def _continuous(self, point: Tensor, spread: Tensor) -> Tensor:
        """Quantiles of the second head, moved to the median of the first."""
        length = min(point.shape[1], spread.shape[1])
        middle = min(self.model.config.decode_index, point.shape[2] - 1)
        near, spread = point[:, :length], spread[:, :length]
        median = near[..., middle : middle + 1]
        moved = spread - spread[..., middle : middle + 1] + median
        near = torch.cat([near[..., :1], moved[..., 1:middle], median, moved[..., middle + 1 :]], -1)
        return near if length == point.shape[1] else torch.cat([near, point[:, length:]], 1)

    def _decoder(self, x: Tensor, real: Tensor) -> Tensor:
        """``[B, N, D]``, 1 where a token is real ``[B, N]`` -> ``[B, N, D]``."""
        config, core = self.model.config, self.model.model
        positions = torch.arange(x.shape[1])[None] - (1 - real).sum(1, keepdim=True)
        cos, sin = core.rotary_emb(x, positions)
        biases = causal_biases(real)
        for layer in core.layers:
            attention = layer.self_attn
            query, key, value = projected(attention, layer.input_layernorm(x), config.head_dim)
            query, key = apply_rotary_pos_emb(query, key, cos, sin)
            query, key = attention.q_norm(query), attention.k_norm(key)
            query = query * softplus(attention.scaling).mul(1.442695041 / math.sqrt(config.head_dim))
            if attention.num_key_value_groups > 1:
                key, value = (
                    each.repeat_interleave(attention.num_key_value_groups, 1) for each in (key, value)
                )
            # A padded token has nobody to attend to; it stays as it is.
            update = attention.o_proj(attended(query, key, value, biases)) * real[..., None]
            x = layer.post_attention_layernorm(update) + x
            x = layer.post_feedforward_layernorm(layer.mlp(layer.pre_feedforward_layernorm(x))) + x
        return x


class _Model(TimesFmModel):
    def eager(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One pass of the original; :meth:`TimesFm25.forecast` does what it may do around it."""
        result = model(**self.ragged(model, inputs), truncate_negative=False, force_flip_invariance=False)
        return {"predictions": result.full_predictions}


class TimesFm25(TimesFmFamily):
    """Google's TimesFM 2.5."""

    name = "timesfm-2.5"
    default = PATCHES
    hides_padding = True
    model_class, config_class = TimesFm2_5ModelForPrediction, TimesFm2_5Config
    card = Card(
        (("model", "`context`, `padding` -> `predictions` (mean and quantiles)"),),
        TOKENS,
        runtimes=("ONNX Runtime",),
        unsupported=(
            UNSUPPORTED,
            "`--positions compact` is `gather`: positions differ by row",
        ),
    )
    # The defaults of the class are the published ones.
    published = Published(
        "google/timesfm-2.5-200m",
        {"architectures": ["TimesFm2_5ModelForPrediction"], "model_type": "timesfm2_5"},
    )
    weight_names: ClassVar[Mapping[str, str]] = {".mlp.ff0.": ".mlp.fc1.", ".mlp.ff1.": ".mlp.fc2."}

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        model: Any = super().build(config)
        own = model.config
        if own.force_flip_invariance and 2 * own.decode_index != len(own.quantiles) + 1:
            raise UsageError(
                f"config.json: decode_index {own.decode_index} is not the middle one of "
                f"{len(own.quantiles)} quantiles, which force_flip_invariance needs"
            )
        return model

    def decoder(self, model: Any) -> Any:
        return model.model

    def components(self, model: Any) -> tuple[Component, ...]:
        return (_Model(model, _ExportModule),)

    def instrument(self, model: Any, run: MergeRun) -> list[RemovableHandle]:
        return instrument_decoder(self.decoder(model), run)

    def pipeline(self, model: Any) -> dict[str, Any]:
        return super().pipeline(model) | {
            "flip_invariance": bool(model.config.force_flip_invariance),
            "keep_positive": bool(model.config.infer_is_positive),
        }
