"""Chronos-2 (arXiv 2510.15821): an encoder over patches of series in groups, quantiles from tokens of the horizon.

Rows of one group (the variates of one task, its covariates among them) attend to each other token by token, so they
must lose the same tokens. Here one group is one row of the batch: its token is the concatenation of the tokens of its
rows, ``[G, N, V * D]``, with one similarity, one size and one decision
(R1 to R6 of docs/specification.md hold as they are, B being the groups).
The tokens are the patches of the context, one REG token, and one for each patch of the horizon; only the first merge,
and by their own number: the others stand apart (R13.9).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from chronos.chronos2 import Chronos2Model
from chronos.chronos2.config import Chronos2CoreConfig
from chronos.chronos2.layers import Chronos2RotaryEmbedding
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tsmerge_export.families.base import (
    PATCHES,
    Arrays,
    Card,
    Component,
    Hints,
    MergePoints,
    Published,
    TensorSpec,
)
from tsmerge_export.families.chronos2_config import NATIVE, checked
from tsmerge_export.families.chronos2_hooks import instrument
from tsmerge_export.families.hf import TransformersFamily, detached_twin
from tsmerge_export.families.objective import Objective, Quantiles
from tsmerge_export.merge.run import MergeRun

_LEAST = torch.finfo(torch.float32).min
_rotated = Chronos2RotaryEmbedding.apply_rotary_pos_emb


class _ExportModule(nn.Module):
    """``Chronos2Model.forward`` with the groups as the batch, without its branches on lengths and data.

    The original flattens all series into one batch and masks attention between groups, which mixes the batch axis into
    the scores (and needs an Einsum of booleans). Here series of one group are an axis of their own.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, context: Tensor, future: Tensor, series_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[G, V, L]``, ``[G, V, P, patch]``, ``[G, V]`` float32 -> ``[G, V, Q, P, patch]``, token mask ``[G, N]``,
        and as many numbers as tokens stand apart."""
        model = self.model
        groups, series, horizon, _ = future.shape
        horizon = torch.sym_min(horizon, model.chronos_config.max_output_patches)
        future = future[:, :, :horizon]
        x, real, (loc, scale) = self._tokens(context, future, series_mask)
        x = self._encode(x, real, series_mask)
        x = x[:, -horizon:].reshape(groups, horizon, series, model.model_dim)
        x = model.output_patch_embedding(model.encoder.final_layer_norm(x))
        out = x.unflatten(-1, (model.num_quantiles, -1)).permute(0, 2, 3, 1, 4)
        out = model.instance_norm.inverse(out, (loc[..., None, None], scale[..., None, None]))
        out = torch.where(series_mask[:, :, None, None, None] > 0, out, 0.0)
        return out, real.amax(1), torch.ones(1 + horizon)

    def _tokens(
        self, context: Tensor, future: Tensor, series_mask: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Embedded tokens ``[G, N, V, D]``, 1 where they are real ``[G, V, N]``, location and scale ``[G, V, 1]``."""
        model, config = self.model, self.model.chronos_config
        groups, series, length = context.shape
        horizon, patch = future.shape[2:]
        used = torch.sym_min(length, config.context_length)
        patches = (used + patch - 1) // patch
        missing = torch.full((groups, series, patches * patch - used), float("nan"))
        context = torch.cat([missing, context[..., length - used :]], -1)
        observed = (~torch.isnan(context)).to(context.dtype)
        context, loc_scale = model.instance_norm(context)
        embeds, observed = self._embedded(
            context.unflatten(-1, (patches, patch)), observed.unflatten(-1, (patches, patch)), -patches
        )
        known = (~torch.isnan(future)).to(future.dtype)
        future, _ = model.instance_norm(future, tuple(value[..., None] for value in loc_scale))
        future_embeds, _ = self._embedded(future, known, 0)
        reg = model.shared(torch.full((1, 1, 1), model.config.reg_token_id, dtype=torch.int64))
        tokens = [embeds, reg.expand(groups, series, 1, model.model_dim), future_embeds]
        seen = (observed.sum(-1) > 0).to(context.dtype)
        real = torch.cat([seen, torch.ones((groups, series, 1 + horizon))], -1) * series_mask[..., None]
        x = torch.cat(tokens, 2) * series_mask[..., None, None]
        return x.transpose(1, 2), real, loc_scale

    def _embedded(self, values: Tensor, observed: Tensor, first: Any) -> tuple[Tensor, Tensor]:
        """Patches ``[G, V, n, patch]``, the first one at that many patches after now -> ``[G, V, n, D]``, the mask."""
        patches, patch = values.shape[2:]
        time = torch.arange(patches * patch) + first * patch
        time = time.to(values.dtype).div(self.model.chronos_config.time_encoding_scale)
        time = time.reshape(1, 1, patches, patch).expand(values.shape)
        values = torch.where(observed > 0, values, 0.0)
        return self.model.input_patch_embedding(torch.cat([time, values, observed], -1)), observed

    def _encode(self, x: Tensor, real: Tensor, series_mask: Tensor) -> Tensor:
        """``[G, N, V, D]`` -> ``[G, N, V * D]`` after the last block."""
        config = self.model.config
        heads, features = config.num_heads, config.d_kv
        groups, tokens, series, width = x.shape
        positions = torch.arange(tokens)[None]
        cos, sin = self.model.encoder.block[0].layer[0].self_attention.rope_embed(x, positions)
        time_mask = (1 - real) * _LEAST
        time_mask = time_mask[:, :, None].expand(groups, series, heads, tokens)
        time_mask = time_mask.reshape(groups, series * heads, 1, tokens)
        by_token = real.transpose(1, 2)  # [G, N, V]
        group_mask = ((1 - by_token) * _LEAST)[:, :, None, None]
        # Padding of a whole group has nobody to attend to, and what fills a group up is no series.
        mixed = (by_token.amax(2, keepdim=True) * series_mask[:, None])[..., None]

        x = x.reshape(groups, tokens, series * width)
        for block in self.model.encoder.block:
            layer = block.layer[0]
            attention = layer.self_attention
            normed = layer.layer_norm(x.reshape(groups, tokens, series, width))
            query, key, value = (
                f(normed).reshape(groups, tokens, series * heads, features).transpose(1, 2)
                for f in (attention.q, attention.k, attention.v)
            )
            query, key = _rotated(query, key, cos, sin)
            weights = (query @ key.transpose(2, 3) + time_mask).softmax(-1)
            update = (weights @ value).transpose(1, 2).reshape(groups, tokens, series, heads * features)
            x = x + attention.o(update).reshape(groups, tokens, series * width)

            layer = block.layer[1]
            attention = layer.self_attention
            apart = x.reshape(groups, tokens, series, width)
            normed = layer.layer_norm(apart)
            query, key, value = (
                f(normed).reshape(groups, tokens, series, heads, features).transpose(2, 3)
                for f in (attention.q, attention.k, attention.v)
            )
            weights = (query @ key.transpose(3, 4) + group_mask).softmax(-1)
            update = (weights @ value).transpose(2, 3).reshape(groups, tokens, series, heads * features)
            apart = apart + attention.o(update) * mixed
            x = block.layer[2](apart).reshape(groups, tokens, series * width)
        return x


