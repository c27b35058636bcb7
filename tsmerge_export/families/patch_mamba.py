"""A forecaster on a state-space model: patches of the series, Mamba-2 or Mamba over them, quantiles.

The model is this project's own (``recipes/mamba_forecaster.py`` trains one); its blocks are those of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import Mamba2Config, Mamba2Model, MambaConfig, MambaModel

from tsmerge_export.errors import UsageError
from tsmerge_export.families.base import (
    PATCHES,
    Arrays,
    Card,
    Component,
    Family,
    Hints,
    MergePoints,
    Published,
    TensorSpec,
)
from tsmerge_export.families.hf import detached_twin, from_config
from tsmerge_export.families.mamba import scan_mixers
from tsmerge_export.families.mamba2 import readable_limit, stored_limit
from tsmerge_export.families.objective import Objective, Quantiles
from tsmerge_export.families.state_space import BETWEEN, instrument_blocks, tokens_to_trace
from tsmerge_export.merge.run import MergeRun

ARCHITECTURE = "PatchMambaForForecasting"
_BACKBONES = {"mamba2": (Mamba2Model, Mamba2Config), "mamba": (MambaModel, MambaConfig)}
# Of a series divided by its largest value: less is rounding, and the series is constant.
_LEAST_SCALE = 1e-5


@dataclass
class PatchMambaConfig:
    """Settings of a forecaster.

    Attributes:
        backbone: config of a ``Mamba2Model`` or ``MambaModel`` of transformers, with its ``model_type``.
        patch_length: steps per token. context_length: steps read at most.
        prediction_length: steps forecast. quantiles: levels, rising, 0.5 among them.
        tsmerge: what the weights were trained for, see :mod:`tsmerge_export.families.trained`.
    """

    backbone: dict[str, Any] = field(default_factory=lambda: {"model_type": "mamba2"})
    patch_length: int = 8
    context_length: int = 512
    prediction_length: int = 64
    quantiles: tuple[float, ...] = tuple(i / 10 for i in range(1, 10))
    tsmerge: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready settings."""
        settings = {**asdict(self), "quantiles": list(self.quantiles)}
        return {name: value for name, value in settings.items() if value is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PatchMambaConfig:
        """Inverse of :meth:`to_dict`; other keys are left out. Raises ValueError for settings that do not fit."""
        config = cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})
        config.quantiles = tuple(float(level) for level in config.quantiles)
        for name in ("patch_length", "context_length", "prediction_length"):
            if not isinstance(getattr(config, name), int) or getattr(config, name) < 1:
                raise ValueError(f"{name} must be a whole number from 1")
        if list(config.quantiles) != sorted(config.quantiles) or 0.5 not in config.quantiles:
            raise ValueError("quantiles must rise and hold 0.5")
        if config.backbone.get("model_type") not in _BACKBONES:
            raise ValueError(f"backbone must have a model_type out of {', '.join(_BACKBONES)}")
        return config


