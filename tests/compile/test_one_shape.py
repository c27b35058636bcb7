"""A bundle of one shape: proved at it, written whole, validated again; what does not fit is refused before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import tsmerge_export as tsm
from tests.graphs import models as graphs
from tests.models import tiny
from tsmerge_export.backends.target import Target
from tsmerge_export.bundle import Bundle
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.console.progress import NoProgress
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.graphs.source import GraphSource
from tsmerge_export.report.html.commands import commands
from tsmerge_export.report.target import target_section
from tsmerge_export.report.write import write_texts
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.one_shape import OneShape
from tsmerge_export.verify.checks import Checks

QUICK, MERGE = Checks(threads=1, quick=True), MergeConfig(ratio="1/4")
TARGET = Target(static=OneShape(3, 64))


@pytest.fixture(scope="module")
def compilation() -> Compilation:
    return Compilation(CheckpointSource.load(tiny("chronos-bolt")), MERGE)


@pytest.fixture(scope="module")
def made(compilation: Compilation, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("one") / "made"
    return compilation.bundle(folder, QUICK, target=TARGET, texts=write_texts)


def test_what_the_bundle_says(made: Bundle) -> None:
    contents = made.contents
    assert contents.one_shape == OneShape(3, 64)
    (part,) = contents.components
    assert part.inputs[0].dims == (3, 64)
    assert part.outputs[0].dims == (3, 3, 16)
    lengths = [(merge.before, merge.after) for merge in part.merges]
    assert lengths == [(9, 7), (7, 6)]
    assert contents.target is not None
    target = contents.target.components["model"]
    assert target.parity is not None
    assert target.parity.passed and target.parity.rows == 30  # ten kinds of series, three of each
    assert target.own["on_the_cpu"] == {}
    cost = contents.verdicts.cost
    assert cost is not None and cost.speed is not None
    assert (cost.context, cost.speed.batch, cost.speed.length) == (64, 3, 64)
    said = target_section(made.manifest)
    assert "Made for 3 series of length 64 a call" in said
    assert '("CUDAExecutionProvider", {"enable_cuda_graph": "1"})' in said
    run = dict(commands(made.read_report()))
    assert (
        "--static 3x64" in run["export"]
        if "tsmerge-export" in run["export"]
        else "OneShape(3, 64)" in run["export"]
    )
    assert "--batch" not in run["speed over batches"]
    page = (made.path / "report.html").read_text()
    assert "Made for 3 series of length 64" in page


def test_sessions_take_that_shape(made: Bundle) -> None:
    session = tsm.load(made, threads=1)
    assert session.inputs[0].dims == (3, 64)
    assert session.run({"context": np.ones((3, 64), np.float32)})["quantiles"].shape == (3, 3, 16)
    with pytest.raises(UsageError, match=r"'context' has shape \[2, 64\], the model wants \[3, 64\]"):
        session.run({"context": np.ones((2, 64), np.float32)})


def test_validate(compilation: Compilation, made: Bundle) -> None:
    assert compilation.validate(made, QUICK).passed
    file = made.component("model").file
    whole = file.read_bytes()
    model = onnx.load_from_string(whole)
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    value = onnx.numpy_helper.to_array(weight) * np.float32(1.01)
    weight.CopyFrom(onnx.numpy_helper.from_array(value, weight.name))
    try:
        onnx.save(model, file)
        found = compilation.validate(made, QUICK)
    finally:
        file.write_bytes(whole)
    assert found.parity is not None
    assert not found.passed and "parity at 3x64 failed" in found.parity.first_failure


def test_a_graph_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "plain.onnx"
    graphs.export("plain", file, old=True, opset=17)
    merge = MergeConfig(ratio="1/4", min_tokens=2)
    bundle = Compilation(GraphSource(file), merge).bundle(
        tmp_path / "made", QUICK, target=Target(static=OneShape(2, 40))
    )
    (part,) = bundle.contents.components
    assert all(dim == size for item in part.inputs for dim, size in zip(item.dims, (2, 40), strict=False))
    assert part.merges[0].before == 40 and part.merges[0].after == 30
    source = GraphSource.of_bundle(bundle, file, None, NoProgress())
    assert Compilation(source, merge).validate(bundle, QUICK).passed


def test_shapes_of_a_source() -> None:
    bolt = CheckpointSource.load(tiny("chronos-bolt"))
    assert bolt.shapes(OneShape(2, 100)) == {"context": (2, 100)}
    with pytest.raises(UsageError, match="reads at most 256 steps, not 257; give --static 2x256"):
        bolt.shapes(OneShape(2, 257))
    with pytest.raises(UsageError, match="always takes 96 steps, not 95; give --static 2x96"):
        CheckpointSource.load(tiny("patchtst")).shapes(OneShape(2, 95))
    with pytest.raises(
        UnsupportedError, match="has more graphs than one, and lengths of the cross and decoder grow"
    ):
        CheckpointSource.load(tiny("chronos-t5")).shapes(OneShape(2, 64))
    with pytest.raises(UnsupportedError, match="lengths in a chronos-2 follow from horizon and series too"):
        CheckpointSource.load(tiny("chronos-2")).shapes(OneShape(2, 64))
