"""Sessions: the right numbers for good inputs, one clear error for bad ones, no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import tsmerge_export as tsm
from tsmerge_export.backends.onnxruntime.session import GraphSession, Session
from tsmerge_export.bundle import BundleWriter
from tsmerge_export.bundle.manifest import ComponentEntry, Described
from tsmerge_export.errors import MissingDependencyError, TsmergeError, UnsupportedError, UsageError


def graph(path: Path) -> Path:
    """``y = x * scale[:, None]``, ``count = ids + 1``."""
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length"]),
        helper.make_tensor_value_info("scale", TensorProto.FLOAT, ["batch", 1]),
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch"]),
    ]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "length"]),
        helper.make_tensor_value_info("count", TensorProto.INT64, ["batch"]),
    ]
    one = helper.make_tensor("one", TensorProto.INT64, [], [1])
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["y"]),
        helper.make_node("Add", ["ids", "one"], ["count"]),
    ]
    made = helper.make_graph(nodes, "g", inputs, outputs, [one])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def described(*names: str) -> Described:
    return Described(components=tuple(ComponentEntry(name, f"{name}.onnx", (), ()) for name in names))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("b") / "one"
    with BundleWriter(output) as writer:
        graph(writer.path / "model.onnx")
        writer.commit(described("model"))
    return output


@pytest.fixture(scope="module")
def session(made: Path) -> Session:
    return tsm.load(made, threads=1)


X = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, np.nan]], np.float32)
FEED: dict[str, Any] = {"x": X, "scale": np.float32([[2], [3]]), "ids": np.array([7, 8])}


def test_run(session: Session) -> None:
    outputs = session.run(FEED)
    np.testing.assert_array_equal(outputs["y"], X * np.float32([[2], [3]]))
    np.testing.assert_array_equal(outputs["count"], [8, 9])
    assert [(t.name, t.dtype, t.dims) for t in session.inputs] == [
        ("x", "float32", ("batch", "length")),
        ("scale", "float32", ("batch", 1)),
        ("ids", "int64", ("batch",)),
    ]
    assert [(t.name, t.dtype) for t in session.outputs] == [("y", "float32"), ("count", "int64")]
    assert session.components == ("model",)


@pytest.mark.parametrize(
    "x",
    [
        X.tolist(),
        X.astype(np.float64),
        X.astype(np.float16),
        np.asfortranarray(X),
        np.repeat(X, 2, axis=1)[:, ::2],
        torch.from_numpy(X),
        torch.from_numpy(X).requires_grad_(),
    ],
    ids=["list", "float64", "float16", "fortran", "strided", "tensor", "tensor with grad"],
)
def test_array_likes(session: Session, x: Any) -> None:
    outputs = session.run({**FEED, "x": x, "ids": [7.0, 8.0]})
    np.testing.assert_array_equal(outputs["y"], X * np.float32([[2], [3]]))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"x": X[0]}, r"'x' has shape \[3\], the model wants \[batch, length\]"),
        ({"scale": np.ones((2, 2))}, r"'scale' has shape \[2, 2\], the model wants \[batch, 1\]"),
        ({"ids": [1, 2, 3]}, "'x' and 'ids' disagree on batch: 2 and 3"),
        ({"x": np.ones((2, 0))}, "'x' is empty"),
        ({"x": [["a", "b", "c"]] * 2}, "'x' has dtype"),
        ({"x": [[1, 2], [3]]}, "'x' is not an array"),
        ({"x": None}, "'x' has dtype object"),
        ({"x": X.astype(np.complex64)}, "'x' has dtype complex64"),
        ({"x": X.astype(np.float64) * 1e300}, "cannot become float32 without loss"),
        ({"x": np.full((2, 3), 2**24 + 1)}, "cannot become float32 without loss"),
        ({"ids": [1.5, 2.0]}, "cannot become int64 without loss"),
        ({"ids": [np.nan, 2.0]}, "cannot become int64 without loss"),
        ({"ids": np.array([2**63, 1], np.uint64)}, "cannot become int64 without loss"),
        ({"other": X}, "input 'other' is not known"),
    ],
)
def test_bad_inputs(session: Session, change: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        session.run({**FEED, **change})
    assert "\n" not in str(caught.value)


def test_missing_inputs(session: Session) -> None:
    with pytest.raises(UsageError, match="input 'ids' is missing; the model wants: x, scale, ids"):
        session.run({"x": X, "scale": FEED["scale"]})
    with pytest.raises(UsageError, match="must be a dict"):
        session.run(X)  # type: ignore[arg-type]


def test_several_components(tmp_path: Path) -> None:
    output = tmp_path / "two"
    with BundleWriter(output) as writer:
        for name in ("encoder", "decoder"):
            graph(writer.path / f"{name}.onnx")
        writer.commit(described("encoder", "decoder"))
    session = tsm.load(output)
    np.testing.assert_array_equal(session["decoder"].run(FEED)["count"], [8, 9])
    with pytest.raises(UsageError, match=r"several components \(encoder, decoder\)"):
        session.run(FEED)
    with pytest.raises(UsageError, match="no component 'head'"):
        session["head"]


@pytest.mark.parametrize(
    ("options", "kind", "match"),
    [
        ({"runtime": "tensorrt"}, UsageError, "was made for onnxruntime; export it with --runtime tensorrt"),
        ({"runtime": "tensorrt-rtx"}, UnsupportedError, "run by TensorRT-RTX itself"),
        ({"runtime": "tensorrt", "threads": 2}, UsageError, "threads and providers have no effect"),
        (
            {"plugin": "libx.so", "providers": ["CPUExecutionProvider", "CUDAExecutionProvider"]},
            UsageError,
            "plugin has no effect unless TensorrtExecutionProvider",
        ),
        ({"plugin": "libx.so"}, MissingDependencyError, "the library libx.so does not exist"),
        ({"runtime": "abacus"}, UsageError, "'abacus' is not known; choose one of: onnxruntime"),
        ({"threads": 0}, UsageError, "threads 0"),
        ({"threads": 1.5}, UsageError, "threads 1.5"),
        ({"threads": True}, UsageError, "threads True"),
        ({"providers": ["MagicExecutionProvider"]}, MissingDependencyError, "it has .*CPUExecutionProvider"),
        ({"providers": [("MagicExecutionProvider", {})]}, MissingDependencyError, "MagicExecutionProvider"),
        ({"providers": [3]}, UsageError, "3 is neither"),
        ({"providers": []}, UsageError, "providers is empty"),
    ],
)
def test_bad_options(made: Path, options: dict[str, Any], kind: type[TsmergeError], match: str) -> None:
    with pytest.raises(kind, match=match):
        tsm.load(made, **options)


def test_options_reach_the_runtime(made: Path) -> None:
    session = tsm.load(made, threads=2, providers=[("CPUExecutionProvider", {})])["model"].ort
    assert session.get_session_options().intra_op_num_threads == 2
    assert session.get_session_options().inter_op_num_threads == 1
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_changed_bundle_is_not_loaded(made: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    content = bytearray((copy / "model.onnx").read_bytes())
    content[-1] ^= 1
    (copy / "model.onnx").write_bytes(content)
    with pytest.raises(UsageError, match="was changed"):
        tsm.load(copy)


def test_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="truncated or not an ONNX file"):
        GraphSession(tmp_path / "x.onnx")
    with pytest.raises(UsageError, match="no such file"):
        GraphSession(tmp_path / "y.onnx")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    info = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in ("QQQQ", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["QQQQ"], ["y"])], "g", info[:1], info[1:])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    (tmp_path / "x.onnx").write_bytes(made.SerializeToString().replace(b"QQQQ", b"\xff\x80\xff\x80"))
    with pytest.raises(UnsupportedError, match="cannot load it"):
        GraphSession(tmp_path / "x.onnx")


def test_torch_is_not_needed(made: Path) -> None:
    code = (
        "import sys; sys.modules.update(torch=None, onnx=None, transformers=None, chronos=None, rich=None)\n"
        "import numpy as np, tsmerge_export as tsm\n"
        f"outputs = tsm.load({str(made)!r}).run({{'x': [[1.0]], 'scale': [[2.0]], 'ids': [1]}})\n"
        "assert outputs['y'] == np.float32(2)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_a_provider_that_does_not_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime goes on without it, on the CPU; a user would take that for the GPU."""
    import onnxruntime

    there = [*onnxruntime.get_available_providers(), "CUDAExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    with pytest.raises(MissingDependencyError, match="could not start CUDAExecutionProvider"):
        GraphSession(graph(tmp_path / "g.onnx"), providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
