"""What the families built on Hugging Face's T5Stack have in common: their twin for export, and their hooks for merging
in eager PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.models.t5 import modeling_t5

from tsmerge_export.families.hf import ReplacedForward, eager_attention
from tsmerge_export.merge.run import MergeRun


def exportable(model: nn.Module) -> Any:
    """A twin (see :func:`~tsmerge_export.families.hf.eager_attention`) whose encoder adds bias and mask one by one.

    Up to transformers 5.12 T5 added the mask to the bias once for all layers: a sum in which no rewriter can tell
    positions, which may be renumbered, from padding.
    """
    twin: Any = eager_attention(model)
    if not hasattr(modeling_t5, "eager_attention_forward"):
        for block in twin.encoder.block:
            attention = block.layer[0].SelfAttention
            ReplacedForward(attention, partial(_self_attention, attention))
    return twin


def _self_attention(
    attention: Any, hidden: Tensor, mask: Tensor | None = None, position_bias: Tensor | None = None, **_: Any
) -> tuple[Tensor, Tensor]:
    """``[B, N, D]``, ``[B, 1, N or 1, N]`` to add, ``[1, H, N, N]`` -> ``[B, N, D]`` and the bias, without the mask."""
    query, key, value = (
        part(hidden).unflatten(-1, (attention.n_heads, -1)).transpose(1, 2)
        for part in (attention.q, attention.k, attention.v)
    )
    if position_bias is None:
        position_bias = attention.compute_bias(hidden.shape[1], hidden.shape[1], device=hidden.device)
    scores = query @ key.transpose(2, 3) + position_bias
    if mask is not None:
        scores = scores + mask
    mixed = scores.softmax(-1) @ value
    return attention.o(mixed.transpose(1, 2).flatten(2)), position_bias


def instrument_encoder(encoder: nn.Module, run: MergeRun) -> list[RemovableHandle]:
    """Merge after the self-attention residual of each block of a T5 encoder stack.

    The stack's ``attention_mask [B, N]`` gives the padding. Block 0 computes the relative position bias and hands it
    on, in some versions with the mask in it, so it is caught where it is looked up and aligned anew for every later
    block.
    """
    base_bias: list[Tensor] = []
    keys: list[Tensor] = []

    def begin(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        mask = kwargs.get("attention_mask")
        run.begin(None if mask is None else (mask != 0).float())

    def align_inputs(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not run.merged:
            return None
        hidden, mask, _bias, *rest = args
        bias = run.align(base_bias[0], 2, 3, positional=True)
        proportion = run.proportion(hidden.shape[0])
        if proportion is not None:
            bias = bias + proportion
        return (hidden, None, _masked(bias, None if mask is None else run.align(mask, 2, 3)), *rest), kwargs

    def keep_bias(_module: nn.Module, _args: Any, output: Tensor) -> None:
        base_bias[:] = [output.permute(2, 0, 1)[None]]  # [N, N, H] -> [1, H, N, N]

    def keep_keys(heads: int) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
            keys[:] = [output.unflatten(-1, (heads, -1))]

        return hook

    def merge(layer: int) -> Any:
        def hook(_module: nn.Module, _args: Any, output: tuple[Any, ...]) -> Any:
            hidden, *rest = output
            return (run.merge(layer, hidden, *keys), *rest)

        return hook

    first: Any = encoder.block[0]  # type: ignore[index]
    handles = [
        encoder.register_forward_pre_hook(begin, with_kwargs=True),
        first.layer[0].SelfAttention.relative_attention_bias.register_forward_hook(keep_bias),
    ]
    for layer, block in enumerate(encoder.block):  # type: ignore[arg-type]
        handles.append(block.register_forward_pre_hook(align_inputs, with_kwargs=True))
        attention = block.layer[0].SelfAttention
        handles.append(attention.k.register_forward_hook(keep_keys(attention.n_heads)))
        handles.append(block.layer[0].register_forward_hook(merge(layer)))
    return handles


def _masked(bias: Tensor, mask: Tensor | None) -> Tensor:
    """Both in one: T5's attention adds the mask to a bias that it is given in some versions of transformers only."""
    if mask is None:
        return bias
    if mask.dtype == torch.bool:
        hidden = torch.finfo(bias.dtype).min
        mask = torch.zeros_like(mask, dtype=bias.dtype).masked_fill(~mask, hidden)
    return bias + mask


def _weighed(kwargs: dict[str, Any], log_size: Tensor) -> dict[str, Any]:
    """Arguments of a cross-attention whose scores get ``log_size [B, 1, 1, M]`` besides."""
    return {**kwargs, "mask": None, "position_bias": _masked(log_size, kwargs.get("mask"))}


@contextmanager
def weighed_cross_attention(decoder: nn.Module, log_size: Tensor) -> Iterator[None]:
    """Inside the block a T5 decoder stack adds ``log_size [B, M]`` to the scores of its cross-attention.

    For an encoder that merged somewhere else. The decoder's rows are B, or a multiple of B with rows repeated in place.
    """

    def weigh(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rows = log_size[:, None, None, :].repeat_interleave(args[0].shape[0] // len(log_size), dim=0)
        return args, _weighed(kwargs, rows)

    handles = []
    if bool(log_size.any()):
        for block in decoder.block:  # type: ignore[union-attr]
            handles.append(block.layer[1].EncDecAttention.register_forward_pre_hook(weigh, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def instrument_decoder(decoder: nn.Module, run: MergeRun) -> list[RemovableHandle]:
    """Let the cross-attention of a T5 decoder stack follow the merged encoder: its mask, and proportional scores."""

    def align_mask(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        mask = kwargs.get("encoder_attention_mask")
        hidden = kwargs.get("encoder_hidden_states")
        # A caller that aligned the mask itself (it has the encoder's merged length) is left alone.
        if mask is None or hidden is None or not run.merged:
            return args, kwargs
        if mask.shape[-1] != hidden.shape[1] or run.began_with(mask):
            kwargs = {**kwargs, "encoder_attention_mask": run.align(mask, mask.dim() - 1)}
        return args, kwargs

    def weigh(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # T5 has no position bias in its cross-attention: the argument is None, or zeros of the first block.
        proportion = run.proportion(args[0].shape[0])
        return args, kwargs if proportion is None else _weighed(kwargs, proportion)

    handles = [decoder.register_forward_pre_hook(align_mask, with_kwargs=True)]
    for block in decoder.block:  # type: ignore[union-attr]
        handles.append(block.layer[1].EncDecAttention.register_forward_pre_hook(weigh, with_kwargs=True))
    return handles
