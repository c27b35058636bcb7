"""The recipes run as a user runs them, on tiny models."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from tests.graphs.models import export as export_graph
from tests.models import tiny_folder
from tests.quick import quick_verdicts

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"


def start(recipe: str, arguments: list[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process that runs the recipe."""
    command = [sys.executable, str(RECIPES / f"{recipe}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    return done.returncode, done.stdout, done.stderr


def run(recipe: str, arguments: list[str]) -> tuple[int, str, str]:
    """The same in this process: the script as ``__main__``, with the path and arguments that it would get."""
    out, err, code = StringIO(), StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", [f"{recipe}.py", *arguments])
        patch.syspath_prepend(str(RECIPES))
        quick_verdicts(patch)
        try:
            runpy.run_path(str(RECIPES / f"{recipe}.py"), run_name="__main__")
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize(
    ("recipe", "family", "says"),
    [
        ("chronos_bolt", "chronos-bolt", "[1, 3, 16]"),
        ("chronos_t5", "chronos-t5", "median of the next 8 steps: ["),
        pytest.param("chronos2", "chronos-2", "[1, 3, 3, 2, 8]", marks=pytest.mark.slow),
        pytest.param("timesfm2_5", "timesfm-2.5", "[1, 16, 4]", marks=pytest.mark.slow),
        pytest.param("timesfm", "timesfm", "[1, 16, 4]", marks=pytest.mark.slow),
        ("patchtst", "patchtst", "model.onnx on two series: {'prediction_outputs': [2, 6, 3]}"),
        pytest.param(
            "informer", "informer", "encoder.onnx with merged states for the decoder", marks=pytest.mark.slow
        ),
    ],
)
def test_recipe(recipe: str, family: str, says: str, tmp_path: Path) -> None:
    """Here, without five seconds of imports each; one is started once more as users do, in a process of its own."""
    command = [str(tiny_folder(tmp_path / "model", family)), "-o", str(tmp_path / "bundle")]
    code, out, err = run(recipe, command)
    assert code == 0, err
    assert "passed" in out
    assert says in out
    assert (tmp_path / "bundle" / "manifest.json").is_file()
    code, _, err = (start if recipe == "chronos_bolt" else run)(recipe, command)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_mamba_forecaster(tmp_path: Path) -> None:
    rows = np.sin(np.arange(400)[:, None] / (4, 7)).round(3)
    np.savetxt(tmp_path / "series.csv", rows, delimiter=",", header="a,b", comments="", fmt="%g")
    sizes = ["--minutes", "0.01", "--context", "96", "--horizon", "8", "--layers", "2"]
    flags = ["--data", "series.csv", *sizes, "-o", "out/mamba"]
    command = [sys.executable, str(ROOT / "recipes" / "mamba_forecaster.py"), "--backbone", "mamba", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mamba: ssm ratio=1/8 prune-share=1/2 residual-prune-share=0" in done.stdout
    assert "passed" in done.stdout
    assert (tmp_path / "out" / "mamba.pt").is_file()
    for more, says in (([], "out/mamba exists"), (["--force", "--context", "999"], "a window needs 1007")):
        again = subprocess.run(
            [*command, *more], capture_output=True, text=True, timeout=600, check=False, cwd=tmp_path
        )
        assert again.returncode == 2
        assert says in again.stderr
        assert "Traceback" not in again.stderr


@pytest.mark.slow
def test_a_recipe_trains_a_small_model(tmp_path: Path) -> None:
    """Of PatchTSMixer, which trains and exports fastest; the others differ in their config and loss alone."""
    command = [
        sys.executable,
        str(ROOT / "recipes" / "patchtsmixer.py"),
        "--steps",
        "30",
        "-o",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    first, last = re.findall(
        r"trained 30 steps in .*: loss ([\d.]+) in the first tenth, ([\d.]+) in", done.stdout
    )[0]
    assert float(last) < float(first)
    assert "passed" in done.stdout
    assert (tmp_path / "out-model" / "model.safetensors").is_file()


def test_recipe_of_an_onnx_file(tmp_path: Path) -> None:
    export_graph("plain", tmp_path / "plain.onnx", old=True)
    code, out, err = run("onnx_file", [str(tmp_path / "plain.onnx"), "-o", str(tmp_path / "bundle")])
    assert code == 0, err
    assert "passed" in out and "inputs: x; merges: " in out
