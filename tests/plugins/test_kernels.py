"""The CUDA kernels, run on the CPU by ``plugins/emulation``, against the reference and the naive oracle."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cases import Case, untouched
from tests.plugins import fuzz
from tests.plugins.emulated import Emulated, Problem, build, difference, removed
from tsmerge_export.merge import local_merge

CASES = 500


def test_equal_the_reference_on_random_problems(kernels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Indices exactly, values to one rounding; ``python -m tests.plugins.fuzz`` is the longer search."""
    found = fuzz.main(["--cases", str(CASES), "--seed", "1", "--program", str(kernels)])
    assert found == 0, capsys.readouterr().out


def test_sanitizers_find_nothing(cxx: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Buffers have their exact sizes; shared memory beyond the launch's size is poisoned."""
    program = build(tmp_path / "sanitized", flags=fuzz.SANITIZERS)
    assert fuzz.main(["--cases", "40", "--seed", "5000", "--program", str(program)]) == 0, (
        capsys.readouterr().out
    )


def test_thread_order_changes_no_bit(kernels: Path) -> None:
    """Several a's in one b, over tiles and splits: sums are in a fixed order, not that of the threads."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 500, 24)).astype(np.float32)
    attributes = dict.fromkeys(("ratio_num", "min_tokens", "protect_first", "protect_last"), 0)
    for k in (0, 40, 3):
        settings = {"k": k, "r": 240, "ratio_den": 1, **attributes}
        metric = np.repeat(rng.standard_normal((2, 20, 3)), 25, axis=1).astype(np.float32)
        with Emulated(kernels) as program:
            runs = [
                program.run(Problem(x, metric, np.ones((2, 500), np.float32), settings, seed=seed))
                for seed in range(3)
            ]
        expected = local_merge(torch.from_numpy(x), torch.from_numpy(metric), k=k or None, r=240)
        assert np.array_equal(runs[0].target, expected.target)
        assert np.bincount(runs[0].target[0]).max() > 2
        for run in runs[1:]:
            assert run.y.tobytes() == runs[0].y.tobytes()
            assert run.size.tobytes() == runs[0].size.tobytes()


@pytest.mark.parametrize("k", [1, 6, 0])
@pytest.mark.parametrize("tokens", [1, 2, 3, 12])
def test_nothing_to_merge_is_the_identity_in_two_launches(kernels: Path, k: int, tokens: int) -> None:
    x, size = untouched(tokens)
    settings = {"k": k, "r": 9, "ratio_num": 0, "ratio_den": 1, "min_tokens": 50}
    with Emulated(kernels) as program:
        result = program.run(Problem(x, x, size, {**settings, "protect_first": 0, "protect_last": 0}))
    assert result.launches == 2
    assert result.y.tobytes() == x.tobytes()
    assert result.size.tobytes() == size.tobytes()
    assert result.kept.tolist() == result.target.tolist() == [list(range(tokens))] * 2


def test_tokens_and_metric_may_differ_in_type(kernels: Path) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 30, 16)).astype(np.float16)
    metric = rng.standard_normal((1, 30, 8)).astype(np.float32)
    settings = {
        "k": 2,
        "r": 7,
        "ratio_num": 0,
        "ratio_den": 1,
        "min_tokens": 0,
        "protect_first": 1,
        "protect_last": 1,
    }
    with Emulated(kernels) as program:
        result = program.run(Problem(x, metric, np.ones((1, 30), np.float32), settings))
    expected = local_merge(
        torch.from_numpy(x), torch.from_numpy(metric), k=2, r=7, protect_first=1, protect_last=1
    )
    assert np.array_equal(result.kept, expected.kept)
    assert np.allclose(result.y, expected.y, atol=2e-3)


def test_no_rows_are_no_launches(kernels: Path) -> None:
    empty = np.zeros((0, 10, 4), np.float32)
    settings = {
        "k": 1,
        "r": 3,
        "ratio_num": 0,
        "ratio_den": 1,
        "min_tokens": 0,
        "protect_first": 0,
        "protect_last": 0,
    }
    with Emulated(kernels) as program:
        result = program.run(Problem(empty, empty, np.zeros((0, 10), np.float32), settings))
        assert result.launches == 0
        assert result.y.shape == (0, 7, 4)


def test_rows_longer_than_fit_on_chip(kernels: Path) -> None:
    """More than 8,192 a's: their keys stay in the workspace."""
    rng = np.random.default_rng(2)
    x = rng.integers(-3, 4, (1, 16_500, 2)).astype(np.float32)
    settings = {
        "k": 1,
        "r": 5000,
        "ratio_num": 0,
        "ratio_den": 1,
        "min_tokens": 0,
        "protect_first": 3,
        "protect_last": 0,
    }
    with Emulated(kernels) as program:
        result = program.run(Problem(x, x, np.ones((1, 16_500), np.float32), settings))
    expected = local_merge(torch.from_numpy(x), k=1, r=5000, protect_first=3)
    assert np.array_equal(result.kept, expected.kept)
    assert np.array_equal(result.y, expected.y)


def test_amounts_of_the_test_are_those_of_the_reference() -> None:
    """The oracle's r(N) sizes the program's buffers; a wrong one would hang or cut results."""
    for seed in range(50):
        case, problem = fuzz.draw(seed)
        assert isinstance(case, Case)
        assert case.tokens - removed(problem.attributes, case.tokens) == case.reference().kept.shape[1]


def test_a_wrong_value_is_seen(kernels: Path) -> None:
    """The comparison itself: one wrong index, or wrong low bits of one value, is a difference."""
    case, problem = fuzz.draw(7)
    with Emulated(kernels) as program:
        result = program.run(problem)
    assert difference(case, result) is None
    wrong = result.target.copy()
    wrong[0, 0] += 1
    assert difference(case, replace(result, target=wrong))
    wrong_y = result.y.copy()
    wrong_y.view(f"u{wrong_y.itemsize}")[0, -1, -1] ^= 4
    assert difference(case, replace(result, y=wrong_y))


@pytest.mark.parametrize("mutant", ["barrier 5 of select.cuh", "kernels: ties of b: highest j"])
def test_a_broken_kernel_is_found(cxx: str, mutant: str) -> None:
    """Two of the mutants of ``plugins/tools/mutate.py``; the script tries every barrier and every rule."""
    command = [sys.executable, "plugins/tools/mutate.py", "--only", mutant, "--cases", "300"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 mutants, 0 survived" in done.stdout
