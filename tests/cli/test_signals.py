"""Interruption of the real command at every step: right exit code, one line, old bundle intact, nothing half-written.

One process imports everything and forks a child per case, so that a case costs its steps and not the imports.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from tests.events import ROOT, process_at, until
from tests.models import tiny_folder
from tsmerge_export.bundle import Bundle, BundleWriter
from tsmerge_export.bundle.manifest import ComponentEntry, Described
from tsmerge_export.cli.handler import TERMINATED, guarded

STEPS = ("load", "export", "rewrite", "lower", "parity", "cost", "bundle", "commit")
#: On disk no other step differs from one of these.
KILLS = ("load", "lower", "bundle", "commit")

# The child runs the real command; at the given step it sends itself the signal.
_CHILDREN = """
import json, os, signal, sys
import torch
from tests import exports
from tsmerge_export import api, checkpoint, cli, families
from tsmerge_export.bundle import writer
from tsmerge_export.compile import checkpoint_source
from tsmerge_export.console import progress
from tsmerge_export.verify import corpus, cost
import tsmerge_export.families.chronos_bolt

model, root = sys.argv[1:]
torch.set_num_threads(1)  # no pool of threads that a fork would lose
loaded = checkpoint.load_model(model)
exported = exports.export_component(families.get(loaded.family).components(loaded.model)[0], loaded.model)
checkpoint_source.export_component = lambda *args, **kwargs: exported.clone()  # the slow step: once for all
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits that it is ignored
signal_at = [None, None]
cases, step, sync = corpus.cases, progress.RichProgress.step, writer.fsync_tree

def announced(self, name):
    step(self, name)
    if name == signal_at[0]:
        signal.raise_signal(signal_at[1])

def synced(*args, **kwargs):
    sync(*args, **kwargs)
    if signal_at[0] == "commit":
        signal.raise_signal(signal_at[1])

progress.RichProgress.step = announced
writer.fsync_tree = synced
# The rigour of the verdicts is not the subject.
corpus.cases = lambda *args, **kwargs: list(cases(*args, **kwargs))[:2]
cost.interleaved = lambda *args, **kwargs: (1, 1.0, 1.0)
results = {}
for name, number in (*((s, signal.SIGINT) for s in %r), *((s, signal.SIGKILL) for s in %r)):
    folder = os.path.join(root, f"{name}-{int(number)}")
    child = os.fork()
    if child == 0:
        signal_at[:] = [name, number]
        with open(os.path.join(folder, "stderr"), "w") as err:
            os.dup2(err.fileno(), 2)
        given = [model, "--merge", "local", "-o", os.path.join(folder, "out"), "--force", "--threads", "1"]
        code = cli.main_export(given)
        os._exit(code)
    results[f"{name}-{int(number)}"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(results))
"""


def old_bundle(path: Path) -> None:
    with BundleWriter(path) as writer:
        (writer.path / "model.onnx").write_bytes(b"old")
        writer.commit(Described(components=(ComponentEntry("model", "model.onnx", (), ()),)))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("signals")
    for step in STEPS:
        for number in (signal.SIGINT, signal.SIGKILL):
            folder = root / f"{step}-{int(number)}"
            folder.mkdir()
            old_bundle(folder / "out")
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def codes(root: Path, model: Path) -> dict[str, int]:
    """Exit code of every case, negative for a signal that killed it."""
    script = _CHILDREN % (STEPS, KILLS)
    run = subprocess.run(
        [sys.executable, "-c", script, str(model), str(root)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, int] = json.loads(run.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("step", STEPS)
def test_sigint(root: Path, codes: dict[str, int], step: str) -> None:
    folder = root / f"{step}-{int(signal.SIGINT)}"
    assert codes[folder.name] == 130
    assert (folder / "stderr").read_text() == "error: interrupted\n"
    assert sorted(path.name for path in folder.iterdir()) == ["out", "stderr"]
    assert (Bundle.open(folder / "out").path / "model.onnx").read_bytes() == b"old"


@pytest.mark.parametrize("step", KILLS)
def test_sigkill(root: Path, codes: dict[str, int], step: str) -> None:
    folder = root / f"{step}-{int(signal.SIGKILL)}"
    assert codes[folder.name] == -signal.SIGKILL
    assert (Bundle.open(folder / "out").path / "model.onnx").read_bytes() == b"old"
    left = [path.name for path in folder.iterdir() if path.name not in ("out", "stderr")]
    assert all(name.startswith(".out.tmp-") for name in left)
    with BundleWriter(folder / "out", force=True):
        pass
    assert sorted(path.name for path in folder.iterdir()) == ["out", "stderr"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(("kind", "name"), [("import", "torch"), ("open", "config.json"), ("step", "export")])
def test_signal_from_outside(
    tmp_path: Path, model: Path, number: int, code: int, kind: str, name: str
) -> None:
    """Whatever the process is doing then: importing, loading, exporting."""
    process = process_at(kind, name, "main_export", [str(model), "-o", str(tmp_path / "out")])
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert (out, err) == ("", "error: interrupted\n")
    assert list(tmp_path.iterdir()) == []


class _Starting(ExtensionFileLoader):
    """Stands for a C++ library at its start, where pybind11 takes an exception for the end of the process."""

    def __init__(self) -> None:
        super().__init__("starting", "starting.so")
        self.raised: list[BaseException] = []

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            until(lambda: False, seconds=0.1)
        except BaseException as error:
            self.raised.append(error)
        return ModuleType("started")


def test_a_signal_waits_until_a_library_has_started(capsys: pytest.CaptureFixture[str]) -> None:
    library = _Starting()

    def run() -> int:
        library.create_module(ModuleSpec("starting", library))
        until(lambda: False)
        return 0

    assert guarded(run) == TERMINATED
    assert library.raised == []
    assert capsys.readouterr().err == "error: interrupted\n"
