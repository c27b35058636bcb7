"""Values of several depths meet: scores handed from layer to layer, outputs that collect layers, branches and loops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tsmerge_export as tsm
from tests.graphs.bundles import bundle_of
from tsmerge_export import MergeConfig


class _Layer(nn.Module):
    """Post-norm; scores of layers before are added to its own (RealFormer, arXiv 2012.11747)."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 24), nn.Linear(24, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: Tensor, *before: Tensor) -> tuple[Tensor, Tensor]:
        b, n, d = x.shape
        q, k, v = (
            t.reshape(b, n, self.heads, d // self.heads).transpose(1, 2) for t in self.mix(x).chunk(3, -1)
        )
        scores = q @ k.transpose(-1, -2) / (d // self.heads) ** 0.5
        for other in before:
            scores = other + scores
        x = self.norms[0](x + self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, d)))
        return self.norms[1](x + self.down(self.up(x).relu())), scores


@torch.jit.script
def _cut_peaks(x: Tensor) -> Tensor:
    if bool((x.abs() > 2.5).any()):
        x = torch.clamp(x, -2.0, 2.0) * 1.5 - 0.1
    return x


@torch.jit.script
def _centre_peaks(x: Tensor) -> Tensor:
    if bool((x.abs() > 2.5).any()):
        x = x - x.mean(1, keepdim=True)
    return x


@torch.jit.script
def _repeat(x: Tensor) -> Tensor:
    for _ in range(3):
        x = x * 0.5 + torch.tanh(x)
    return x


class _Net(nn.Module):
    def __init__(
        self, layers: int, *, scores: bool = False, collect: bool = False, between: Callable[..., Any] | None = None
    ) -> None:  # fmt: skip
        super().__init__()
        self.read, self.write = nn.Linear(3, 16), nn.Linear(16, 1)
        self.layers = nn.ModuleList(_Layer() for _ in range(layers))
        self.scores, self.collect, self.between = scores, collect, between

    def forward(self, values: Tensor) -> tuple[Tensor, ...]:
        x, scores, seen = self.read(values), [], []
        for layer in self.layers:
            x, found = layer(x, *scores)
            if self.scores:  # of the layer before, and of the first one
                scores = [found, *scores[-1:]]
            x = x if self.between is None else self.between(x)
            seen.append(x)
        return (self.write(x), torch.stack(seen, 1)) if self.collect else (self.write(x),)


def _bundle(folder: Path, *args: Any, merge: MergeConfig | None = None, **options: Any) -> tsm.Bundle:
    torch.manual_seed(0)
    names = ["y", "layers"][: 1 + bool(options.get("collect"))]
    axes = {"values": {0: "batch", 1: "length"}, "y": {0: "batch", 1: "length"}}
    torch.onnx.export(
        _Net(*args, **options).eval(), (torch.randn(2, 24, 3),), folder / "net.onnx", dynamo=False,
        opset_version=17, input_names=["values"], output_names=names, dynamic_axes=axes,
    )  # fmt: skip
    bundle = bundle_of(folder / "net.onnx", merge)
    assert bundle.verdicts["parity"]["passed"]
    assert len(bundle.manifest["components"][0]["merges"]) == args[0]
    return bundle


def _barriers(bundle: tsm.Bundle) -> list[tuple[str, str]]:
    found = bundle.manifest["components"][0]["barriers"]
    return [(barrier["op_type"], barrier["reason"]) for barrier in found]


def test_scores_of_earlier_layers_follow(tmp_path: Path) -> None:
    """By one merge, those of the layer before; by two, those of the first layer. Keys are a layer's own."""
    merge = MergeConfig(ratio="1/4", metric="key")
    assert _barriers(_bundle(tmp_path, 3, scores=True, merge=merge)) == []


def test_layers_that_are_collected_keep_their_own_tokens(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path, 3, collect=True)
    assert _barriers(bundle) == [("Concat", "it collects what several layers made, for no attention to read")]
    values = np.random.default_rng(1).standard_normal((1, 24, 3)).astype(np.float32)
    layers = tsm.load(bundle.path).run({"values": values})["layers"][0]
    # A quarter goes in every layer, and what comes out has a copy for each of the 24.
    assert [len(np.unique(layer, axis=0)) for layer in layers] == [18, 14, 11]


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        (_cut_peaks, []),
        (_centre_peaks, [("If", "its subgraph reads merged tokens")] * 2),
        (_repeat, [("Loop", "no rule for Loop")] * 2),
    ],
)
def test_between_layers(between: Any, expected: list[tuple[str, str]], tmp_path: Path) -> None:
    """A branch that works on each token alone reads merged ones; any other, and a loop, is reported."""
    assert _barriers(_bundle(tmp_path, 2, between=between)) == expected
