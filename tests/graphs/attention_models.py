"""Encoders built of torch's own attention modules, and of packed attention as in vision transformers; all tiny."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

WIDTH, HEADS, LAYERS = 16, 2, 3


class TorchEncoder(nn.Module):
    """``nn.TransformerEncoder``: ``x [B, N, 3]`` -> ``[B, N, 3]``, inside ``[N, B, D]`` where not ``batch_first``.

    With ``padding`` a second input ``[B, N]`` is 0 where a token is padding.
    """

    def __init__(self, batch_first: bool = True, norm_first: bool = False, padding: bool = False) -> None:
        super().__init__()
        self.batch_first, self.padding = batch_first, padding
        self.read, self.write = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 3)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 2 * WIDTH, 0.0, batch_first=batch_first, norm_first=norm_first
        )
        norm = nn.LayerNorm(WIDTH) if norm_first else None
        self.encoder = nn.TransformerEncoder(layer, LAYERS, norm=norm, enable_nested_tensor=False)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        h = self.read(x)
        padding = None if attention_mask is None else attention_mask == 0
        if not self.batch_first:
            h = h.transpose(0, 1)
        h = self.encoder(h, src_key_padding_mask=padding)
        return self.write(h if self.batch_first else h.transpose(0, 1))


class _Packed(nn.Module):
    """Attention with one projection for queries, keys and values; the three come as the first axis (timm's form)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, HEADS, d // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))


class _Weights(nn.Module):
    """``nn.MultiheadAttention`` that computes its weights too: products over ``[B * heads, N, N]``."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.attention, self.causal = nn.MultiheadAttention(WIDTH, HEADS), causal

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        n = x.shape[0]
        mask = torch.arange(n)[None, :] > torch.arange(n)[:, None] if self.causal else None
        y, _ = self.attention(x, x, x, need_weights=True, attn_mask=mask)
        return y.transpose(0, 1)


class Blocks(nn.Module):
    """Pre-norm blocks around one of the attentions above: ``x [B, N, 3]`` -> ``[B, N, 3]``."""

    def __init__(self, attention: str) -> None:
        super().__init__()
        self.read, self.write = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 3)
        self.attention = nn.ModuleList(
            _Packed() if attention == "packed" else _Weights(attention == "causal") for _ in range(LAYERS)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2 * LAYERS))
        self.up = nn.ModuleList(nn.Linear(WIDTH, 2 * WIDTH) for _ in range(LAYERS))
        self.down = nn.ModuleList(nn.Linear(2 * WIDTH, WIDTH) for _ in range(LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        h = self.read(x)
        for index, attention in enumerate(self.attention):
            h = h + attention(self.norms[2 * index](h))
            h = h + self.down[index](torch.relu(self.up[index](self.norms[2 * index + 1](h))))
        return self.write(h)


def build(kind: str) -> nn.Module:
    """A module with random weights: ``packed``, ``weights``, ``causal``, or ``torch`` with ``-sequence`` (tokens
    before the batch), ``-pre`` (pre-norm) and ``-padding`` behind it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        if kind.startswith("torch"):
            model: nn.Module = TorchEncoder("sequence" not in kind, "pre" in kind, "padding" in kind)
        else:
            model = Blocks(kind)
        with torch.no_grad():
            for weight in model.parameters():
                weight.normal_(0, weight.shape[-1] ** -0.5 if weight.dim() > 1 else 0.3)
        return model.eval()


@contextmanager
def _written_out() -> Iterator[None]:
    """The old exporter has no operator for the fused kernel of ``nn.TransformerEncoderLayer``."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def export(kind: str, path: Any, *, opset: int, old: bool = False, batch: int = 2, tokens: int = 24) -> None:
    """Write a model as ONNX: by torch's new exporter with dynamic sizes, or by the old one, which freezes them."""
    module, padding = build(kind), "padding" in kind
    args: tuple[Tensor, ...] = (torch.randn(batch, tokens, 3),)
    args += (torch.ones(batch, tokens, dtype=torch.int64),) if padding else ()
    names = ["x", "attention_mask"][: len(args)]
    common = {"input_names": names, "output_names": ["y"], "opset_version": opset}
    with torch.no_grad():
        if old:
            with _written_out():
                torch.onnx.export(module, args, path, dynamo=False, **common)
            return
        own = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
        shapes = (own,) * len(args)
        program = torch.onnx.export(module, args, dynamo=True, dynamic_shapes=shapes, verbose=False, **common)
        program.save(path, external_data=False)
