"""Files of one shape as CUDA graphs: captured once, replayed on other inputs, nothing of a run on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests.gpu.conftest import CUDA
from tsmerge_export.backends.onnxruntime.static.cuda import on_the_cpu
from tsmerge_export.backends.onnxruntime.static.form import static_form
from tsmerge_export.errors import UnsupportedError

pytestmark = pytest.mark.gpu

Feed = dict[str, np.ndarray]


def forms(files: list[Path], folder: Path) -> list[tuple[str, Path, Path, Feed]]:
    """Name, the file for any shape, that for the shape of its last inputs, and those."""
    found = []
    for place in files:
        feed = dict(np.load(max(place.glob("feed*.npz"))))
        try:
            form = static_form(
                onnx.load(place / "model.onnx"),
                {name: value.shape for name, value in feed.items()},
                place.name,
            )
        except UnsupportedError:
            continue
        if not on_the_cpu(form):
            onnx.save(form, folder / f"{place.name}.onnx")
            found.append((place.name, place / "model.onnx", folder / f"{place.name}.onnx", feed))
    return found


def _session(file: Path, provider: str, options: dict[str, str], profile: str = "") -> ort.InferenceSession:
    chosen = ort.SessionOptions()
    chosen.log_severity_level = 3
    if profile:
        chosen.enable_profiling, chosen.profile_file_prefix = True, profile
    return ort.InferenceSession(
        str(file), chosen, providers=[(provider, options if provider == CUDA else {})]
    )


def test_replayed_as_a_graph(cuda: str, files: list[Path], tmp_path: Path) -> None:
    where = "cuda" if cuda == CUDA else "cpu"
    cases = forms(files, tmp_path)
    assert cases
    for name, portable, static, feed in cases:
        session = _session(static, cuda, {"use_tf32": "0", "enable_cuda_graph": "1"})
        binding = session.io_binding()
        inputs = {
            key: ort.OrtValue.ortvalue_from_shape_and_type(value.shape, value.dtype.type, where, 0)
            for key, value in feed.items()
        }
        outputs = {}
        for output in session.get_outputs():
            dtype = {"tensor(float)": np.float32, "tensor(int64)": np.int64}[output.type]
            outputs[output.name] = ort.OrtValue.ortvalue_from_shape_and_type(output.shape, dtype, where, 0)
            binding.bind_ortvalue_output(output.name, outputs[output.name])
        for key, value in inputs.items():
            binding.bind_ortvalue_input(key, value)
        reference = _session(portable, "CPUExecutionProvider", {})
        for turn in range(3):  # the first captures
            own = {
                key: np.roll(value, turn, axis=-1) if value.dtype == np.float32 else value
                for key, value in feed.items()
            }
            for key, value in own.items():
                inputs[key].update_inplace(np.ascontiguousarray(value))
            session.run_with_iobinding(binding)
            wanted = dict(
                zip([o.name for o in reference.get_outputs()], reference.run(None, own), strict=True)
            )
            for key, want in wanted.items():
                got = outputs[key].numpy()
                assert got.shape == want.shape, name
                scale = float(np.abs(want).max(initial=1e-30))
                rows = np.abs(got - want).reshape(len(want), -1).max(axis=1) / scale
                assert (rows > 1e-4).sum() <= len(rows) // 2, (
                    name,
                    turn,
                    key,
                )  # a decision within float noise


def test_no_node_on_the_cpu(cuda: str, files: list[Path], tmp_path: Path) -> None:
    for name, _, static, feed in forms(files, tmp_path):
        session = _session(static, cuda, {"use_tf32": "0"}, str(tmp_path / name))
        session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text())
        providers = {
            event["args"]["provider"]
            for event in events
            if event.get("cat") == "Node" and "provider" in event["args"]
        }
        assert providers == {cuda}, name
