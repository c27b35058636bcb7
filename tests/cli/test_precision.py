"""What --precision cannot do is refused in one line with the right exit code, and nothing is written."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest

from tests.cli.said import Capture, error_of
from tests.precision.networks import network
from tsmerge_export.cli import main_export
from tsmerge_export.cli.parser import export_parser
from tsmerge_export.cli.precision import precision_of
from tsmerge_export.cli.target import target_of
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.precision.products import products
from tsmerge_export.precision.quantise import as_products, quantised
from tsmerge_export.settings.precision import Precision

#: What onnxruntime 1.20 calls otherwise.
BY_BLOCKS = "onnxruntime.quantization.matmul_nbits_quantizer"


@pytest.mark.parametrize("runtime", ["openvino", "tensorrt", "tensorrt-rtx"])
def test_other_runtimes(model: str, capsys: Capture, runtime: str) -> None:
    before = sorted(Path().rglob("*"))
    error = error_of(capsys, main_export([model, "--precision", "int8", "--runtime", runtime]), 3)
    assert f"--precision int8: quantised files are for --runtime onnxruntime, not for {runtime}" in error
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (
            ["--precision", "int8", "--dtype", "fp16"], 2,
            "--precision int8: --dtype fp16 asks for another precision of the same files; leave one of the two out",
        ),
        (["--precision", "bf16", "--dtype", "fp16"], 2, "--precision bf16: --dtype fp16 asks for another"),
        (["--dtype", "bf16", "--inline"], 2, "--inline: merge decisions of a file in bf16 are proved"),
        (
            ["--precision", "fp16", "--runtime", "tensorrt"], 3,
            "--precision fp16: files in half are for --runtime onnxruntime, not for tensorrt; use --dtype fp16",
        ),
        (["--precision", "fp16", "--runtime", "openvino"], 3, "not for openvino; leave one of the two out"),
        (["--dtype", "fp8"], 2, "--dtype fp8: choose one of fp32, fp16, bf16"),
    ],
)  # fmt: skip
def test_half(model: str, capsys: Capture, flags: list[str], code: int, said: str) -> None:
    before = sorted(Path().rglob("*"))
    assert said in error_of(capsys, main_export([model, *flags]), code)
    assert sorted(Path().rglob("*")) == before


def test_one_precision_by_two_names() -> None:
    for flags in (["--dtype", "fp16"], ["--precision", "fp16"], ["--dtype", "fp16", "--precision", "fp16"]):
        args = export_parser().parse_args(["model", *flags, "--keep-precise", "a"])
        assert precision_of(args) == Precision("fp16", ("a",)) and target_of(args).dtype == "fp32"
    args = export_parser().parse_args(["model", "--dtype", "fp16", "--runtime", "tensorrt"])
    assert precision_of(args) is None and target_of(args).dtype == "fp16"


def saved(path: Path, model: onnx.ModelProto, opset: int = 18) -> str:
    next(entry for entry in model.opset_import if entry.domain == "").version = opset
    onnx.save(model, path)
    return str(path)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("int8", "(it holds DynamicQuantizeLinear, MatMulInteger); give the float32 model"),
        ("int4-weights", "com.microsoft::MatMulNBits"),
    ],
)
def test_a_file_that_is_quantised_already(tmp_path: Path, capsys: Capture, kind: str, words: str) -> None:
    if kind != "int8":
        pytest.importorskip(BY_BLOCKS, reason="this onnxruntime has no quantiser of weights by blocks")
    model = as_products(network())
    low = quantised(model, Precision(kind), [one.node for one in products(model)])
    flags = ["--merge", "none", "--precision", "int8", "-o", str(tmp_path / "out")]
    error = error_of(capsys, main_export([saved(tmp_path / "low.onnx", low), *flags]), 3)
    assert words in error and "give the" in error
    assert not (tmp_path / "out").exists()


def test_an_onnxruntime_without_that_quantiser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as 1.20: it is installed, so that installing it is no cure."""
    model = as_products(network())
    monkeypatch.setitem(sys.modules, BY_BLOCKS, None)
    with pytest.raises(UnsupportedError, match=r"--precision int4-weights: .*; upgrade onnxruntime"):
        quantised(model, Precision("int4-weights"), [one.node for one in products(model)])


def test_an_operator_set_that_is_too_old(tmp_path: Path, capsys: Capture) -> None:
    file = saved(tmp_path / "old.onnx", network(), opset=9)
    error = error_of(capsys, main_export([file, "--precision", "int8", "-o", str(tmp_path / "out")]), 3)
    assert "opset 9 is not supported; export it with opset 13 to 23" in error
