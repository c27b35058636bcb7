"""From any ONNX file of a transformer to a verified bundle.

python recipes/onnx_file.py                       # a small encoder with random weights, made on the spot
python recipes/onnx_file.py model.onnx --ratio 1/4 -o merged
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from common import arguments, export
from torch import nn

import tsmerge_export as tsm


class Layer(nn.Module):
    """Pre-norm encoder layer. (``nn.MultiheadAttention`` puts time before the batch, where tokens are unmerged.)"""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norms[0](x)
        q, k, v = (
            part(h).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.feed(self.norms[1](x))


class Encoder(nn.Module):
    """``x [batch, time, 4]`` -> ``y [batch, time, 4]``."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 64), *(Layer(64, 4) for _ in range(3)), nn.Linear(64, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def make_file(folder: str) -> str:
    """An ONNX file, as a user would write one."""
    torch.manual_seed(0)
    path = Path(folder) / "encoder.onnx"
    dynamic = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    program = torch.onnx.export(
        Encoder().eval(), (torch.randn(2, 48, 4),), dynamo=True, dynamic_shapes=dynamic, input_names=["x"],
        output_names=["y"], verbose=False,
    )  # fmt: skip
    assert program is not None
    program.save(path)
    return str(path)


def main() -> None:
    with TemporaryDirectory() as folder:
        args = arguments(__doc__ or "", "", "1/4")
        args.model = args.model or make_file(folder)
        bundle = export(args)
    inputs = bundle.components[0].inputs
    if all(tensor.dtype == "float32" for tensor in inputs):
        rng = np.random.default_rng(0)
        sizes = [[n if isinstance(n, int) else 2 if n == "batch" else 200 for n in t.dims] for t in inputs]
        feeds = {
            t.name: rng.standard_normal(n).astype(np.float32) for t, n in zip(inputs, sizes, strict=True)
        }
        found = tsm.load(bundle.path).run(feeds)
        print(", ".join(f"{name}: {list(value.shape)}" for name, value in found.items()))
    merges = ", ".join(f"{merge['before']} -> {merge['after']}" for merge in bundle.components[0].merges)
    print(f"bundle: {args.output}; inputs: {', '.join(tensor.name for tensor in inputs)}; merges: {merges}")


if __name__ == "__main__":
    main()
