"""Graphs from files as bundles for OpenVINO: proved there against the original graph, validated, timed, refused."""

from __future__ import annotations

import html
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

import tsmerge_export as tsm
from tests.graphs import models as graphs
from tests.quick import quick_verdicts
from tests.report.html.command_lines import parsed
from tsmerge_export import api
from tsmerge_export.backends.openvino.session import NetworkSession
from tsmerge_export.backends.target import Target
from tsmerge_export.bundle import Bundle
from tsmerge_export.cli import main, main_export
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.graphs.source import GraphSource
from tsmerge_export.report.html.commands import commands
from tsmerge_export.settings.config import MergeConfig

MERGE = MergeConfig(ratio="1/4", min_tokens=2)
TARGET = Target("openvino")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("openvino", reason="openvino is not installed: pip install openvino")
    quick_verdicts(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def inputs_of(bundle: Bundle) -> dict[str, np.ndarray]:
    source = GraphSource(bundle.contents.source)
    return source.model.example(0)


def assert_runs_in_both(bundle: Bundle) -> None:
    assert bundle.contents.target is not None
    entry = bundle.contents.target.components["model"]
    assert entry.parity is not None
    assert entry.parity.passed and entry.parity.rows > 0
    assert entry.parity.against is not None and "the original graph" in entry.parity.against
    assert not onnx.load(bundle.file(entry.onnx)).functions
    feed = inputs_of(bundle)
    want = tsm.load(bundle, threads=1).run(feed)
    for name, got in tsm.load(bundle, runtime="openvino", threads=1).run(feed).items():
        assert got.shape == want[name].shape
        np.testing.assert_allclose(got, want[name], rtol=1e-4, atol=1e-4 * np.abs(want[name]).max())


def test_an_onnx_file(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exported and validated as the page says; where it computes something else there, it fails."""
    graphs.export("plain", "a model.onnx", old=True, opset=17)
    flags = ["--ratio", "1/4", "--min-tokens", "2", "--runtime", "openvino", "--threads", "1"]
    assert main_export(["a model.onnx", *flags, "-o", "made"]) == 0
    assert "parity in openvino" in capsys.readouterr().out
    bundle = Bundle.open("made")
    assert_runs_in_both(bundle)
    for name in ("README.md", "report.html"):
        text = html.unescape((bundle.path / name).read_text())
        assert "on the CPU, in float32, against the original graph" in text
        assert "against eager PyTorch" not in text

    given = dict(commands(bundle.read_report()))
    again, validate = parsed(given["export"]), parsed(given["repeat the verdicts"])
    assert (again.model, again.runtime, again.output) == ("a model.onnx", "openvino", "made")
    assert (validate.bundle, validate.model) == ("made", "a model.onnx")
    assert all(parsed(given[what]).run is not None for what in ("where it merges", "speed over batches"))
    command = shlex.split(given["repeat the verdicts"])[1:]
    assert main(command) == 0

    run = NetworkSession.run

    def other(self: NetworkSession, *given: Any, **more: Any) -> Any:
        return {name: value * 1.01 for name, value in run(self, *given, **more).items()}

    monkeypatch.setattr(NetworkSession, "run", other)
    assert main(command) == 1
    assert "model: parity in openvino failed" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("merge", [MERGE, MergeConfig(ratio="runtime:1/4", min_tokens=2)], ids=str)
def test_a_program(folder: Path, merge: MergeConfig) -> None:
    graphs.save_program("plain", "model.pt2")
    assert_runs_in_both(api.export("model.pt2", merge, target=TARGET, output="made", threads=1))


def test_a_graph_that_is_not_known_to_end_is_refused(folder: Path) -> None:
    """OpenVINO is not run in a process of its own."""
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18]> g (float[B, N] x, int64[B, N] n) => (float[B, N] y) '
        "{ m = Abs(n)  one = Constant <value = int64 {1}> ()  more = Add(m, one)  part = Div(n, more) "
        " f = Cast <to = 1> (part)  y = Add(x, f) }"
    )
    onnx.save(model, "div.onnx")
    with pytest.raises(
        UnsupportedError, match=r"model\.onnx: Div of whole numbers.*ONNX Runtime alone runs that"
    ):
        api.export("div.onnx", MergeConfig("none"), target=TARGET, output="made", threads=1)
    assert not Path("made").exists()


def test_a_runtime_of_engines_takes_none(tmp_path: Path) -> None:
    with pytest.raises(
        UnsupportedError, match=r"--runtime tensorrt-rtx takes models of the families only: it builds"
    ):
        api._check_graph_options("model.onnx", Target("tensorrt-rtx"), None)
