"""Merging in the eager decoders of TimesFM: what the hooks of all versions have in common."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tsmerge_export.merge.run import MergeRun


class Follower:
    """The hooks of one decoder."""

    def __init__(self, run: MergeRun) -> None:
        self.run = run
        self.real: Tensor  # [B, N]
        self.key: Tensor  # [B, N, H, d], of the attention just computed

    def begin(self, real: Tensor) -> None:
        """Start a forward; ``real [B, N]`` float32 is 0 where a token is padding."""
        self.real = real
        self.run.begin(real)

    def mask(self, mask: Tensor | None, x: Tensor) -> Tensor | None:
        """The attention mask of a layer over ``x [B, M, D]``, from that of the original tokens (None: causal)."""
        mask = None if mask is None else self.run.align(mask, 2, 3)
        proportion = self.run.proportion(len(x))
        return mask if proportion is None else _additive(mask, x) + proportion

    def keep_out_padding(self, _module: nn.Module, _args: Any, output: tuple[Tensor, Any]) -> Any:
        """A padded token has nobody to attend to, and what it gets depends on how attention is computed. Nothing reads
        it, but merging compares it."""
        real = self.run.align(self.real, 1)[..., None]
        return (torch.where(real > 0, output[0], 0.0), *output[1:])

    def unmerge(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        """Give every token its output back: what follows takes the last one by its index."""
        output.last_hidden_state = self.run.unmerge(output.last_hidden_state)
        return output


def _additive(mask: Tensor | None, x: Tensor) -> Tensor:
    """``[B or 1, 1, M, M]`` to add to scores: of a mask of booleans, or a causal one where attention was given none."""
    if mask is None:
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()[None, None]
    if mask.dtype != torch.bool:
        return mask
    return torch.where(mask, 0.0, torch.finfo(x.dtype).min)
