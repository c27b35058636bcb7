"""Merging in the eager decoder of TimesFM 2.5: after a layer's attention residual, which lies inside its forward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tsmerge_export.families.timesfm_hooks import Follower
from tsmerge_export.merge.run import MergeRun


class _Follower(Follower):
    def __init__(self, run: MergeRun, patch: int) -> None:
        super().__init__(run)
        self.patch = patch
        self.merged: Tensor
        self.update: Tensor

    def start(self, _module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        values, padding = kwargs["past_values"], kwargs.get("past_values_padding")
        padding = torch.zeros_like(values) if padding is None else padding[:, : values.shape[1]]
        self.begin((padding.unflatten(1, (-1, self.patch))[..., -1] < 0.5).float())

    def align(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self.run.merged:
            return None
        # Positions count from the first real token, in each row another one: they are gathered, never cut.
        rope = tuple(self.run.align(each, 1) for each in kwargs["position_embeddings"])
        mask = self.mask(kwargs.get("attention_mask"), args[0])
        aligned = {"position_embeddings": rope, "attention_mask": mask}
        return args, {**kwargs, **aligned, "position_ids": self.run.align(kwargs["position_ids"], 1)}

    def keep_key(self, _module: nn.Module, _args: Any, output: Tensor) -> None:
        self.key = output.transpose(1, 2)

    def merge(self, layer: int) -> Any:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            self.merged = self.run.merge(layer, args[0], self.key)
            return (self.merged,)

        return hook

    def take_update(self, _module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        """The layer adds it to its own unmerged residual, so it gets nothing to add; :meth:`add` does it right."""
        self.update = output
        return output.new_zeros(())

    def add(self, _module: nn.Module, _args: Any, _output: Tensor) -> Tensor:
        return self.update + self.merged


def instrument_decoder(decoder: Any, run: MergeRun) -> list[RemovableHandle]:
    """Merge after the attention residual of each layer; every token is given its output back at the end."""
    follow = _Follower(run, decoder.config.patch_length)
    handles = [decoder.register_forward_pre_hook(follow.start, with_kwargs=True)]
    for index, layer in enumerate(decoder.layers):
        handles += [
            layer.register_forward_pre_hook(follow.align, with_kwargs=True),
            layer.self_attn.k_norm.register_forward_hook(follow.keep_key),
            layer.self_attn.register_forward_hook(follow.keep_out_padding),
            layer.pre_feedforward_layernorm.register_forward_pre_hook(follow.merge(index)),
            layer.post_feedforward_layernorm.register_forward_hook(follow.take_update),
            layer.register_forward_hook(follow.add),
        ]
    handles.append(decoder.register_forward_hook(follow.unmerge))
    return handles
