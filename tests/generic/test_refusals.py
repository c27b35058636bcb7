"""Files that cannot be merged, or must not be read: the reason, in one line."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tsmerge_export import api
from tsmerge_export.checkpoint.onnx_file import read_onnx
from tsmerge_export.checkpoint.program_file import read_program
from tsmerge_export.config import MergeConfig
from tsmerge_export.errors import TsmergeError, UnsupportedError, UsageError


def small(path: Path, *nodes: onnx.NodeProto, opset: int = 18, domains: tuple[str, ...] = ()) -> Path:
    """``x [batch, tokens, 8]`` -> ``y`` through the nodes, with weights ``w [8, 8]``."""
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "tokens", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def refuses(error: type[TsmergeError], message: str, file: Path) -> None:
    with pytest.raises(error, match=message) as caught:
        api.export(file, MergeConfig(), output=file.with_suffix(".out"), threads=1)
    assert "\n" not in str(caught.value)
    assert not file.with_suffix(".out").exists()


def node(op_type: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, [output], **attributes)


def attention(residual: bool) -> list[onnx.NodeProto]:
    return [
        node("Transpose", ["x"], "k", perm=[0, 2, 1]),
        node("MatMul", ["x", "k"], "s"),
        node("Softmax", ["s"], "p", axis=-1),
        node("MatMul", ["p", "x"], "o"),
        node("MatMul", ["o", "w"], "z"),
        node("Add", ["z", "x"], "y") if residual else node("Relu", ["z"], "y"),
    ]


def test_says_what_was_looked_for(tmp_path: Path) -> None:
    file = small(tmp_path / "mlp.onnx", node("MatMul", ["x", "w"], "y"))
    refuses(UnsupportedError, "no safe merge point. Looked for Softmax .* Found 0 Softmax", file)
    file = small(tmp_path / "bare.onnx", *attention(residual=False))
    refuses(
        UnsupportedError, "Found 1 Softmax.* refused: 1 x Relu stands between attention and a residual", file
    )
    merged = small(tmp_path / "good.onnx", *attention(residual=True))
    assert api.export(merged, MergeConfig(), output=tmp_path / "good", threads=1).verdicts["parity"]["passed"]


def test_operators(tmp_path: Path) -> None:
    relu = node("Relu", ["x"], "y")
    refuses(UnsupportedError, "opset 12 is not supported", small(tmp_path / "a.onnx", relu, opset=12))
    drawn = [node("RandomNormalLike", ["x"], "n"), node("Add", ["x", "n"], "y")]
    refuses(UnsupportedError, "draws random numbers", small(tmp_path / "b.onnx", *drawn))
    fast = helper.make_node("FastGelu", ["x"], ["y"], domain="com.microsoft")
    file = small(tmp_path / "c.onnx", fast, domains=("com.microsoft",))
    refuses(UnsupportedError, "com.microsoft::FastGelu.*optimised for one runtime", file)
    ours = helper.make_node("LocalMerge", ["x", "x", "x"], ["y"], domain="tsmerge")
    refuses(UnsupportedError, "merges tokens already", small(tmp_path / "d.onnx", ours, domains=("tsmerge",)))
    wide = [node("Reshape", ["x", "w"], "y")]  # a shape must be integers
    refuses(UnsupportedError, "ONNX Runtime does not open it", small(tmp_path / "e.onnx", *wide))


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = small(tmp_path / "good.onnx", node("MatMul", ["x", "w"], "y"))
    (tmp_path / "cut.onnx").write_bytes(good.read_bytes()[:-30])
    refuses(UsageError, "truncated or not an ONNX file", tmp_path / "cut.onnx")
    refuses(UsageError, "no such file", tmp_path / "none.onnx")
    monkeypatch.setenv("TSMERGE_MAX_MODEL_BYTES", "50")
    refuses(UsageError, "exceed the cap", good)


@pytest.mark.parametrize(
    "location", ["../secret.bin", "/etc/hostname", "link.bin", "gone.bin", "short.bin", "a\\b"]
)
def test_external_data_stay_in_the_folder(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(256))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "short.bin").write_bytes(bytes(10))
    file = small(folder / "m.onnx", node("MatMul", ["x", "w"], "y"))
    model = onnx.load(file)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "256")):
        weight.external_data.add(key=key, value=value)
    file.write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match=r"leave the model's folder|are missing|are truncated"):
        read_onnx(file)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("program") / "p.pt2"
    dynamic = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    made = torch.export.export(torch.nn.Linear(4, 2), (torch.randn(2, 3, 4),), dynamic_shapes=dynamic)
    torch.export.save(made, file)
    return file


def changed(
    program: Path, path: Path, change: Callable[[str, bytes], bytes], extra: str | None = None
) -> Path:
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        if extra is not None:
            new.writestr(extra, b"x")
    return path


def test_program_passes_unchanged(program: Path, tmp_path: Path) -> None:
    same = changed(program, tmp_path / "same.pt2", lambda name, data: data)
    assert read_program(same).graph_signature.user_inputs == read_program(program).graph_signature.user_inputs


def test_programs_that_would_run_code(program: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    class Bad:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return eval, (f"open({str(mark)!r}, 'w')",)

    def pickled(name: str, data: bytes) -> bytes:
        return pickle.dumps(Bad()) if name.endswith("sample_inputs/model.pt") else data

    def flagged(name: str, data: bytes) -> bytes:
        return data.replace(b'"use_pickle": false', b'"use_pickle": true')

    def evaluated(name: str, data: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return data
        text = json.dumps(json.loads(data))
        return text.replace("Symbol('", f"open('{mark}', 'w') or Symbol('").encode()

    def called(name: str, data: bytes) -> bytes:
        return data.replace(b"torch.ops.aten.linear.default", b"torch.hub.load")

    for index, (change, message) in enumerate(
        (
            (pickled, "sample inputs are pickled"),
            (flagged, "is pickled"),
            (evaluated, "no plain size expression"),
            (called, "'torch.hub.load', which is no operator of aten"),
        )
    ):
        file = changed(program, tmp_path / f"{index}.pt2", change)
        with pytest.raises(TsmergeError, match=message):
            read_program(file)
    assert not mark.exists()
    for name in (
        "p/data/constants/opaque_obj_0",
        "p/data/constants/custom_obj_0",
        "p/data/aotinductor/model/x.so",
    ):
        file = changed(program, tmp_path / "more.pt2", lambda name, data: data, name)
        with pytest.raises(UsageError, match="would be executed on loading"):
            read_program(file)


def test_program_files(program: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.pt2").write_bytes(program.read_bytes()[:2000])
    with pytest.raises(UsageError, match="truncated"):
        read_program(tmp_path / "cut.pt2")
    with zipfile.ZipFile(tmp_path / "other.pt2", "w") as archive:
        archive.writestr("a/b", b"")
    with pytest.raises(UsageError, match=r"not a file of torch\.export\.save"):
        read_program(tmp_path / "other.pt2")
    shutil.copy(program, tmp_path / "p.pt2")
    refuses(UnsupportedError, "no safe merge point", tmp_path / "p.pt2")


def test_a_tensor_may_be_called_target(tmp_path: Path) -> None:
    """Its name is no operator that a program calls."""

    class Model(torch.nn.Module):
        def forward(self, target: torch.Tensor) -> torch.Tensor:
            return target + 1

    file = tmp_path / "program.pt2"
    torch.export.save(torch.export.export(Model(), (torch.zeros(2, 3),)), file)
    assert read_program(file).module()(torch.ones(2, 3)).tolist() == [[2.0] * 3] * 2
