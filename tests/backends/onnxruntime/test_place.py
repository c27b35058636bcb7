"""Where sessions run: arguments read once, tried at once, handed to whatever is proved or timed."""

from __future__ import annotations

import html
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import parser

import tsmerge_export as tsm
from tests.models import tiny
from tests.quick import quick_verdicts
from tsmerge_export import api
from tsmerge_export.backends.onnxruntime import native
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.backends.onnxruntime.place import CPU, CUDA, HERE, TENSORRT, Place, place_words
from tsmerge_export.backends.onnxruntime.profile import merge_share
from tsmerge_export.backends.onnxruntime.session import GraphSession
from tsmerge_export.errors import MissingDependencyError, TsmergeError, UnsupportedError, UsageError
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.bench import worker
from tsmerge_export.tools.bench.candidate import Candidate
from tsmerge_export.verify import checks as checks_module
from tsmerge_export.verify.checks import Checks

#: Of ONNX Runtime's CPU package: starts anywhere, takes no node, and so leaves all of them to the CPU's.
AZURE = "AzureExecutionProvider"
OTHER = [AZURE, CPU]


@pytest.fixture
def other() -> list[str]:
    if AZURE not in ort.get_available_providers():
        pytest.skip(f"this ONNX Runtime has no {AZURE}")
    return OTHER


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The providers of every session that is started from now on; the sessions are real."""
    seen: list[list[str]] = []
    plain = Place.start

    def start(place: Place, kind: Any, source: Any, options: Any) -> Any:
        session = plain(place, kind, source, options)
        seen.append(session.get_providers())
        return session

    monkeypatch.setattr(Place, "start", start)
    return seen


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    text = '<ir_version: 10, opset_import: ["" : 18]> g (float[n] x) => (float[n] y) { y = Add(x, x) }'
    onnx.save(parser.parse_model(text), tmp_path / "add.onnx")
    return tmp_path / "add.onnx"


def test_the_cpu_unless_something_is_said() -> None:
    assert Place.of() == Place.of([CPU]) == Place.of(CPU) == HERE
    assert HERE.on_cpu and HERE.providers == [CPU] and str(HERE) == "ONNX Runtime on the CPU"
    assert HERE.run_entry() == {} and HERE.versions() == {} and HERE.exact() == HERE
    assert place_words({}) == str(HERE)


@pytest.mark.parametrize(
    ("providers", "plugin", "kind", "says"),
    [
        (["nonsense"], None, MissingDependencyError, "provider nonsense is not in this ONNX Runtime"),
        ([], None, UsageError, "providers is empty"),
        ([1], None, UsageError, "neither a provider's name nor"),
        (None, "absent.so", MissingDependencyError, "absent.so does not exist; build plugins/onnxruntime"),
        (OTHER, "absent.so", UsageError, "plugin has no effect unless"),
    ],
)
def test_places_that_are_not_there(providers: Any, plugin: Any, kind: type[TsmergeError], says: str) -> None:
    with pytest.raises(kind, match=says):
        Place.of(providers, plugin)


def test_a_library_that_does_not_load_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("no library")
    place = Place.of(None, tmp_path / "text.so")
    assert place.run_entry() == {"plugin": str(tmp_path / "text.so")}
    assert place.versions()["native operators"].startswith("text.so, SHA-256 ")
    with pytest.raises(UnsupportedError, match=r"text\.so: ONNX Runtime cannot load it"):
        place.try_out()
    with pytest.raises(UsageError, match="--plugin has no effect with --inline"):
        place.without_library("--inline")


def test_the_environment_names_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.so").write_text("a")
    monkeypatch.setenv(native.VARIABLE, str(tmp_path / "a.so"))
    monkeypatch.setenv(native.CUDA_LIBRARY.variable, str(tmp_path / "a.so"))
    cuda = Place((CUDA, CPU), ((), ()))
    assert HERE.run_entry() == {"native": str(tmp_path / "a.so")}
    assert cuda.run_entry() == {"providers": "cuda,cpu", "plugin": str(tmp_path / "a.so")}
    assert Place((AZURE, CPU), ((), ())).native_library() is None
    for place, name in ((HERE, native.VARIABLE), (cuda, native.CUDA_LIBRARY.variable)):
        with pytest.raises(UsageError, match=f"{name} has no effect with --runtime tensorrt"):
            place.without_library("--runtime tensorrt")


def test_a_verdict_is_in_float32_proper_unless_the_user_says_otherwise() -> None:
    cuda = Place((CUDA, CPU), ((("device_id", "1"),), ()))
    assert cuda.exact().providers == [(CUDA, {"device_id": "1", "use_tf32": "0"}), CPU]
    wanted = Place((CUDA,), ((("use_tf32", "1"),),))
    assert wanted.exact() == wanted
    assert Place((TENSORRT, CPU), ((), ())).exact().providers == [TENSORRT, CPU]


def test_to_another_process_and_back(tmp_path: Path) -> None:
    for place in (HERE, Place((CUDA, CPU), ((("device_id", 1),), ()), tmp_path / "a.so")):
        assert Place.from_dict(json.loads(json.dumps(place.to_dict()))) == place


def test_a_provider_that_does_not_start_is_never_the_cpu(
    graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime itself would go on without it."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    cuda = Place.of([CUDA, CPU])
    for run in (
        cuda.try_out,
        lambda: open_session(graph, 1, place=cuda),
        lambda: GraphSession(graph, providers=[CUDA, CPU]),
        lambda: Checks(place=cuda).open(graph),
        lambda: Checks(place=cuda).forecaster(graph, quiet=True),
        lambda: api.export(tiny("chronos-bolt"), output=graph.parent / "b", providers=[CUDA, CPU]),
        lambda: api.validate(graph.parent / "b", tiny("chronos-bolt"), providers=[CUDA, CPU]),
    ):
        with pytest.raises(MissingDependencyError, match="could not start CUDAExecutionProvider"):
            run()
    assert not (graph.parent / "b").exists()


def test_every_session_of_a_verdict_goes_there(
    graph: Path, other: list[str], started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = Checks(threads=1, place=Place.of(other))
    feed = {"x": np.arange(3, dtype=np.float32)}
    for session in (checks.open(graph), checks.open(onnx.load(graph)), checks.open(graph, timed=True)):
        np.testing.assert_array_equal(session.run(None, feed)[0], 2 * feed["x"])
    for quiet in (False, True):
        np.testing.assert_array_equal(checks.forecaster(graph, quiet=quiet).run(feed)["y"], 2 * feed["x"])
    assert started == [other] * 5
    # Times are those of the providers as they come, verdicts those of exact ones.
    places: list[Place] = []
    monkeypatch.setattr(checks_module, "open_session", lambda *_, place, **__: places.append(place))
    cuda = Checks(place=Place((CUDA, CPU), ((), ())))
    for timed in (False, True):
        cuda.open(graph, timed=timed)
    assert places == [cuda.place.exact(), cuda.place]


def test_a_timed_candidate_goes_there(graph: Path, other: list[str], started: list[list[str]]) -> None:
    np.savez(graph.with_name("inputs.npz"), x=np.arange(3, dtype=np.float32))
    order = {
        "candidate": Candidate("one", "onnxruntime", "group", str(graph), {}).to_dict(), "component": "model",
        "inputs": str(graph.with_name("inputs.npz")), "threads": 1, "place": Place.of(other).to_dict(),
    }  # fmt: skip
    answers = io.StringIO()
    worker.serve(io.StringIO(json.dumps(order) + "\nrun\nstop\n"), answers)
    assert "seconds" in json.loads(answers.getvalue().splitlines()[1])
    assert started == [other]


def test_no_share_of_merging_where_the_profiler_sees_launches(graph: Path, other: list[str]) -> None:
    assert merge_share(graph, {}, 1, Place.of(other)) is None


def test_a_bundle_names_where_it_was_proved(
    other: list[str], started: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_verdicts(monkeypatch)
    model = tiny("chronos-bolt").eval()
    bundle = tsm.export(model, MergeConfig(ratio="1/4"), output=tmp_path / "b", threads=1, providers=other)
    assert bundle.manifest["verdicts"]["parity"]["passed"]
    assert bundle.manifest["providers"] == bundle.report["providers"] == other
    assert bundle.report["run"]["providers"] == "AzureExecutionProvider,cpu"
    # Parity's session and its copy with decisions, both timed files, the example's; measuring stays on the CPU.
    assert started.count(other) >= 5 and [CPU] in started
    card = (bundle.path / "README.md").read_text()
    assert (
        "Verdicts and times are those of ONNX Runtime with AzureExecutionProvider, CPUExecutionProvider."
        in card
    )
    page = html.unescape((bundle.path / "report.html").read_text())
    assert page.count("providers=['AzureExecutionProvider', 'CPUExecutionProvider']") == 2
    before = started.count(other)
    verdicts = api.validate(bundle.path, model, threads=1, providers=other)
    assert verdicts["parity"]["passed"] and started.count(other) > before + 3
