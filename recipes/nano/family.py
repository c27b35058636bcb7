"""What a model family gives to the training loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from tsmerge_export.tools.distill.synthetic import Array, Shares


@dataclass(frozen=True)
class Architecture:
    """Sizes of a nano model; context in time steps, tokens = size of the vocabulary (chronos-t5 only)."""

    d_model: int
    d_ff: int
    layers: int
    decoder_layers: int
    heads: int
    context: int
    tokens: int

    def t5_sizes(self) -> dict[str, Any]:
        """Keyword arguments of `T5Config` that both families share; no dropout, a nano model underfits."""
        return {
            "d_model": self.d_model,
            "d_kv": self.d_model // self.heads,
            "d_ff": self.d_ff,
            "num_layers": self.layers,
            "num_decoder_layers": self.decoder_layers,
            "num_heads": self.heads,
            "dropout_rate": 0.0,
            "feed_forward_proj": "relu",
            "is_encoder_decoder": True,
        }


@dataclass(frozen=True)
class Stage:
    """One stretch of the curriculum: windows per batch, context in steps, and where windows come from."""

    batch: int
    context: int
    shares: Shares


class Family(Protocol):
    """Builds, trains and wraps one kind of model."""

    name: str
    validation_windows: int
    defaults: Architecture
    learning_rate: float

    def stage(self, progress: float) -> Stage:
        """The curriculum at `progress` (0 to 1)."""

    def build(self, arch: Architecture) -> nn.Module:
        """A freshly initialised model."""

    def tensors(self, model: nn.Module, contexts: Array, targets: Array) -> tuple[torch.Tensor, ...]:
        """What `loss` takes, from one batch: contexts [B, L] (NaN = unknown), targets [B, 64]."""

    def loss(self, model: nn.Module, *tensors: torch.Tensor) -> torch.Tensor:
        """Training loss of one batch; tensors in and out only, so that torch.compile can take it whole."""

    def point(self, model: nn.Module, contexts: Array) -> Array:
        """Point forecast [B, 64] of contexts [B, L]: the one the upstream pipeline gives beside quantiles."""
