"""The native operators of ONNX Runtime's CUDA provider on the card: equal to the reference, and in whole models."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from tests.ops.harness import difference, merge_model, run_case, session
from tests.plugins import copies
from tests.plugins.native import draw, methods
from tests.problems import CASES
from tsmerge_export.backends.onnxruntime import native

pytestmark = pytest.mark.gpu

PROBLEMS = int(os.environ.get("TSMERGE_GPU_PROBLEMS", "200"))


@pytest.mark.parametrize("method", methods(native.CUDA_LIBRARY))
def test_equal_the_reference_on_random_problems(method: str, cuda: str, library: Path) -> None:
    flips = 0
    for seed in range(PROBLEMS):
        case = draw(seed, CASES[method])
        found = difference(case, run_case(case, library, providers=[cuda]))
        assert found in (None, "flip"), f"seed {seed}: {case}\n{found}"
        flips += found == "flip"
    assert flips <= PROBLEMS // 100


@pytest.mark.parametrize("kind", copies.DRAWS)
def test_copies_by_index_are_plain_indexing(kind: str, cuda: str, library: Path) -> None:
    for seed in range(PROBLEMS):
        assert copies.check(seed, kind, library, [cuda]) is None


def test_the_node_runs_on_the_gpu(cuda: str, library: Path, tmp_path: Path) -> None:
    settings = {"k": 1, "r": 5, "ratio_num": 0, "ratio_den": 1, "min_tokens": 0, "protect_first": 0}
    model = merge_model({**settings, "protect_last": 0})
    run = session(
        model,
        plugin=library,
        providers=[cuda],
        enable_profiling=True,
        profile_file_prefix=str(tmp_path / "p"),
    )
    x = np.random.default_rng(0).standard_normal((1, 20, 4)).astype(np.float32)
    run.run(None, {"x": x, "metric": x, "size": np.ones((1, 20), np.float32)})
    events = json.loads(Path(run.end_profiling()).read_text())
    nodes = [event["args"] for event in events if event.get("cat") == "Node" and "provider" in event["args"]]
    assert {node["provider"] for node in nodes if node["op_name"] == "LocalMerge"} == {cuda}


def _open(file: Path, provider: str, library: Path | None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    native.register(options, library, [provider])
    chosen = [(provider, {"use_tf32": "0"} if provider.startswith("CUDA") else {})]
    return ort.InferenceSession(str(file), options, providers=chosen)


def test_every_family_gives_what_the_cpu_gives(cuda: str, library: Path, files: list[Path]) -> None:
    """Float32 without TF32, with the functions and with the operators, against the functions on the CPU.

    Half of a percent of the rows may differ: a merge decision within float noise.
    """
    assert files
    rows = different = 0
    worst = 0.0
    for folder in files:
        file = folder / "model.onnx"
        plain = _open(file, "CPUExecutionProvider", None)
        ways = [_open(file, cuda, library)]
        if "TSMERGE_GPU_PROVIDER" not in os.environ:  # there the library would be for the CPU
            ways.append(_open(file, cuda, None))
        for feed_file in sorted(folder.glob("feed*.npz")):
            feed = dict(np.load(feed_file))
            expected = plain.run(None, feed)
            for way in ways:
                for want, got in zip(expected, way.run(None, feed), strict=True):
                    assert got.shape == want.shape, folder.name
                    if want.dtype.kind != "f" or not want.size:
                        continue
                    batch = want.shape[0]
                    with np.errstate(invalid="ignore", over="ignore"):
                        scale = np.nanmax(np.abs(want.reshape(batch, -1)), axis=1, initial=1e-30)
                        error = np.abs(got - want).reshape(batch, -1) / scale[:, None]
                    finite = np.isfinite(want.reshape(batch, -1))
                    assert np.array_equal(np.isfinite(got.reshape(batch, -1)), finite), folder.name
                    row = np.where(finite, error, 0).max(axis=1)
                    rows += batch
                    different += int((row > 1e-4).sum())
                    worst = max(worst, float(row[row <= 1e-4].max(initial=0)))
    print(f"{len(files)} files, {rows} rows, {different} beyond 1e-4 of scale, the others within {worst:.1e}")
    assert different <= rows // 200
