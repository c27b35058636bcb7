"""What the families built on Hugging Face's T5Stack have in common: their hooks for merging in eager PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tsmerge_export.merge.run import MergeRun


def instrument_encoder(encoder: nn.Module, run: MergeRun) -> list[RemovableHandle]:
    """Merge after the self-attention residual of each block of a T5 encoder stack.

    The stack's ``attention_mask [B, N]`` gives the padding. Block 0 computes the relative position bias
    ``[1, H, N, N]`` and hands it on, so it is caught there and aligned anew for every later block.
    """
    base_bias: list[Tensor] = []
    keys: list[Tensor] = []

    def begin(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        mask = kwargs.get("attention_mask")
        base_bias.clear()
        run.begin(None if mask is None else (mask != 0).float())

    def align_inputs(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not run.merged:
            return None
        hidden, mask, _bias, *rest = args
        mask = mask if mask is None else run.align(mask, 2, 3)
        bias = run.align(base_bias[0], 2, 3, positional=True)
        proportion = run.proportion(hidden.shape[0])
        if proportion is not None:
            bias = bias + proportion
        return (hidden, mask, bias, *rest), kwargs

    def keep_keys(heads: int) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
            keys[:] = [output.unflatten(-1, (heads, -1))]

        return hook

    def merge(layer: int) -> Any:
        def hook(_module: nn.Module, _args: Any, output: tuple[Any, ...]) -> Any:
            hidden, bias, *rest = output
            if layer == 0:
                base_bias[:] = [bias]
            return (run.merge(layer, hidden, *keys), bias, *rest)

        return hook

    handles = [encoder.register_forward_pre_hook(begin, with_kwargs=True)]
    for layer, block in enumerate(encoder.block):  # type: ignore[arg-type]
        handles.append(block.register_forward_pre_hook(align_inputs, with_kwargs=True))
        attention = block.layer[0].SelfAttention
        handles.append(attention.k.register_forward_hook(keep_keys(attention.n_heads)))
        handles.append(block.layer[0].register_forward_hook(merge(layer)))
    return handles


@contextmanager
def weighed_cross_attention(decoder: nn.Module, log_size: Tensor) -> Iterator[None]:
    """Inside the block a T5 decoder stack adds ``log_size [B, M]`` to the scores of its cross-attention.

    For an encoder that merged somewhere else. The decoder's rows are B, or a multiple of B with rows repeated in place.
    """

    def weigh(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rows = log_size[:, None, None, :].repeat_interleave(args[0].shape[0] // len(log_size), dim=0)
        return args, {**kwargs, "position_bias": rows}

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
        if run.merged and mask is not None and hidden is not None and mask.shape[-1] != hidden.shape[1]:
            kwargs = {**kwargs, "encoder_attention_mask": run.align(mask, mask.dim() - 1)}
        return args, kwargs

    def weigh(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # T5 has no position bias in its cross-attention: the argument is None, or zeros of the first block.
        proportion = run.proportion(args[0].shape[0])
        return (args, kwargs) if proportion is None else (args, {**kwargs, "position_bias": proportion})

    handles = [decoder.register_forward_pre_hook(align_mask, with_kwargs=True)]
    for block in decoder.block:  # type: ignore[union-attr]
        handles.append(block.layer[1].EncDecAttention.register_forward_pre_hook(weigh, with_kwargs=True))
    return handles
