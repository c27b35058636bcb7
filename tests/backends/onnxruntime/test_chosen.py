"""Files whose ratio is chosen at run time: their default, the same file in other runtimes, and hostile ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests import artefacts, web
from tsmerge_export.backends.onnxruntime import session as sessions
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.backends.onnxruntime.session import GraphSession
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.inspection.inspect import inspect_file
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.run_time import METADATA

CHOSEN = MergeConfig(ratio="runtime:1/4", min_tokens=1)
SERIES = np.random.default_rng(2).standard_normal((2, 150)).cumsum(1).astype(np.float32)


def built(inline: bool = False) -> Path:
    return artefacts.built("bolt-tiny", CHOSEN, inline).merged


def fed(ratio: float) -> dict[str, np.ndarray]:
    return {"context": SERIES, "merge_ratio": np.array(ratio, np.float32)}


def quantiles(ratio: str) -> np.ndarray:
    """Of the file that was made for that ratio alone."""
    merge = MergeConfig("none") if ratio == "0" else MergeConfig(ratio=ratio, min_tokens=1)
    found: np.ndarray = open_session(artefacts.built("bolt-tiny", merge).merged).run(
        None, {"context": SERIES}
    )[0]
    return found


def test_one_file_in_every_runtime() -> None:
    """ONNX Runtime by itself, with functions and inlined; OpenVINO; onnxruntime-web. A true input in all of them."""
    ratios = {"1/4": 0.25, "1/10": 0.1, "1/2": 0.5, "0": 0.0}
    want = {ratio: quantiles(ratio) for ratio in ratios}
    scale = float(np.abs(want["0"]).max())
    assert np.abs(want["1/2"] - want["0"]).max() > 1e-3 * scale
    own = onnxruntime.InferenceSession(str(built()))
    assert [value.name for value in own.get_inputs()] == ["context", "merge_ratio"]
    assert own.get_modelmeta().custom_metadata_map[METADATA] == "1/4"
    inlined = onnxruntime.InferenceSession(str(built(inline=True)))
    for ratio, value in ratios.items():
        got = own.run(None, fed(value))[0]
        np.testing.assert_allclose(got, want[ratio], rtol=1e-5, atol=(0 if value else 1e-5) * scale)
        np.testing.assert_allclose(inlined.run(None, fed(value))[0], got, rtol=1e-4, atol=1e-5 * scale)
    openvino = pytest.importorskip("openvino", reason="openvino is not installed: pip install openvino")
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(built(inline=True)), "CPU", settings)
    for ratio, value in ratios.items():
        np.testing.assert_allclose(compiled(fed(value))[0], want[ratio], rtol=1e-4, atol=1e-5 * scale)
    reason = web.missing()
    if reason:
        pytest.skip(reason)
    for found, expected in zip(
        web.run(built(), [fed(value) for value in ratios.values()]), want.values(), strict=True
    ):
        np.testing.assert_allclose(found["quantiles"], expected, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("inline", [False, True])
def test_sessions_know_the_default_and_hide_the_input(inline: bool) -> None:
    plain, ours = open_session(built(inline)), GraphSession(built(inline))
    assert [value.name for value in plain.get_inputs()] == ["context"] == [info.name for info in ours.inputs]
    want = quantiles("1/4")
    for got in (plain.run(None, {"context": SERIES})[0], ours.run({"context": SERIES})["quantiles"]):
        np.testing.assert_allclose(got, want, rtol=1e-5)
    assert str(ours.default_ratio) == "1/4"
    found = inspect_file(built(inline), batch=1, length=150)
    assert all(m["before"] - m["after"] == m["before"] // 4 for m in found["merges"])


def test_a_session_apart_takes_the_ratio_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_risk", lambda path: "for this test")
    apart = GraphSession(built(), threads=1)
    assert str(apart.default_ratio) == "1/4" and [info.name for info in apart.inputs] == ["context"]
    np.testing.assert_allclose(apart.run({"context": SERIES})["quantiles"], quantiles("1/4"), rtol=1e-5)
    np.testing.assert_allclose(apart.run({"context": SERIES}, 0.5)["quantiles"], quantiles("1/2"), rtol=1e-5)
    with pytest.raises(UsageError, match="is not a ratio"):
        apart.run({"context": SERIES}, ratio="much")


@pytest.mark.parametrize(
    "noted", ["", "1/0", "3/4", "nan", "1/4\n", "-1", "0", "9" * 9999, "1/4096", "runtime"]
)
def test_a_default_that_is_none_is_refused_in_one_line(noted: str, tmp_path: Path) -> None:
    model = onnx.load(built())
    model.metadata_props[0].value = noted
    file = tmp_path / "m.onnx"
    onnx.save(model, file)
    if noted.strip() == "1/4":
        assert str(GraphSession(file).default_ratio) == "1/4"
        return
    with pytest.raises(UnsupportedError, match="is no ratio; export the file again") as caught:
        GraphSession(file)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_inputs_of_the_name_that_are_none(tmp_path: Path) -> None:
    """Without the note in the file it is an input like any other; of another type it is no ratio."""
    model = onnx.load(built())
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "plain.onnx")
    plain = GraphSession(tmp_path / "plain.onnx")
    assert plain.default_ratio is None and [info.name for info in plain.inputs] == ["context", "merge_ratio"]
    np.testing.assert_allclose(plain.run(fed(0.5))["quantiles"], quantiles("1/2"), rtol=1e-5)
    model = onnx.load(built())
    model.graph.input[-1].type.tensor_type.shape.dim.add().dim_value = 1
    onnx.save(model, tmp_path / "row.onnx")
    with pytest.raises(UnsupportedError):
        GraphSession(tmp_path / "row.onnx")
