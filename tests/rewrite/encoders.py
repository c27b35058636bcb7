"""Small transformer encoders in plain torch, with merging written into their forward by hand: the rewriter's oracle.

They belong to no family. ``Encoder.forward`` is what is exported; ``merged_forward`` is the same arithmetic with the
reference algorithm between attention and feed-forward, and everything that follows the tokens gathered explicitly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tsmerge_export.merge import Merged, local_merge, unmerge


class Encoder(nn.Module):
    """``x [B, N, F]``, ``mask [B, N]`` int64 (0 is padding) -> output by ``head``.

    Args:
        positions: ``rope`` (rotary, per head), ``relative`` (bias of the distance), ``absolute`` (added once).
        post_norm: normalise after the residual instead of before the attention.
        head: ``tokens`` [B, N, 3], ``mean`` [B, 3], ``last`` [B, 3] of the last token.
        causal: keys at later positions are hidden.
    """

    def __init__(
        self,
        positions: str = "rope",
        *,
        post_norm: bool = False,
        head: str = "tokens",
        causal: bool = False,
        width: int = 16,
        heads: int = 2,
        layers: int = 3,
    ) -> None:
        super().__init__()
        self.positions, self.post_norm, self.head, self.causal = positions, post_norm, head, causal
        self.heads, self.depth = heads, width // heads
        self.read = nn.Linear(4, width)
        self.table = nn.Embedding(64, width if positions == "absolute" else heads)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "q": nn.Linear(width, width),
                    "k": nn.Linear(width, width),
                    "v": nn.Linear(width, width),
                    "o": nn.Linear(width, width),
                    "up": nn.Linear(width, 2 * width),
                    "down": nn.Linear(2 * width, width),
                    "norm1": nn.LayerNorm(width),
                    "norm2": nn.LayerNorm(width),
                }
            )
            for _ in range(layers)
        )
        self.write = nn.Linear(width, 3)

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, self.depth).transpose(1, 2)

    def _rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = x[..., : self.depth // 2], x[..., self.depth // 2 :]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def _angles(self, index: Tensor) -> Tensor:
        scale = torch.arange(self.depth // 2, dtype=torch.float32) / 3
        return index[..., None].float() * torch.exp(-scale)

    def _attention(
        self, layer: Any, h: Tensor, mask: Tensor, index: Tensor, size: Tensor | None = None
    ) -> Tensor:
        """``index``: position of each token, ``[N]`` in the export and ``[B, M]`` in the oracle."""
        q, k, v = (self._split(layer[name](h)) for name in "qkv")
        if self.positions == "rope":
            angle = self._angles(index)
            cos, sin = angle.cos(), angle.sin()
            if index.dim() == 2:
                cos, sin = cos[:, None], sin[:, None]
            q, k = self._rotate(q, cos, sin), self._rotate(k, cos, sin)
        self._keys = k
        scores = q @ k.transpose(-1, -2) / self.depth**0.5
        distance = index[..., None, :] - index[..., :, None]
        if self.positions == "relative":
            bias = self.table(distance.clamp(-31, 31) + 31)
            scores = scores + bias.movedim(-1, -3)
        if size is not None:  # proportional attention: a key of size s stands for s equal keys
            scores = scores + torch.where(size > 0, size, 1.0).log()[:, None, None, :]
        keep = mask[:, None, None, :] != 0
        if self.causal:
            keep = keep & (distance <= 0 if index.dim() == 1 else (distance <= 0)[:, None])
        weights = torch.softmax(torch.where(keep, scores, -1e9), -1)
        mixed = (weights @ v).transpose(1, 2).reshape(h.shape[0], h.shape[1], self.heads * self.depth)
        return layer["o"](mixed)

    def _feed_forward(self, layer: Any, h: Tensor) -> Tensor:
        if self.post_norm:
            return layer["norm2"](h + layer["down"](torch.relu(layer["up"](h))))
        return h + layer["down"](torch.relu(layer["up"](layer["norm2"](h))))

    def _after_attention(
        self, layer: Any, h: Tensor, mask: Tensor, index: Tensor, size: Tensor | None = None
    ) -> Tensor:
        if self.post_norm:
            return layer["norm1"](h + self._attention(layer, h, mask, index, size))
        return h + self._attention(layer, layer["norm1"](h), mask, index, size)

    def _embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        index = torch.arange(x.shape[1])
        h = self.read(x)
        return (h + self.table(index) if self.positions == "absolute" else h), index

    def _finish(self, h: Tensor) -> Tensor:
        if self.head == "mean":
            h = h.mean(1)
        elif self.head == "last":
            h = h[:, -1]
        return self.write(h)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        h, index = self._embed(x)
        for layer in self.layers:
            h = self._feed_forward(layer, self._after_attention(layer, h, mask, index))
        return self._finish(h), mask.clone()

    def merged_forward(
        self,
        x: Tensor,
        mask: Tensor,
        *,
        compact: bool = False,
        layers: tuple[int, ...] | None = None,
        prop_attn: bool = False,
        metric: str = "x",
        merge: Callable[..., Merged] = local_merge,
        **options: Any,
    ) -> Tensor:
        """The same with merging after the attention of ``layers`` (None: all); options as of ``merge``.

        ``self.survivors`` is then the list of those of every layer, ``[B, M]``, as indices among the N tokens.
        """
        h, index = self._embed(x)
        tokens = x.shape[1]
        index = index.expand(x.shape[0], tokens)
        target, size = index, (mask != 0).float()
        self.survivors: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            h = self._after_attention(layer, h, mask, index, size if prop_attn else None)
            if layers is None or number in layers:
                merged = merge(h, self._keys.mean(1) if metric == "key" else h, size, **options)
                h, size = merged.y, merged.size
                mask, index = mask.gather(1, merged.kept), index.gather(1, merged.kept)
                if compact:
                    index = torch.arange(h.shape[1]).expand(h.shape[0], -1)
                self.survivors.append(index)
                target = merged.target.gather(1, target)
            h = self._feed_forward(layer, h)
        return self._finish(unmerge(h, target))


def export(encoder: Encoder, *, fixed: tuple[int, int] | None = None) -> Any:
    """The encoder as an onnx-ir model: dynamic batch and tokens, or both fixed; outputs ``y`` and ``token_mask``."""
    batch, tokens = fixed or (3, 17)
    dynamic = None if fixed else ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},) * 2
    args = (torch.randn(batch, tokens, 4), torch.ones(batch, tokens, dtype=torch.int64))
    with torch.no_grad():
        exported = torch.export.export(encoder.eval(), args, dynamic_shapes=dynamic, strict=False)
        program = torch.onnx.export(
            exported,
            dynamo=True,
            opset_version=18,
            input_names=["x", "mask"],
            output_names=["y", "token_mask"],
            verbose=False,
        )
    return program.model
