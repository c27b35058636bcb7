"""What --precision cannot do is refused in one line with the right exit code, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.cli.said import Capture, error_of
from tests.precision.networks import network
from tsmerge_export.cli import main_export
from tsmerge_export.precision.products import products
from tsmerge_export.precision.quantise import as_products, quantised
from tsmerge_export.settings.precision import Precision


@pytest.mark.parametrize("runtime", ["openvino", "tensorrt", "tensorrt-rtx"])
def test_other_runtimes(model: str, capsys: Capture, runtime: str) -> None:
    before = sorted(Path().rglob("*"))
    error = error_of(capsys, main_export([model, "--precision", "int8", "--runtime", runtime]), 3)
    assert f"--precision int8: quantised files are for --runtime onnxruntime, not for {runtime}" in error
    assert sorted(Path().rglob("*")) == before


def saved(path: Path, model: onnx.ModelProto, opset: int = 18) -> str:
    next(entry for entry in model.opset_import if entry.domain == "").version = opset
    onnx.save(model, path)
    return str(path)


def test_a_file_that_is_quantised_already(tmp_path: Path, capsys: Capture) -> None:
    model = as_products(network())
    file = saved(
        tmp_path / "low.onnx", quantised(model, Precision("int8"), [one.node for one in products(model)])
    )
    flags = ["--merge", "none", "--precision", "int8", "-o", str(tmp_path / "out")]
    error = error_of(capsys, main_export([file, *flags]), 3)
    assert (
        "is quantised already (it holds DynamicQuantizeLinear, MatMulInteger); give the float32 model"
        in error
    )
    blocks = quantised(model, Precision("int4-weights"), [one.node for one in products(model)])
    error = error_of(capsys, main_export([saved(tmp_path / "blocks.onnx", blocks), *flags]), 3)
    assert "com.microsoft::MatMulNBits" in error and "give the plain export" in error
    assert not (tmp_path / "out").exists()


def test_an_operator_set_that_is_too_old(tmp_path: Path, capsys: Capture) -> None:
    file = saved(tmp_path / "old.onnx", network(), opset=9)
    error = error_of(capsys, main_export([file, "--precision", "int8", "-o", str(tmp_path / "out")]), 3)
    assert "opset 9 is not supported; export it with opset 13 to 23" in error
