"""Time Series Transformer of transformers: a vanilla encoder over lagged values and time features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import TimeSeriesTransformerConfig, TimeSeriesTransformerForPrediction

from tsmerge_export.families.base import STEPS, Card, MergePoints, Published
from tsmerge_export.families.lagged import LaggedFamily

#: Of the encoder that these models share.
OUTPUTS = "`last_hidden_state`, `encoder_log_size`, `loc`, `scale`, `static_features`"
DECODER = (
    "decoder",
    "`features` of the steps so far and the encoder's states and log sizes -> their distribution",
)


class TimeSeriesTransformer(LaggedFamily):
    """``TimeSeriesTransformerForPrediction``."""

    name = "time-series-transformer"
    default = STEPS
    model_class, config_class = TimeSeriesTransformerForPrediction, TimeSeriesTransformerConfig
    card = Card(
        (
            (
                "encoder",
                f"`past_values`, `past_observed_mask` and the features that the config has -> {OUTPUTS}",
            ),
            DECODER,
        ),
        "time steps; the length is fixed by the config",
        "all, in the encoder; its states stay merged",
        unsupported=(
            "a cache in the decoder: each step computes the steps before it again, as in `generate`",
        ),
    )
    published = Published(
        "huggingface/time-series-transformer-tourism-monthly, with a context of 512",
        {
            "architectures": ["TimeSeriesTransformerForPrediction"], "model_type": "time_series_transformer",
            "prediction_length": 24, "context_length": 512, "lags_sequence": [1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 23, 24],
            "num_time_features": 2, "d_model": 64, "encoder_layers": 4, "decoder_layers": 4,
            "encoder_ffn_dim": 128, "decoder_ffn_dim": 128,
        },
    )  # fmt: skip

    def merging_layers(self, model: Any) -> Sequence[int]:
        """All of them."""
        return range(len(model.model.encoder.layers))

    def merge_points(self, model: Any) -> MergePoints:
        return MergePoints(len(self.merging_layers(model)))
