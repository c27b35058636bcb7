"""Autoformer of transformers: auto-correlation and decomposition on an even grid of steps, exported without merging."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoformerConfig, AutoformerForPrediction

from tsmerge_export.errors import UnsupportedError
from tsmerge_export.families.autoformer_decoder import AtOnceDecoder, AtOnceGeneration
from tsmerge_export.families.autoformer_modules import each_alone, rewrite_modules
from tsmerge_export.families.base import Card, Family, Handle, MergePoints, Published
from tsmerge_export.families.lagged import Encoder, LaggedFamily, time_features
from tsmerge_export.families.time_series_transformer import OUTPUTS
from tsmerge_export.forecast.lagged_decoder import AT_ONCE
from tsmerge_export.merge.run import MergeRun

_REASON = (
    "auto-correlation shifts the series by whole steps and decomposition averages neighbours, so both need every step "
    "in its place; only the feed-forward between two decompositions could run on fewer"
)


class _Encoder(Encoder):
    def module(self, model: Any) -> Any:
        module = super().module(model)
        rewrite_modules(module)
        return module


class Autoformer(LaggedFamily):
    """``AutoformerForPrediction``."""

    name = "autoformer"
    model_class, config_class = AutoformerForPrediction, AutoformerConfig
    card = Card(
        (
            (
                "encoder",
                f"`past_values`, `past_observed_mask` and the features that the config has -> {OUTPUTS}",
            ),
            (
                "decoder",
                "`past_values`, time features of past and horizon, and the encoder's outputs -> the distribution of "
                "all steps at once",
            ),
        ),
        "time steps; the length is fixed by the config",
        "none: `--merge none` only",
        unsupported=(
            f"merging: {_REASON}",
            "delays of other series of a batch, which transformers mixes up: a series gets its own, in eager too",
        ),
    )
    published = Published(
        "huggingface/autoformer-tourism-monthly, with a context of 96",
        {
            "architectures": ["AutoformerForPrediction"], "model_type": "autoformer", "prediction_length": 24,
            "context_length": 96, "lags_sequence": [1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 23, 24],
            "num_time_features": 2, "d_model": 64, "encoder_layers": 4, "decoder_layers": 4, "encoder_ffn_dim": 128,
            "decoder_ffn_dim": 128, "label_length": 24, "moving_average": 25,
        },
    )  # fmt: skip

    def deterministic(self) -> Any:
        """The original hangs on no chance, but on the other series of a batch."""
        return each_alone()

    def merging_layers(self, model: Any) -> Sequence[int]:
        """None of them."""
        return ()

    def merge_points(self, model: Any) -> MergePoints:
        return MergePoints(0, reason=_REASON)

    def components(self, model: Any) -> tuple[_Encoder, AtOnceDecoder]:
        """Raises UnsupportedError for a label that the original's own decoder fails with."""
        label, context = int(model.config.label_length), int(model.config.context_length)
        if not 0 < label <= context:
            raise UnsupportedError(
                f"config.json: label_length {label} is not within 1 to {context}, the context_length; the model's own "
                "generate fails with it"
            )
        encoder = _Encoder(model, self.network_inputs, None, self.deterministic)
        return encoder, AtOnceDecoder(model, encoder, time_features(model.config), self.deterministic)

    def generation(self, model: Any) -> AtOnceGeneration:
        return AtOnceGeneration(model, self.components(model)[0], self.pipeline(model), self.deterministic)

    def pipeline(self, model: Any) -> dict[str, Any]:
        return super().pipeline(model) | AT_ONCE

    def instrument(self, model: Any, run: MergeRun) -> Sequence[Handle]:
        return ()

    # There is nothing to merge, so nothing to train for.
    objective = Family.objective

    def network_inputs(self, core: Any, given: dict[str, Any]) -> Sequence[Tensor]:
        values, temporal, loc, scale, static = core.create_network_inputs(**given)
        return torch.cat([values, temporal], -1), loc, scale, static
