"""A training that was killed goes on to the very weights of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import tsmerge_export as tsm
from tests.models import tiny
from tests.tools.distill.subjects import HALF, QUICK, SETTINGS, table
from tsmerge_export.console.progress import NoProgress
from tsmerge_export.errors import UsageError
from tsmerge_export.tools.distill import train

ROOT = Path(__file__).parents[3]
# Trains, keeps its state after every step, says where it is after some, and waits there to be killed.
_CHILD = """
import signal, sys
sys.path.insert(0, {root!r})
import tsmerge_export as tsm
from tests.models import tiny
from tests.tools.distill.subjects import HALF, SETTINGS, table
from tsmerge_export.tools.distill import train

train._STATE_SECONDS = 0.0
part, stop = {part!r}, {stop}
step = train.Training._step

def waiting(self):
    if self.task.name == part and self.standing.step == stop:
        print("here", flush=True)
        signal.pause()
    step(self)

train.Training._step = waiting
tsm.distill(tiny("chronos-bolt", seed=0), HALF, data=table(), state={state!r}, **SETTINGS)
"""


def killed(state: Path, part: str, stop: int) -> None:
    """A run that SIGKILL ends before the step after ``stop`` steps."""
    code = _CHILD.format(root=str(ROOT), part=part, stop=stop, state=str(state))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    if process.stdout.readline() != "here\n":
        raise AssertionError(process.communicate()[1])
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def distilled(state: Path, **changes: Any) -> Any:
    settings = {**SETTINGS, **changes}
    return tsm.distill(tiny("chronos-bolt", seed=0), HALF, data=table(), state=state, resume=True, **settings)


def same(one: Any, other: Any) -> None:
    theirs = other.model.state_dict()
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, theirs[name]), name
    for mine, its in ((one.history, other.history), (one.control, other.control)):
        assert mine.losses == its.losses
        assert [point["increase"] for point in mine.curve] == [point["increase"] for point in its.curve]
    assert [score.to_dict() for score in one.scores] == [score.to_dict() for score in other.scores]


def test_killed_and_resumed_is_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole = distilled(tmp_path / "whole")
    assert whole.history.steps == 4 and whole.history.best_step > 0
    state = tmp_path / "state"
    killed(state, "train", 3)
    assert json.loads(_standing(state / "train.safetensors"))["step"] == 3
    assert not (state / "control.safetensors").exists()
    same(distilled(state), whole)


def _standing(path: Path) -> str:
    with safe_open(path, framework="pt") as file:
        return str(file.metadata()["standing"])


def test_a_state_is_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is interrupted while it writes, the state before is there, and goes on to the same weights."""
    monkeypatch.setattr(train, "_STATE_SECONDS", 0.0)
    whole = distilled(tmp_path / "whole", control=False)
    written, save = 0, train.StateFile.save

    def breaking(self: Any, *arguments: Any) -> None:
        nonlocal written
        written += 1
        if written == 4:
            self.path.with_name("half").write_bytes(b"")
            raise KeyboardInterrupt
        save(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train.StateFile, "save", breaking)
        with pytest.raises(KeyboardInterrupt):
            distilled(tmp_path / "cut", control=False)
    found = distilled(tmp_path / "cut", control=False)
    theirs = whole.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in found.model.state_dict().items())


def test_an_interrupt_between_two_steps_keeps_all_of_them(tmp_path: Path) -> None:
    class Impatient(NoProgress):
        def update(self, done: int, total: int) -> None:
            if done == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distilled(tmp_path, control=False, progress=Impatient())
    assert json.loads(_standing(tmp_path / "train.safetensors"))["step"] == 3


def test_another_training_s_state_is_refused(tmp_path: Path) -> None:
    distilled(tmp_path, control=False, steps=1)
    for change, named in (({"seed": 5}, "seed"), ({"lr": 1e-4}, "lr"), ({"steps": 2}, "steps")):
        with pytest.raises(
            UsageError, match=rf"--resume: .*train.safetensors was made with another {named};"
        ):
            distilled(tmp_path, control=False, **{"steps": 1, **change})
    with pytest.raises(UsageError, match="made with another data;"):
        tsm.distill(
            tiny("chronos-bolt", seed=0), HALF, data=table(1300), state=tmp_path, resume=True,
            **{**SETTINGS, "steps": 1},
        )  # fmt: skip
    with pytest.raises(UsageError, match="made with another model;"):
        tsm.distill(
            tiny("chronos-bolt", seed=9), HALF, data=table(), state=tmp_path, resume=True,
            **{**SETTINGS, "steps": 1},
        )  # fmt: skip
    file = tmp_path / "train.safetensors"
    with safe_open(file, framework="pt") as opened:
        kept = opened.metadata()
    tensors = load_file(file)
    wrong = {**json.loads(kept["standing"]), "step": "two"}
    save_file(tensors, file, {**kept, "standing": json.dumps(wrong)})
    with pytest.raises(UsageError, match=r"standing.step is 'two', expected a whole number; start again"):
        distilled(tmp_path, control=False, steps=1)
    name = next(name for name in tensors if name.startswith("now/"))
    save_file({**tensors, name: torch.zeros(3)}, file, kept)
    with pytest.raises(UsageError, match=r"train.safetensors does not fit the model; start again"):
        distilled(tmp_path, control=False, steps=1)
    file.write_bytes(b"not a state")
    with pytest.raises(
        UsageError, match=r"train.safetensors cannot be read .*; start again without --resume"
    ):
        distilled(tmp_path, control=False, steps=1)


def test_a_budget_s_steps_are_part_of_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring leaves no trace, and a run that goes on does not measure again."""
    settings = {**QUICK, "steps": None, "budget": "6s", "validations": 1, "patience": None, "state": tmp_path}
    monkeypatch.setattr(train, "_STATE_SECONDS", 0.0)
    step = train.Training._step

    def interrupted(self: Any) -> None:
        if self.standing.steps < 1_000_000 and self.standing.step == 1:
            raise KeyboardInterrupt
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(train.Training, "_step", interrupted)
        patch.setattr(train.Training, "_measured", lambda self, budget: _measured(self, budget, 5))
        with pytest.raises(KeyboardInterrupt):
            tsm.distill(tiny("chronos-bolt", seed=0), HALF, data=table(columns=1), **settings)
    monkeypatch.setattr(train.Training, "_measured", lambda self, budget: 1 / 0)
    resumed = tsm.distill(tiny("chronos-bolt", seed=0), HALF, data=table(columns=1), resume=True, **settings)
    steps = resumed.history.steps
    assert steps > 1
    by_steps = {**QUICK, "steps": steps, "validations": 1, "patience": None}
    whole = tsm.distill(tiny("chronos-bolt", seed=0), HALF, data=table(columns=1), **by_steps)
    theirs = whole.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in resumed.model.state_dict().items())


_MEASURE = train.Training._measured


def _measured(training: train.Training, budget: float, most: int) -> float:
    """What was measured, but so slow that there are few steps on a fast machine."""
    return max(_MEASURE(training, budget), budget / most)
