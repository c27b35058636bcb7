"""Encoders that blow up what float32 rounds."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tests.rewrite.encoders import Encoder


class Residue(Encoder):
    """Adds ``level`` times the difference of two products that are equal but for rounding."""

    def __init__(self, level: float, seed: int = 0, positions: str = "rope") -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(
                positions, heads=4
            )  # the root of their width is a whole number, in any arithmetic
            for weight in self.parameters():
                if weight.dim() > 1:
                    nn.init.normal_(weight, 0, 1.3 * weight.shape[-1] ** -0.5)
        self.level = level
        self.both = nn.Parameter(self.layers[0]["down"].weight @ self.layers[0]["up"].weight)
        self.eval()

    def _finish(self, h: Tensor) -> Tensor:
        residue = h @ self.layers[0]["up"].weight.T @ self.layers[0]["down"].weight.T - h @ self.both.T
        return self.write(h + self.level * residue)


def write(encoder: Encoder, file: Path) -> Path:
    """As ONNX, dynamic, by torch's old exporter."""
    dynamic = {name: {0: "batch", 1: "tokens"} for name in ("x", "mask")}
    example = torch.zeros(2, 9, 4), torch.ones(2, 9, dtype=torch.int64)
    with torch.no_grad():
        torch.onnx.export(
            encoder, example, file, dynamo=False, input_names=[*dynamic], output_names=["y", "token_mask"],
            dynamic_axes=dynamic, opset_version=17,
        )  # fmt: skip
    return file
