"""Weights beyond one protobuf message: the limit is lowered, so that small models take the way of large ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.external_data_helper import uses_external_data

import tsmerge_export as tsm
from tests.files.hub import hub_cache
from tests.graphs.models import export
from tests.models import tiny_folder
from tsmerge_export.cli import main
from tsmerge_export.errors import UsageError
from tsmerge_export.onnx_model import weights as onnx_weights

QUARTER = tsm.MergeConfig(ratio="1/4", min_tokens=2)


@pytest.fixture
def low(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_weights, "LIMIT", 20_000)


def _with_external_data(file: Path) -> Path:
    onnx.save(
        onnx.load(file), file, save_as_external_data=True, location=f"{file.name}_data", size_threshold=0
    )
    return file


def test_a_graph(low: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In opset 13, for the version converter; file and bundle as the hub's cache keeps them."""
    file = tmp_path / "model.onnx"
    export("plain", file, old=True, opset=13)
    _with_external_data(file)
    file = hub_cache({path.name: path for path in tmp_path.iterdir()}, tmp_path / "hub") / file.name
    before = file.with_name("model.onnx_data").read_bytes()
    bundle = tsm.export(file, QUARTER, output=tmp_path / "out", threads=1)
    assert bundle.verdicts["parity"]["passed"]
    made = bundle.path / "model.onnx"
    assert "model.onnx.data" in bundle.manifest["files"]
    weights = onnx.load(made, load_external_data=False).graph.initializer
    assert sum(map(uses_external_data, weights)) > 10
    x = np.random.default_rng(0).standard_normal((3, 40, 3)).astype(np.float32)
    want = tsm.load(bundle.path).run({"x": x})["y"]
    assert file.with_name("model.onnx_data").read_bytes() == before
    cached = hub_cache({path.name: path for path in bundle.path.iterdir()}, tmp_path / "hub_of_bundles")
    np.testing.assert_array_equal(tsm.load(cached).run({"x": x})["y"], want)
    assert main(["inspect", str(cached)]) == 0
    assert "matrix products" in capsys.readouterr().out


@pytest.mark.slow
def test_inlined(low: None, tmp_path: Path) -> None:
    bundle = tsm.export(
        tiny_folder(tmp_path / "model"), QUARTER, output=tmp_path / "out", threads=1, inline=True
    )
    assert bundle.verdicts["parity"]["passed"]
    assert not onnx.load(bundle.path / "model.onnx", load_external_data=False).functions
    assert (bundle.path / "model.onnx.data").stat().st_size > 20_000


@pytest.mark.slow
def test_components_that_share_weights(low: None, tmp_path: Path) -> None:
    bundle = tsm.export(
        tiny_folder(tmp_path / "model", "chronos-t5"), QUARTER, output=tmp_path / "out", threads=1
    )
    assert bundle.verdicts["parity"]["passed"]
    assert bundle.manifest["files"]["weights.bin"]["size"] > 20_000
    assert not any(name.endswith(".data") for name in bundle.manifest["files"])


def test_what_stays_in_a_file(low: None, tmp_path: Path) -> None:
    """Large weights of the main graph alone; a Constant and small ones are read."""
    big = np.arange(10_000, dtype=np.float32)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(big, "inside")),
            onnx.helper.make_node("Sum", ["x", "c", "big", "one"], ["y"]),
        ],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, [10_000])],
        [onnx.helper.make_tensor_value_info("y", 1, [10_000])],
        [onnx.numpy_helper.from_array(big, "big"), onnx.numpy_helper.from_array(big[1:2], "one")],
    )
    file = tmp_path / "model.onnx"
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, file, save_as_external_data=True, location="d", size_threshold=0, convert_attribute=True)
    found = onnx_weights.read(file)
    assert onnx_weights.is_large(found)
    assert [t.name for t in onnx_weights.tensors(found) if uses_external_data(t)] == ["big"]
    np.testing.assert_array_equal(onnx_weights.array_of(found.graph.initializer[0]), big)
    again = tmp_path / "again.onnx"
    onnx_weights.write(found, again)
    assert onnx.load(again).graph.initializer[0].raw_data == big.tobytes()
    file.with_name("d").write_bytes(b"")
    with pytest.raises(UsageError, match="truncated"):
        onnx_weights.read(file)
