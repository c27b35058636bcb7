"""The processes of the candidates: protocol, figures of a run, and what happens to one that fails."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from tsmerge_export.backends.onnxruntime.place import HERE
from tsmerge_export.errors import UsageError
from tsmerge_export.tools.bench import worker
from tsmerge_export.tools.bench.candidate import Candidate, parse_rivals
from tsmerge_export.tools.bench.run import Worker, interleave


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """y = x + x, and its input beside it."""
    model = parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]> g (float[N] x) => (float[N] y) { y = Add(x, x) }'
    )
    onnx.save_model(model, tmp_path / "add.onnx")
    np.savez(tmp_path / "inputs.npz", x=np.arange(3, dtype=np.float32))
    return tmp_path / "add.onnx"


def candidate(source: Path, name: str = "one") -> Candidate:
    return Candidate(name, "onnxruntime", "group", str(source), {})


def test_protocol(graph: Path) -> None:
    order = {
        "candidate": candidate(graph).to_dict(),
        "component": "model",
        "inputs": str(graph.with_name("inputs.npz")),
        "threads": 1,
        "place": HERE.to_dict(),
    }
    answers, before = io.StringIO(), worker.peak_bytes()
    worker.serve(io.StringIO(json.dumps(order) + "\nrun\nrun\nstop\nrun\n"), answers)
    ready, one, two, peak = (json.loads(line) for line in answers.getvalue().splitlines())
    assert ready == {"ready": True}
    assert 0 < one["seconds"] < 60
    assert 0 < two["seconds"] < 60
    # Read while the session is there: what comes later (closing it, this parsing) may need a few pages more, and the
    # kernel counts pages per thread and adds them up at times.
    pages = 2**20
    assert before - pages <= peak["peak"] <= worker.peak_bytes() + pages


def test_peak_is_that_of_the_process(graph: Path) -> None:
    """A candidate's memory is its own: far below that of this process, which holds PyTorch."""
    import torch

    ballast = torch.ones(64, 1024, 1024)  # 256 MiB
    (timing,) = interleave([candidate(graph)], "model", graph.with_name("inputs.npz"), 1, runs=2)
    assert timing.error is None
    assert timing.peak is not None
    assert 10 * 2**20 < timing.peak < worker.peak_bytes() - ballast.nbytes // 2


def test_all_take_turns_and_a_failure_stays_alone(graph: Path) -> None:
    told: list[tuple[int, int]] = []
    broken = graph.with_name("none.onnx")
    timings = interleave(
        [candidate(graph), candidate(broken, "broken"), candidate(graph, "two")],
        "model",
        graph.with_name("inputs.npz"),
        1,
        runs=6,
        progress=lambda done, total: told.append((done, total)),
    )
    one, failed, two = timings
    assert len(one.seconds) == len(two.seconds) == 6
    assert failed.seconds == []
    assert "none.onnx" in str(failed.error)
    assert failed.peak is None
    assert told[-1] == (7, 8)


def test_the_time_limit_ends_after_five_runs(graph: Path) -> None:
    (timing,) = interleave(
        [candidate(graph)], "model", graph.with_name("inputs.npz"), 1, runs=50, seconds=0.0
    )
    assert len(timing.seconds) == 5


def test_a_killed_process_says_which_signal(graph: Path) -> None:
    running = Worker(candidate(graph), "model", graph.with_name("inputs.npz"), 1)
    assert running.alive
    running._process.kill()
    assert running.ask("run") == {}
    assert running.timing.error == "ended with signal 9"
    assert not running.alive
    running.kill()


def test_rivals(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_rivals("eager, onnxruntime,eager") == (["eager", "onnxruntime"], [])
    with pytest.raises(UsageError, match="--against tvm: not a rival; choose from onnxruntime, eager"):
        parse_rivals("eager,tvm")
    from tsmerge_export.tools.bench import candidate as module

    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "openvino" else object())
    assert parse_rivals("openvino,eager") == (["eager"], ["openvino is not installed: left out"])
