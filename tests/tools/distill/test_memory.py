"""Batches that memory allows, and what happens where it runs out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tsmerge_export as tsm
from tests.models import tiny
from tests.tools.distill.subjects import HALF, QUICK, table
from tsmerge_export import families
from tsmerge_export.errors import UsageError
from tsmerge_export.families import chronos_bolt
from tsmerge_export.tools.distill import memory

CPU = torch.device("cpu")


def kept(model: Any, batch: int) -> int:
    family, core = families.for_model(model)
    objective = family.objective(core)
    assert objective is not None
    walks = np.random.default_rng(0).normal(size=(batch, 128 + objective.horizon)).astype(np.float32)
    made = objective.batch(core, walks[:, :128], walks[:, 128:])
    return memory.bytes_kept(objective, core, HALF, made)


def test_what_a_step_keeps_grows_with_its_windows() -> None:
    model = tiny("chronos-bolt", seed=0)
    few, many = kept(model, 8), kept(model, 32)
    assert 3 < many / few < 4.5
    # 16 patches of 16 features in two layers, and much besides; the weights are not counted.
    assert 8 * 16 * 16 * 4 * 2 < few < 8 * 2**20


@pytest.mark.parametrize(("free", "batch"), [(2**40, 64), (4 * 40 * 2**20, 32), (1, 1)])
def test_a_batch_is_what_there_is_room_for(free: int, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    assert memory.batch_for(2**20, CPU, 64) == batch


def test_there_is_more_room_on_a_gpu_than_a_family_wants_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**40)
    assert memory.batch_for(2**20, torch.device("cuda"), 16) == 256


@pytest.mark.parametrize(("name", "windows"), [("chronos-bolt", 64), ("chronos-t5", 16)])
def test_auto_takes_as_many_as_the_family_learns_best_from(
    name: str, windows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**40)
    settings = {**QUICK, "batch": "auto", "steps": 1, "validations": 1}
    found = tsm.distill(tiny(name, seed=0), HALF, data=table(columns=1), **settings)
    assert found.history.batch == windows


def test_auto_looks_at_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def batch_for(bytes_per_window: float, device: torch.device, most: int) -> int:
        seen.append(bytes_per_window)
        return 2

    monkeypatch.setattr(memory, "batch_for", batch_for)
    settings = {**QUICK, "batch": "auto", "steps": 1, "validations": 1}
    found = tsm.distill(tiny("chronos-bolt", seed=0), HALF, data=table(columns=1), **settings)
    assert found.history.batch == 2
    assert 16 * 16 * 4 < seen[0] < 2**22
    assert memory.free_bytes(CPU) > 2**20


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_out_of_memory_halves_the_batch_and_says_so(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 4
    eager = chronos_bolt._Model.eager

    def bounded(self: Any, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if torch.is_grad_enabled() and len(inputs["context"]) > most:
            raise error
        return eager(self, model, inputs)

    monkeypatch.setattr(chronos_bolt._Model, "eager", bounded)
    settings = {**QUICK, "batch": 32, "steps": 6, "validations": 1}
    found = tsm.distill(tiny("chronos-bolt", seed=0), HALF, data=table(columns=1), **settings)
    # Steps of the longest context have half as many windows.
    assert found.history.batch == 4 and found.history.steps == 6
    assert [note for note in found.notes if "memory" in note] == ["out of memory: the batch was halved to 4"]
    most = 0
    with pytest.raises(UsageError, match="out of memory with one window per step; use a shorter --context"):
        tsm.distill(tiny("chronos-bolt", seed=0), HALF, data=table(columns=1), **settings)


def test_no_memory_to_score_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def bounded(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(chronos_bolt._Model, "eager", bounded)
    with pytest.raises(UsageError, match="out of memory while scoring; use a shorter --context"):
        tsm.distill(tiny("chronos-bolt", seed=0), HALF, data=table(columns=1), **{**QUICK, "steps": 1})


def test_another_error_is_none_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(chronos_bolt._Model, "eager", broken)
    with pytest.raises(RuntimeError, match="something else"):
        tsm.distill(tiny("chronos-bolt", seed=0), HALF, data=table(columns=1), **{**QUICK, "steps": 1})
