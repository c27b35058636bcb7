"""PatchTST: patches of every channel through an encoder of their own, one head over all patches, their mean or CLS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import PatchTSTConfig, PatchTSTForPrediction

from tsmerge_export.errors import UnsupportedError
from tsmerge_export.families.base import PATCHES, Card, Component, Handle, Hints, MergePoints, Published
from tsmerge_export.families.channels import COMPONENT, ChannelFamily, ChannelModel
from tsmerge_export.families.hf import LastAxis, ReplacedForward, eager_attention
from tsmerge_export.merge.run import MergeRun


def _folded(layer: Any, hidden: Tensor, run: MergeRun | None, index: int) -> Tensor:
    """An encoder layer over ``hidden [R, N, D]``, a row for each channel, with merging after its attention.

    As ``PatchTSTEncoderLayer.forward`` computes it, which keeps the number of tokens from before the attention.
    """
    mask = None if run is None else run.proportion(hidden.shape[0])
    keys: list[Tensor] = []
    heads = layer.self_attn.num_heads
    hook = layer.self_attn.k_proj.register_forward_hook(
        lambda _module, _args, output: keys.append(output.unflatten(-1, (heads, -1)))
    )
    try:
        attended = layer.self_attn(
            hidden_states=layer.norm_sublayer1(hidden) if layer.pre_norm else hidden, attention_mask=mask
        )[0]  # of two or three, by the version of transformers
    finally:
        hook.remove()
    hidden = hidden + layer.dropout_path1(attended)
    if not layer.pre_norm:
        hidden = layer.norm_sublayer1(hidden)
    if run is not None:
        hidden = run.merge(index, hidden, *keys)
    if layer.pre_norm:
        return hidden + layer.dropout_path3(layer.ff(layer.norm_sublayer3(hidden)))
    return layer.norm_sublayer3(hidden + layer.dropout_path3(layer.ff(hidden)))  # type: ignore[no-any-return]


class _ExportModule(nn.Module):
    """``PatchTSTForPrediction.forward``, the channels folded into the batch before the encoder's layers, not in each.

    Layers and head then see rows ``[B * C, 1, N, D]``, each with its own tokens, so that rows never part or join
    between merges. With channel attention there is no such fold, and no merging.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, past_values: Tensor, past_observed_mask: Tensor) -> tuple[Tensor, ...]:
        """``[B, L, C]`` float32 twice -> the outputs of :class:`_Model`."""
        config, core = self.model.config, self.model.model
        scaled, loc, scale = core.scaler(past_values, past_observed_mask)
        hidden = core.encoder.positional_encoder(core.encoder.embedder(core.patchifier(scaled)))
        batch, channels, tokens, features = hidden.shape
        rows = (batch, channels) if config.channel_attention else (batch * channels, 1)
        hidden = hidden.reshape(*rows, tokens, features)
        for layer in core.encoder.layers:
            hidden = layer(hidden)[0]
        found = self.model.head(hidden)  # [rows, H, 1], or with channel attention [B, H, C]
        parts = found if isinstance(found, tuple) else (found,)
        if not config.channel_attention:
            parts = tuple(part.reshape(batch, channels, -1).transpose(1, 2) for part in parts)
        if self.model.distribution_output is not None:
            return (*parts, loc, scale)
        return (parts[0] * scale + loc,)


class _Model(ChannelModel):
    def __init__(self, model: Any) -> None:
        super().__init__(model, "past_observed_mask")
        self.mergeable = not model.config.channel_attention
        self.hints = Hints(protect_first=int(bool(model.config.use_cls_token)))

    def module(self, model: Any) -> nn.Module:
        twin: Any = eager_attention(model)
        if self._parameters:
            head = twin.head.projection if twin.config.share_projection else twin.head.projections[0]
            head.domain_map = LastAxis(head.domain_map)
        return _ExportModule(twin)


class PatchTST(ChannelFamily):
    """``PatchTSTForPrediction`` of transformers, any pooling, channels independent of each other."""

    name = "patchtst"
    default = PATCHES
    model_class, config_class = PatchTSTForPrediction, PatchTSTConfig
    card = Card(
        (COMPONENT,),
        "patches, each channel its own; the length is fixed by the config",
        "all; unmerged before a flatten, mean or max head (a barrier), not before a CLS head",
        unsupported=(
            "merging with `channel_attention`: it needs the same patches in all channels, and each merges its own",
            "`share_projection=false` with several channels: fails in transformers itself",
            "heads other than `PatchTSTForPrediction`: export them to `.onnx`, and give that file",
        ),
    )
    published = Published(
        "PatchTST/64 of arXiv 2211.14730 (d 128, 3 layers, 64 patches)",
        {
            "architectures": ["PatchTSTForPrediction"], "model_type": "patchtst", "num_input_channels": 7,
            "context_length": 512, "patch_length": 16, "patch_stride": 8, "num_hidden_layers": 3, "d_model": 128,
            "num_attention_heads": 16, "ffn_dim": 256, "pooling_type": None, "prediction_length": 96,
        },
    )  # fmt: skip

    def components(self, model: Any) -> tuple[Component, ...]:
        if not model.config.share_projection and model.config.num_input_channels > 1:
            raise UnsupportedError(
                "patchtst: share_projection=false with several channels fails in transformers itself"
            )
        return (_Model(model),)

    def merge_points(self, model: Any) -> MergePoints:
        if model.config.channel_attention:
            return MergePoints(
                0, reason="channel attention needs the same patches in all channels, and each merges its own"
            )
        layers = len(model.model.encoder.layers)
        return MergePoints(layers, protect_first=int(bool(model.config.use_cls_token)))

    def instrument(self, model: Any, run: MergeRun) -> Sequence[Handle]:
        encoder = model.model.encoder

        def merging(layer: Any, index: int) -> Callable[..., Any]:
            def forward(hidden_state: Tensor, output_attentions: bool | None = None) -> tuple[Tensor]:
                rows = hidden_state.shape[:2]
                return (_folded(layer, hidden_state.flatten(0, 1), run, index).unflatten(0, rows),)

            return forward

        def unmerge(_module: nn.Module, _args: Any, output: Any) -> Any:
            hidden = output.last_hidden_state
            output.last_hidden_state = run.unmerge(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])
            return output

        return [
            encoder.register_forward_pre_hook(lambda *_: run.begin(None)),
            *(ReplacedForward(layer, merging(layer, i)) for i, layer in enumerate(encoder.layers)),
            encoder.register_forward_hook(unmerge),
        ]
