"""Chronos-Bolt: patches of a series through a T5 encoder, one decoder token, quantiles of the whole horizon."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from chronos.chronos_bolt import ChronosBoltModelForForecasting
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import T5Config

from tsmerge_export.errors import UsageError
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
from tsmerge_export.families.hf import TransformersFamily
from tsmerge_export.families.objective import Objective, Quantiles
from tsmerge_export.families.t5_stack import exportable, instrument_decoder, instrument_encoder
from tsmerge_export.merge.run import MergeRun


class _ExportModule(nn.Module):
    """``ChronosBoltModelForForecasting.forward`` without its branches on the length.

    The original crops a long context and pads a short one behind ``if``s, which an exporter freezes. Here the crop
    and the left pad with NaN to a whole number of patches are index arithmetic, valid for any length >= 1.
    """

    def __init__(self, model: ChronosBoltModelForForecasting) -> None:
        super().__init__()
        self.model = model

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """``context [B, L]`` float32 -> ``quantiles [B, Q, H]``, ``token_mask [B, N]``."""
        model = self.model
        config = model.chronos_config
        batch, length = context.shape
        patch, stride = config.input_patch_size, config.input_patch_stride
        # By the smaller of two, not by what is cut off: from it TensorRT sees how long the result can be.
        used = torch.sym_min(length, config.context_length)
        whole = (used + patch - 1) // patch  # patches, did they not overlap
        missing = torch.full((batch, whole * patch - used), float("nan"))
        context = torch.cat([missing, context[:, length - used :]], 1)

        mask = (~torch.isnan(context)).to(context.dtype)
        context, loc_scale = model.instance_norm(context)
        if stride == patch:
            values, observed = (x.reshape(batch, whole, patch) for x in (context, mask))
        else:
            # The steps of every patch; an unfold would be traced for one length.
            first = torch.arange((whole * patch - patch) // stride + 1) * stride
            steps = first[:, None] + torch.arange(patch)
            values, observed = context[:, steps], mask[:, steps]
        values = torch.where(observed > 0, values, 0.0)
        embeds = model.input_patch_embedding(torch.cat([values, observed], -1))
        token_mask = (observed.sum(-1) > 0).to(embeds.dtype)
        if config.use_reg_token:
            reg = torch.full((batch, 1), model.config.reg_token_id, dtype=torch.int64)
            embeds = torch.cat([embeds, model.shared(reg)], 1)
            token_mask = torch.cat([token_mask, torch.ones_like(reg).to(embeds.dtype)], 1)

        hidden = model.encoder(attention_mask=token_mask, inputs_embeds=embeds).last_hidden_state
        output = model.output_patch_embedding(model.decode(embeds, token_mask, hidden))
        quantiles = model.instance_norm.inverse(output.reshape(batch, -1), loc_scale)
        return quantiles.reshape(batch, model.num_quantiles, config.prediction_length), token_mask


class _Model(Component):
    name = "model"

    def __init__(self, model: ChronosBoltModelForForecasting) -> None:
        config = model.chronos_config
        self.inputs = (TensorSpec("context", "float32", ("batch", "length")),)
        levels, horizon = len(config.quantiles), config.prediction_length
        self.outputs = (TensorSpec("quantiles", "float32", ("batch", levels, horizon)),)
        self.hints = Hints(token_mask="token_mask", protect_last=int(config.use_reg_token))

    def module(self, model: Any) -> nn.Module:
        return _ExportModule(exportable(model))

    def eager(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"quantiles": model(context=inputs["context"]).quantile_preds}

    def from_series(self, model: Any, series: NDArray[np.float32]) -> Arrays:
        return {"context": np.ascontiguousarray(series, np.float32)}


class ChronosBolt(TransformersFamily):
    """Amazon's Chronos-Bolt (``ChronosBoltModelForForecasting``), with or without REG token."""

    name = "chronos-bolt"
    default = PATCHES
    hides_padding = True
    model_class, config_class, needs = ChronosBoltModelForForecasting, T5Config, ("chronos_config",)
    card = Card((("model", "`context` -> `quantiles`"),), "patches, which may overlap")
    published = Published(
        "amazon/chronos-bolt-small",
        {
            "architectures": ["ChronosBoltModelForForecasting"], "model_type": "t5", "d_model": 512, "d_ff": 2048,
            "d_kv": 64, "num_heads": 8, "num_layers": 6, "num_decoder_layers": 6, "vocab_size": 2, "reg_token_id": 1,
            "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "feed_forward_proj": "relu",
            "chronos_config": {
                "context_length": 2048, "input_patch_size": 16, "input_patch_stride": 16, "prediction_length": 64,
                "quantiles": [i / 10 for i in range(1, 10)], "use_reg_token": True,
            },
        },
    )  # fmt: skip

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        own = config.get("chronos_config")
        for name in ("input_patch_size", "input_patch_stride"):
            value = own.get(name, 1) if isinstance(own, Mapping) else 1
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UsageError(
                    f"config.json: chronos_config.{name} is {value!r}, not a whole number from 1"
                )
        return super().build(config)

    def components(self, model: Any) -> tuple[Component, ...]:
        return (_Model(model),)

    def merge_points(self, model: Any) -> MergePoints:
        return MergePoints(len(model.encoder.block), protect_last=int(model.chronos_config.use_reg_token))

    def instrument(self, model: Any, run: MergeRun) -> list[RemovableHandle]:
        return instrument_encoder(model.encoder, run) + instrument_decoder(model.decoder, run)

    def horizon(self, model: Any) -> int:
        return int(model.chronos_config.prediction_length)

    def context(self, model: Any) -> int:
        return int(model.chronos_config.context_length)

    def quantile_levels(self, model: Any) -> tuple[float, ...]:
        return tuple(model.chronos_config.quantiles)

    def objective(self, model: Any) -> Objective:
        return Quantiles(_Model(model), self.horizon(model), self.quantile_levels(model))

    def pipeline(self, model: Any) -> dict[str, Any]:
        return super().pipeline(model) | {
            "quantiles": list(self.quantile_levels(model)),
            "patch_size": int(model.chronos_config.input_patch_size),
            "patch_stride": int(model.chronos_config.input_patch_stride),
        }

    def forecast(
        self, model: Any, run: Callable[[Arrays], Arrays], series: NDArray[np.float32], seed: int = 0
    ) -> NDArray[np.float32]:
        return run({"context": np.ascontiguousarray(series, np.float32)})["quantiles"]
