"""Bundles for OpenVINO: proved there, run there, and refused where it cannot."""

from __future__ import annotations

import html
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

import tsmerge_export as tsm
from tests.models import tiny, tiny_folder
from tests.quick import quick_verdicts
from tsmerge_export import api, demo
from tsmerge_export.backends.openvino.session import NetworkSession
from tsmerge_export.backends.target import Target
from tsmerge_export.bundle import Bundle, TensorInfo
from tsmerge_export.cli import main_export
from tsmerge_export.errors import MissingDependencyError, UnsupportedError, UsageError, VerdictError
from tsmerge_export.settings.config import MergeConfig

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def openvino() -> None:
    pytest.importorskip("openvino", reason="openvino is not installed: pip install openvino")


def walks(batch: int, length: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((batch, length)).cumsum(1).astype(np.float32)


def test_the_demo_model(
    openvino: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    quick_verdicts(monkeypatch)
    flags = ["--merge", "local", "--ratio", "1/10", "--runtime", "openvino", "--threads", "1"]
    assert main_export([str(demo.CHRONOS_BOLT), *flags, "-o", str(tmp_path / "made")]) == 0
    assert "parity in openvino" in capsys.readouterr().out
    bundle = Bundle.open(tmp_path / "made")
    files = {"README.md", "manifest.json", "model.onnx", "report.html", "report.json"}
    assert {path.name for path in bundle.path.iterdir()} == files
    assert not onnx.load(bundle.file("model.onnx")).functions
    target = bundle.manifest["target"]
    assert target["runtime"] == "openvino" and target["version"].startswith("20")
    entry = target["components"]["model"]
    assert entry["onnx"] == "model.onnx"
    assert entry["parity"]["passed"] and entry["parity"]["rows"] > 0
    card, page = (html.unescape((bundle.path / name).read_text()) for name in ("README.md", "report.html"))
    for text in (card, page):
        assert f"Proved in OpenVINO {target['version']} on the CPU" in text
        assert "parity was repeated in OpenVINO" in text
        assert 'compile_model("model.onnx", "CPU"' in text
    assert "--runtime openvino" in page

    session, want = tsm.load(bundle, runtime="openvino", threads=1), tsm.load(bundle)
    assert "NetworksSession" in repr(session) and session.outputs == bundle.component("model").outputs
    for batch, length in ((1, 64), (3, 200)):
        feed = {"context": walks(batch, length)}
        got, expected = session.run(feed)["quantiles"], want.run(feed)["quantiles"]
        assert np.abs(got - expected).max() <= 5e-5 * np.abs(expected).max()
    series = walks(1, 150)[0]
    got, expected = (
        tsm.pipeline(bundle, runtime=runtime).predict(series, prediction_length=8)
        for runtime in ("openvino", "onnxruntime")
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    with pytest.raises(UsageError, match=r"context.*has shape \[3\]"):
        session.run({"context": np.zeros(3, np.float32)})
    with pytest.raises(UsageError, match="providers and plugin have no effect with runtime openvino"):
        tsm.load(bundle, runtime="openvino", providers=["CPUExecutionProvider"])
    with pytest.raises(UsageError, match="threads 0 must be a whole number"):
        tsm.load(bundle, runtime="openvino", threads=0)
    with pytest.raises(UsageError, match="was made for openvino; export it with --runtime tensorrt"):
        tsm.load(bundle, runtime="tensorrt")


def test_components_in_a_row_against_the_eager_model(
    openvino: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoder, cross-attention and decoder of Chronos-T5, through the caches of the step loop; and a wrong decoder."""
    quick_verdicts(monkeypatch)
    model, merge, target = tiny("chronos-t5").eval(), MergeConfig(ratio="1/4"), Target("openvino")
    bundle = tsm.export(model, merge, output=tmp_path / "made", target=target, threads=1)
    parts = bundle.manifest["target"]["components"]
    assert list(parts) == ["encoder", "cross", "decoder"]
    assert all(part["parity"]["passed"] and part["parity"]["rows"] > 0 for part in parts.values())
    assert parts["decoder"]["parity"]["max_rel"] < 1e-4
    sessions = tsm.load(bundle, runtime="openvino")
    assert sessions.components == ("encoder", "cross", "decoder")
    drawn = tsm.pipeline(bundle, runtime="openvino").predict(
        walks(1, 60)[0], prediction_length=3, num_samples=2
    )
    assert drawn.shape == (1, 2, 3) and np.isfinite(drawn).all()

    right = NetworkSession.run
    monkeypatch.setattr(
        NetworkSession,
        "run",
        lambda self, inputs: {
            name: value * np.float32(1.01) if name == "cross_key_0" else value
            for name, value in right(self, inputs).items()
        },
    )
    with pytest.raises(VerdictError, match="decoder: parity in openvino failed"):
        tsm.export(model, merge, output=tmp_path / "wrong", target=target, threads=1)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]

    # Nor does the right bundle pass where OpenVINO computes something else than when it was made.
    wrong = api.validate(bundle.path, model, threads=1)["parity"]
    assert not wrong["passed"] and any(
        "decoder: parity in openvino failed" in text for text in wrong["failures"]
    )
    monkeypatch.setattr(NetworkSession, "run", right)
    assert api.validate(bundle.path, model, threads=1)["parity"]["passed"]
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependencyError, match="openvino is not installed"):
        api.validate(bundle.path, model, threads=1)


@pytest.mark.slow
def test_a_model_that_openvino_cannot_load_is_no_bundle(
    openvino: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    quick_verdicts(monkeypatch)
    monkeypatch.chdir(tmp_path)
    tiny_folder(tmp_path / "tiny", "informer")
    assert (
        main_export(["tiny", "--ratio", "1/4", "--runtime", "openvino", "--threads", "1", "-o", "made"]) == 3
    )
    error = capsys.readouterr().err
    assert error.startswith("error: encoder.onnx: OpenVINO 20") and error.count("\n") == 1
    assert "cannot load it" in error and "rank has to be known" in error
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_file_that_openvino_cannot_load_is_one_line(openvino: None, tmp_path: Path) -> None:
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 19]> g (float[N] x) => (float[M] y) '
        '{ p = Constant <value = int64[2] {1, 1}> () y = Pad <mode = "wrap"> (x, p) }'
    )
    onnx.save(model, tmp_path / "wrap.onnx")
    infos = [TensorInfo("x", "float32", ("N",)), TensorInfo("y", "float32", ("M",))]
    with pytest.raises(
        UnsupportedError, match=r"^wrap\.onnx: OpenVINO 20.* cannot load it: .*wrap"
    ) as raised:
        NetworkSession(tmp_path / "wrap.onnx", infos[:1], infos[1:])
    assert "\n" not in str(raised.value) and "src/" not in str(raised.value)


def test_missing_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert main_export([str(tiny_folder(tmp_path / "tiny")), "--runtime", "openvino"]) == 4
    assert "openvino is not installed; pip install " in capsys.readouterr().err


def test_what_may_not_end_is_not_run_in_this_process(tmp_path: Path) -> None:
    """Hostile files: OpenVINO has no process of its own, as ONNX Runtime has."""
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18]> g (int64[N] x, int64[N] y) => (int64[N] z) { z = Div(x, y) }'
    )
    onnx.save(model, tmp_path / "div.onnx")
    infos = [TensorInfo(name, "int64", ("N",)) for name in "xyz"]
    with pytest.raises(
        UnsupportedError, match=r"div\.onnx: Div of whole numbers.*ONNX Runtime alone runs that"
    ):
        NetworkSession(tmp_path / "div.onnx", infos[:2], infos[2:])


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (
            Target("openvino", dtype="fp16"),
            "--dtype has no effect with --runtime openvino, which is proved in",
        ),
        (
            Target("openvino", shapes=({"x": (1,)}, None, None)),
            "--min-shapes, --opt-shapes, --max-shapes has no",
        ),
        (Target("openvino", capabilities=("86",)), "--compute-capability has no effect"),
        (
            Target("openvino", plugin=Path("x")),
            "--plugin has no effect with --runtime openvino, which has none",
        ),
    ],
)
def test_flags_without_effect(target: Target, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        target.check(MergeConfig(), inline=False)


@pytest.mark.parametrize("family", ["chronos-bolt", pytest.param("chronos-t5", marks=pytest.mark.slow)])
def test_a_ratio_that_is_chosen_at_run_time(
    family: str, openvino: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parity in OpenVINO is that of several ratios; sessions and forecasters take it as in ONNX Runtime."""
    quick_verdicts(monkeypatch)
    model, merge = tiny_folder(tmp_path / "model", family), MergeConfig(ratio="runtime:1/4")
    bundle = tsm.export(model, merge, output=tmp_path / "made", threads=1, target=Target("openvino"))
    parts = bundle.manifest["target"]["components"].values()
    assert all(part["parity"]["passed"] and part["parity"]["cases"] > 4 for part in parts)
    ours, theirs = (tsm.pipeline(bundle, runtime=name, threads=1) for name in ("openvino", "onnxruntime"))
    assert ours.default_ratio == theirs.default_ratio == merge.default_ratio
    series, options = walks(2, 90), {} if family == "chronos-bolt" else {"num_samples": 2, "top_k": 1}
    seen = []
    for ratio in (None, 0, "1/2"):
        found, want = (one.predict(series, seed=0, ratio=ratio, **options) for one in (ours, theirs))
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4 * float(np.abs(want).max()))
        seen.append(found)
    if not options:  # the most likely tokens of random weights are the same at any ratio
        assert not np.allclose(seen[1], seen[2], rtol=1e-3)
    with pytest.raises(UsageError, match="is not a ratio"):
        ours.predict(series, ratio=0.6)