class PatchMambaForForecasting(nn.Module):
    """The forecaster. A missing value is NaN, and a context is filled with them on the left to whole patches."""

    def __init__(self, config: PatchMambaConfig) -> None:
        super().__init__()
        self.config = config
        backbone_class, config_class = _BACKBONES[config.backbone["model_type"]]
        # Tokens are patches: there is nothing to look up.
        nothing = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
        settings = {**config.backbone, **nothing, "vocab_size": 1}
        if "time_step_limit" in settings:
            settings["time_step_limit"] = readable_limit(settings["time_step_limit"])
        backbone: Any = from_config(backbone_class, config_class, settings)
        self.backbone = backbone
        width = int(backbone.config.hidden_size)
        self.embed = nn.Sequential(
            nn.Linear(2 * config.patch_length, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.head = nn.Linear(width, len(config.quantiles) * config.prediction_length)

    def forward(self, context: Tensor) -> Tensor:
        """``context [B, L]`` float32, L >= 1 -> quantiles ``[B, Q, H]`` of the steps behind it."""
        tokens, loc, scale = self.tokens(context)
        last = self.backbone(inputs_embeds=tokens, use_cache=False).last_hidden_state[:, -1]
        return self.quantiles(last) * scale[..., None] + loc[..., None]

    def every(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Forecasts behind every patch, in units of the series itself: ``[B, N, Q, H]``, loc and scale ``[B, 1]``."""
        tokens, loc, scale = self.tokens(context)
        return (
            self.quantiles(self.backbone(inputs_embeds=tokens, use_cache=False).last_hidden_state),
            loc,
            scale,
        )

    def quantiles(self, hidden: Tensor) -> Tensor:
        """``[..., D]`` -> ``[..., Q, H]``."""
        return self.head(hidden).unflatten(-1, (len(self.config.quantiles), self.config.prediction_length))

    def tokens(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embedded patches ``[B, N, D]``, mean and deviation ``[B, 1]`` of what is observed (else 0 and 1)."""
        batch, length = context.shape
        patch = self.config.patch_length
        patches = (length + patch - 1) // patch
        missing = context.new_full((batch, patches * patch - length), float("nan"))
        context = torch.cat([missing, context], 1)
        seen = ~torch.isnan(context)
        values = torch.where(seen, context, 0.0)
        most = values.abs().amax(1, keepdim=True)
        most = torch.where(most > 0, most, 1.0)
        values, count = values / most, seen.sum(1, keepdim=True).clamp(min=1)
        loc = values.sum(1, keepdim=True) / count
        values = torch.where(seen, values - loc, 0.0)
        scale = (values.square().sum(1, keepdim=True) / count).sqrt()
        scale = torch.where(scale > _LEAST_SCALE, scale, 1.0)
        rows = torch.cat(
            [(v.reshape(batch, patches, patch)) for v in (values / scale, seen.to(values.dtype))], -1
        )
        return self.embed(rows), loc * most, scale * most


class _Model(Component):
    name = "model"

    def __init__(self, model: PatchMambaForForecasting) -> None:
        levels, horizon = len(model.config.quantiles), model.config.prediction_length
        self.inputs = (TensorSpec("context", "float32", ("batch", "length")),)
        self.outputs = (TensorSpec("quantiles", "float32", ("batch", levels, horizon)),)
        self.hints = Hints(protect_last=1)

    def module(self, model: Any) -> nn.Module:
        twin: Any = detached_twin(model)
        if model.config.backbone["model_type"] == "mamba":
            scan_mixers(twin.backbone)
        return twin

    def eager(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"quantiles": model(inputs["context"])}

    def from_series(self, model: Any, series: NDArray[np.float32]) -> Arrays:
        cut = series[:, -model.config.context_length :]
        return {"context": np.ascontiguousarray(cut, np.float32)}

    def to_trace(self, model: Any, batch: int, length: int) -> Arrays:
        """See :func:`~tsmerge_export.families.state_space.tokens_to_trace`; the first patch is not full."""
        patch = model.config.patch_length
        tokens = tokens_to_trace(model.backbone.config, -(-length // patch))
        return {"context": np.zeros((batch, max(1, tokens * patch - 1)), np.float32)}


class PatchMamba(Family):
    """:class:`PatchMambaForForecasting`; the last token, which gives the forecast, takes no part in merging."""

    name = "patch-mamba"
    default = PATCHES
    card = Card(
        (("model", "`context` -> `quantiles`"),),
        "patches, by Mamba-2 or Mamba; the model is this project's own",
        **BETWEEN,  # type: ignore[arg-type]
    )
    published = Published(
        "no published one: Mamba-2 of state-spaces/mamba2-130m over patches",
        {
            "architectures": [ARCHITECTURE], "patch_length": 8, "context_length": 8192, "prediction_length": 64,
            "backbone": {
                "model_type": "mamba2", "hidden_size": 768, "num_heads": 24, "head_dim": 64, "state_size": 128,
                "n_groups": 1, "num_hidden_layers": 24, "chunk_size": 256, "vocab_size": 1,
            },
        },
    )  # fmt: skip

    def matches(self, config: Mapping[str, Any]) -> bool:
        return ARCHITECTURE in (config.get("architectures") or ())

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        try:
            settings = PatchMambaConfig.from_dict(config)
        except (TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"config.json does not describe a {ARCHITECTURE}: {error}") from error
        return PatchMambaForForecasting(settings).eval()

    def config_of(self, model: Any) -> dict[str, Any]:
        config = {**model.config.to_dict(), "architectures": [ARCHITECTURE], "model_type": self.name}
        if "time_step_limit" in config["backbone"]:
            config["backbone"]["time_step_limit"] = stored_limit(config["backbone"]["time_step_limit"])
        return config

    def components(self, model: Any) -> tuple[Component, ...]:
        return (_Model(model),)

    def merge_points(self, model: Any) -> MergePoints:
        return MergePoints(len(model.backbone.layers), protect_last=1)

    def instrument(self, model: Any, run: MergeRun) -> list[RemovableHandle]:
        return instrument_blocks(model.backbone, run)

    def horizon(self, model: Any) -> int:
        return int(model.config.prediction_length)

    def context(self, model: Any) -> int:
        return int(model.config.context_length)

    def quantile_levels(self, model: Any) -> tuple[float, ...]:
        return tuple(model.config.quantiles)

    def objective(self, model: Any) -> Objective:
        return Quantiles(_Model(model), self.horizon(model), self.quantile_levels(model))

    def forecast(
        self, model: Any, run: Callable[[Arrays], Arrays], series: NDArray[np.float32], seed: int = 0
    ) -> NDArray[np.float32]:
        return run(_Model(model).from_series(model, series))["quantiles"]
