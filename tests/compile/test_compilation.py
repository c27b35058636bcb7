"""A compilation traces its source once, whatever it is merged by, and both kinds of sources answer alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.graphs import models as graphs
from tests.models import tiny
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.bundle.run import Run
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.compile.source import Source
from tsmerge_export.console.progress import NoProgress
from tsmerge_export.errors import UsageError, VerdictError
from tsmerge_export.graphs.model import GraphOptions
from tsmerge_export.graphs.source import GraphSource
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tables.options import TableOptions
from tsmerge_export.tables.read import read_table
from tsmerge_export.verify.checks import Checks

NONE, QUICK = MergeConfig("none"), Checks(threads=1, quick=True)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "plain.onnx"
    graphs.export("plain", path, old=True, opset=17)
    return path


def sources(kind: str, file: Path) -> Source:
    return GraphSource(file) if kind == "graph" else CheckpointSource.load(tiny("chronos-bolt"))


@pytest.mark.parametrize("kind", ["checkpoint", "graph"])
def test_traced_once_and_merged_by_every_setting(kind: str, file: Path, tmp_path: Path) -> None:
    compilation, traced = Compilation(sources(kind, file), NONE), []
    (component,) = compilation.source.components
    plain = compilation.source.plain

    def count(*args: Any) -> Any:
        traced.append(args[0].name)
        return plain(*args)

    compilation.source.plain = count  # type: ignore[method-assign]
    feed = compilation.source.feed(np.random.default_rng(0).normal(size=(2, 24)).astype(np.float32))
    found = {}
    for merge in (NONE, MergeConfig(ratio="1/4", min_tokens=2), MergeConfig(ratio="1/2", min_tokens=2)):
        folder = tmp_path / str(len(found))
        folder.mkdir()
        built = compilation.merged(component, folder, merge)
        values = [open_session(path, 1).run(None, feed)[0] for path in (built.unmerged, built.merged)]
        assert np.array_equal(*values) == (not merge.active)
        found[merge] = values[1]
    assert len({value.tobytes() for value in found.values()}) == 3
    assert traced == [component.name]
    compilation.forget(component)
    again = tmp_path / "again"
    again.mkdir()
    compilation.merged(component, again)
    assert len(traced) == 2


def test_a_bundle_is_all_or_nothing(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merge = MergeConfig(ratio="1/4", min_tokens=2)
    bundle = Compilation(GraphSource(file), merge).bundle(tmp_path / "made", QUICK)
    assert bundle.verdicts["parity"]["passed"]
    source = GraphSource.of_bundle(bundle, file, None, NoProgress())
    assert Compilation(source, merge).validate(bundle, QUICK).passed
    # Another setting than the file's.
    assert not Compilation(source, MergeConfig(ratio="1/3", min_tokens=2)).validate(bundle, QUICK).passed
    merged = Compilation.merged

    def changed(self: Compilation, component: Any, folder: Path, *args: Any, **options: Any) -> Any:
        built = merged(self, component, folder, *args, **options)
        model = onnx.load(built.merged)
        weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        value = onnx.numpy_helper.to_array(weight) * np.float32(1.5)
        weight.CopyFrom(onnx.numpy_helper.from_array(value, weight.name))
        onnx.save(model, built.merged)
        return built

    monkeypatch.setattr(Compilation, "merged", changed)
    with pytest.raises(VerdictError, match="parity failed, no bundle is written") as failed:
        Compilation(GraphSource(file), merge).bundle(tmp_path / "failed", QUICK)
    assert not failed.value.manifest["verdicts"]["parity"]["passed"]
    assert failed.value.manifest["run"]["output"] == "failed"
    assert {path.name for path in tmp_path.iterdir()} == {"made"}


def test_what_the_command_line_would_take(file: Path, tmp_path: Path) -> None:
    """Of what was not given there is nothing."""
    assert CheckpointSource.load(tiny("chronos-bolt")).run() == Run()
    (tmp_path / "a.csv").write_text("a;b\n" + "\n".join(f"{i % 7},5;{i}" for i in range(200)))
    table = read_table(tmp_path / "a.csv", options=TableOptions(sep=";", decimal=","))
    source = CheckpointSource.load(tiny("chronos-bolt"), family="chronos-bolt", data=table)
    assert source.run() == Run(
        data=str(tmp_path / "a.csv"), table=("--sep", ";", "--decimal", ","), family="chronos-bolt"
    )
    assert source.table is table
    options = GraphOptions("none", 1, 2, "x.npz")
    assert GraphSource("m.pt2", options, opset=19).run() == Run(
        opset=19, token_mask="none", protect_first=1, protect_last=2, inputs="x.npz"
    )
    assert GraphSource("m.onnx").run() == Run()


def test_of_another_bundle(file: Path, tmp_path: Path) -> None:
    made = Compilation(GraphSource(file), NONE).bundle(tmp_path / "made", QUICK)
    made.manifest["family"] = "chronos-bolt"
    with pytest.raises(UsageError, match="was made from a chronos-bolt, not from a file such as"):
        GraphSource.of_bundle(made, file, None, NoProgress())
