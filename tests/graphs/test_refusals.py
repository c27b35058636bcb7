"""Files that cannot be merged, or must not be read: the reason, in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tsmerge_export import api
from tsmerge_export.checkpoint.onnx_file import read_onnx
from tsmerge_export.errors import TsmergeError, UnsupportedError, UsageError
from tsmerge_export.settings.config import MergeConfig


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
