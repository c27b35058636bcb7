"""Rows in which tokens merge are not always the first axis: they may be time steps, or come behind the tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.graphs.bundles import bundle_of
from tsmerge_export import MergeConfig
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.graphs import verdicts
from tsmerge_export.graphs.model import GraphOptions, load_graph_model


class _Block(nn.Module):
    """Attention over axis 1 of ``[rows, tokens, width]``, and a feed-forward."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
        self.forth, self.back = nn.Linear(width, 12), nn.Linear(12, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part(x) for part in self.parts[:3])
        x = x + self.parts[3](((q @ k.transpose(1, 2)) / 3).softmax(-1) @ v)
        return x + self.back(self.forth(x).relu())


class _Series(nn.Module):
    """``values [B, V, N]``: attention over time in ``B * V`` rows, then over variates in ``B * N``; or, of ``[B, N]``,
    over time, then over the series of the batch."""

    def __init__(self, grouped: bool) -> None:
        super().__init__()
        self.grouped = grouped
        self.read, self.write = nn.Linear(1, 8), nn.Linear(8, 1)
        self.over_time, self.over_series = _Block(), _Block()

    def forward(self, values: Tensor) -> Tensor:
        x = self.read(values[..., None])
        if self.grouped:
            return self.write(self.over_series(self.over_time(x).transpose(0, 1)).transpose(0, 1))[..., 0]
        b, v, n = values.shape
        x = self.over_time(x.reshape(b * v, n, 8)).reshape(b, v, n, 8).transpose(1, 2)
        x = self.over_series(x.reshape(b * n, v, 8)).reshape(b, n, v, 8).transpose(1, 2)
        return self.write(x)[..., 0]


def _file(folder: Path, grouped: bool) -> Path:
    torch.manual_seed(0)
    names = ["batch", "steps"] if grouped else ["batch", "variates", "steps"]
    file = folder / "series.onnx"
    example = torch.randn(2, 24) if grouped else torch.randn(2, 6, 24)
    axes = dict(enumerate(names))
    torch.onnx.export(
        _Series(grouped).eval(), (example,), file, dynamo=False, opset_version=17, input_names=["values"],
        output_names=["y"], dynamic_axes={"values": axes, "y": axes},
    )  # fmt: skip
    return file


def test_time_then_variates(tmp_path: Path) -> None:
    """Decisions of so many rows in one layer, of others in the next; each is one of a row of the outputs."""
    bundle = bundle_of(_file(tmp_path, grouped=False))
    assert bundle.verdicts["parity"]["passed"]
    merges = bundle.manifest["components"][0]["merges"]
    assert [merge["before"] for merge in merges] == ["steps", "variates"]


def test_time_then_the_batch(tmp_path: Path) -> None:
    """The rows of a batch attend to each other: refused with what helps, and judged as one with it."""
    file = _file(tmp_path, grouped=True)
    with pytest.raises(UnsupportedError, match=r"merge along 'steps' alone with --layers 0$"):
        bundle_of(file)
    bundle = bundle_of(file, MergeConfig(ratio="1/4", layers=(0,)))
    assert bundle.verdicts["parity"]["passed"]


@pytest.mark.parametrize("grouped", [True, False])
def test_whether_rows_mix_is_seen(grouped: bool, tmp_path: Path) -> None:
    model = load_graph_model(_file(tmp_path, grouped), GraphOptions())
    assert verdicts.rows_mix(model, open_session(model.original)) == grouped


def test_time_first_with_an_example(tmp_path: Path) -> None:
    """The old exporter freezes the 24 steps inside ``nn.MultiheadAttention``; the batch is the second axis."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 24, 0.0)
    model = nn.Sequential(nn.Linear(3, 16), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    file, example = tmp_path / "net.onnx", tmp_path / "x.npz"
    axes = {name: {0: "steps", 1: "batch"} for name in ("x", "y")}
    torch.onnx.export(
        model.eval(), (torch.randn(24, 2, 3),), file, dynamo=False, opset_version=17, input_names=["x"],
        output_names=["y"], dynamic_axes=axes,
    )  # fmt: skip
    np.savez(example, x=np.random.default_rng(0).standard_normal((24, 2, 3)).astype(np.float32))
    bundle = bundle_of(file, inputs=example)
    assert bundle.verdicts["parity"]["passed"]
    assert len(bundle.manifest["components"][0]["merges"]) == 2
