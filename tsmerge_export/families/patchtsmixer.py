"""PatchTSMixer: an MLP over the patches of a window. It has no place for merging, and is exported as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from transformers import PatchTSMixerConfig, PatchTSMixerForPrediction

from tsmerge_export.families.base import Card, Component, Handle, Hints, MergePoints, Published
from tsmerge_export.families.channels import COMPONENT, ChannelFamily, ChannelModel
from tsmerge_export.families.hf import LastAxis, detached_twin
from tsmerge_export.merge.run import MergeRun

_REASON = (
    "it mixes patches by a matrix of fixed size, a weight for each pair of places, which fits no fewer tokens"
)


class _ExportModule(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, past_values: Tensor, observed_mask: Tensor) -> tuple[Tensor, ...]:
        """``[B, L, C]`` float32 twice -> the outputs of the component."""
        model: Any = self.model
        core = model.model(past_values, observed_mask=observed_mask)
        found = model.head(core.last_hidden_state)
        chosen = model.config.prediction_channel_indices
        loc, scale = (x if chosen is None else x[..., chosen] for x in (core.loc, core.scale))
        # The original makes a distribution here, which looks at the values of its parameters.
        return (*found, loc, scale) if isinstance(found, tuple) else (found * scale + loc,)


class _Model(ChannelModel):
    mergeable = False
    hints = Hints()

    def __init__(self, model: Any) -> None:
        indices = model.config.prediction_channel_indices
        super().__init__(model, "observed_mask", None if indices is None else len(indices))

    def module(self, model: Any) -> nn.Module:
        twin: Any = detached_twin(model)
        if self._parameters:
            head = twin.head.base_forecast_block
            head.domain_map = LastAxis(head.domain_map)
        return _ExportModule(twin)


class PatchTSMixer(ChannelFamily):
    """``PatchTSMixerForPrediction`` of transformers."""

    name = "patchtsmixer"
    model_class, config_class = PatchTSMixerForPrediction, PatchTSMixerConfig
    card = Card(
        (COMPONENT,),
        "patches; the length is fixed by the config",
        "none: `--merge none` only",
        unsupported=(f"merging: {_REASON}",),
    )
    published = Published(
        "ibm-granite/granite-timeseries-patchtsmixer (d 16, 8 layers, context 512)",
        {
            "architectures": ["PatchTSMixerForPrediction"], "model_type": "patchtsmixer", "context_length": 512,
            "prediction_length": 96, "num_input_channels": 7, "patch_length": 8, "patch_stride": 8, "d_model": 16,
            "num_layers": 8, "expansion_factor": 2,
        },
    )  # fmt: skip

    def components(self, model: Any) -> tuple[Component, ...]:
        return (_Model(model),)

    def merge_points(self, model: Any) -> MergePoints:
        return MergePoints(0, reason=_REASON)

    def instrument(self, model: Any, run: MergeRun) -> Sequence[Handle]:
        return ()
