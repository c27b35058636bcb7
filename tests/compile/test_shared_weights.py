"""Weights of several components, stored once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests import artefacts
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.bundle import Bundle
from tsmerge_export.compile.shared_weights import WEIGHTS, share
from tsmerge_export.settings.config import MergeConfig


def graph(path: Path, *weights: np.ndarray) -> Path:
    """A file that multiplies by one matrix after the other."""
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(len(weights))]
    value = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 32]) for name in ("x0", f"x{len(weights)}")
    ]
    tensors = [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)]
    onnx.save(
        helper.make_model(
            helper.make_graph(nodes, "g", value[:1], value[1:], tensors),
            opset_imports=[helper.make_opsetid("", 18)], ir_version=9,
        ),
        path,
    )  # fmt: skip
    return path


def test_equal_contents_are_stored_once_and_the_graphs_compute_the_same(tmp_path: Path) -> None:
    a, b, c = np.random.default_rng(0).standard_normal((3, 32, 32)).astype(np.float32)
    files = [graph(tmp_path / "one.onnx", a, b), graph(tmp_path / "two.onnx", b, a, c)]
    x = np.ones((2, 32), np.float32)
    before = [open_session(file, 1).run(None, {"x0": x})[0] for file in files]
    assert share(files, tmp_path) == tmp_path / WEIGHTS
    assert (tmp_path / WEIGHTS).stat().st_size == 3 * 32 * 32 * 4
    for file, want in zip(files, before, strict=True):
        assert file.stat().st_size < 1500
        np.testing.assert_array_equal(open_session(file, 1).run(None, {"x0": x})[0], want)
        onnx.checker.check_model(str(file))


def test_one_graph_keeps_its_weights(tmp_path: Path) -> None:
    file = graph(tmp_path / "one.onnx", np.ones((32, 32), np.float32))
    content = file.read_bytes()
    assert share([file], tmp_path) is None
    assert file.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["one.onnx"]


def test_a_bundle_of_chronos_t5_shares_its_embedding() -> None:
    folder = artefacts.bundle("t5-nano", MergeConfig(method="none"))
    assert WEIGHTS in Bundle.open(folder).manifest["files"]
    embedding = artefacts.model("t5-nano").shared.weight.detach().numpy().tobytes()
    assert (folder / WEIGHTS).read_bytes().count(embedding) == 1
    places = [
        {entry.key: entry.value for entry in tensor.external_data}["offset"]
        for name in ("encoder", "decoder")
        for tensor in onnx.load(folder / f"{name}.onnx", load_external_data=False).graph.initializer
        if list(tensor.dims) == [1024, 96]
    ]
    assert len(places) >= 2
    assert len(set(places)) == 1
    inline = sum(p.numel() for p in {id(p): p for p in artefacts.model("t5-nano").parameters()}.values()) * 4
    assert (folder / WEIGHTS).stat().st_size < 1.1 * inline + 200_000