class _Model(Component):
    name = "model"

    def __init__(self, model: Any) -> None:
        config = model.chronos_config
        patch, most = config.output_patch_size, config.max_output_patches
        rows = ("batch", "series")
        self._patch, self._most = patch, most
        self.inputs = (
            TensorSpec("context", "float32", (*rows, "length")),
            TensorSpec("future", "float32", (*rows, "horizon", patch)),
            TensorSpec("series_mask", "float32", rows),
        )
        self.outputs = (TensorSpec("quantiles", "float32", (*rows, len(config.quantiles), "horizon", patch)),)
        self.hints = Hints(token_mask="token_mask", apart="apart")

    def module(self, model: Any) -> nn.Module:
        return _ExportModule(detached_twin(model))

    def eager(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The original on a flat batch of the series that are there, with the longest horizon at most."""
        there = inputs["series_mask"] > 0
        future = inputs["future"][:, :, : self._most]
        rows = model(
            context=inputs["context"][there],
            future_covariates=future[there].flatten(1),
            num_output_patches=future.shape[2],
            group_ids=there.nonzero()[:, 0],
        ).quantile_preds
        out = rows.new_zeros(*there.shape, rows.shape[1], *future.shape[2:])
        out[there] = rows.unflatten(-1, future.shape[2:])
        return {"quantiles": out}

    def from_series(self, model: Any, series: NDArray[np.float32]) -> Arrays:
        """Every series a group of its own, the longest horizon, nothing known of it."""
        return self._inputs(series[:, None], self._most)

    def _inputs(self, context: NDArray[Any], horizon: int) -> Arrays:
        return {
            "context": np.ascontiguousarray(context, np.float32),
            "future": np.full((*context.shape[:2], horizon, self._patch), np.nan, np.float32),
            "series_mask": np.ones(context.shape[:2], np.float32),
        }

    def example(self, model: Any, batch: int, length: int, seed: int = 0) -> Arrays:
        """Random walks in groups; the number of series, the horizon, and what is known of it vary with the seed.

        Some groups have fewer series than the largest, some series known futures, and some begin late.
        """
        rng = np.random.default_rng(seed)
        series, horizon = (
            (3, min(2, self._most))
            if seed == 0
            else (int(rng.integers(1, 4)), int(rng.integers(1, self._most + 1)))
        )
        out = self._inputs(rng.standard_normal((batch, series, length)).cumsum(-1), horizon)
        for group in range(batch):
            out["series_mask"][group, int(rng.integers(1, series + 1)) :] = 0
            for row in range(series):
                out["context"][group, row, : int(rng.integers(0, length)) if rng.random() < 0.3 else 0] = (
                    np.nan
                )
                if rng.random() < 0.4:
                    out["future"][group, row] = rng.standard_normal((horizon, self._patch))
        return out


class Chronos2(TransformersFamily):
    """Amazon's Chronos-2 (``Chronos2Model``): univariate, multivariate and with covariates."""

    name = "chronos-2"
    default = PATCHES
    hides_padding = True
    model_class, config_class, needs = Chronos2Model, Chronos2CoreConfig, ("chronos_config",)
    card = Card(
        (
            (
                "model",
                "`context` [groups, series, steps], `future` [groups, series, horizon in patches, patch] (NaN: not "
                "known), `series_mask` [groups, series] -> `quantiles` [groups, series, levels, horizon, patch]",
            ),
        ),
        "patches, concatenated over a group's series: one decision for each group; REG and horizon stand apart",
        runtimes=("ONNX Runtime",),
        unsupported=("other runtimes: not tried",),
    )
    published = Published(
        "amazon/chronos-2",
        {
            "architectures": ["Chronos2Model"], "model_type": "t5", "d_model": 768, "d_kv": 64, "d_ff": 3072,
            "num_layers": 12, "num_heads": 12, "vocab_size": 2, "reg_token_id": 1, "pad_token_id": 0,
            "feed_forward_proj": "relu",
            "chronos_config": {
                "context_length": 8192, "input_patch_size": 16, "input_patch_stride": 16, "output_patch_size": 16,
                "max_output_patches": 64, "use_reg_token": True, "use_arcsinh": True, "time_encoding_scale": 8192,
                "quantiles": [0.01, 0.05, *(i / 20 for i in range(2, 19)), 0.95, 0.99],
            },
        },
    )  # fmt: skip

    def matches(self, config: Mapping[str, Any]) -> bool:
        return super().matches(config) or config.get("model_type") in NATIVE

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        return super().build(checked(config))

    def components(self, model: Any) -> tuple[Component, ...]:
        return (_Model(model),)

    def merge_points(self, model: Any) -> MergePoints:
        return MergePoints(len(model.encoder.block))

    def instrument(self, model: Any, run: MergeRun) -> list[RemovableHandle]:
        return instrument(model, run)

    def horizon(self, model: Any) -> int:
        return int(model.chronos_config.max_output_patches * model.chronos_config.output_patch_size)

    def context(self, model: Any) -> int:
        return int(model.chronos_config.context_length)

    def quantile_levels(self, model: Any) -> tuple[float, ...]:
        return tuple(model.chronos_config.quantiles)

    def objective(self, model: Any) -> Objective:
        """Every series a group of its own, the longest horizon."""
        return Quantiles(
            _Model(model),
            self.horizon(model),
            self.quantile_levels(model),
            lambda outputs: outputs["quantiles"][:, 0].flatten(2),
        )

    def pipeline(self, model: Any) -> dict[str, Any]:
        return super().pipeline(model) | {
            "quantiles": list(self.quantile_levels(model)),
            "patch_size": int(model.chronos_config.output_patch_size),
        }

    def forecast(
        self, model: Any, run: Callable[[Arrays], Arrays], series: NDArray[np.float32], seed: int = 0
    ) -> NDArray[np.float32]:
        quantiles = run(_Model(model).from_series(model, series))["quantiles"][:, 0]
        return quantiles.reshape(*quantiles.shape[:2], -1)
