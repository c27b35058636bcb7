"""The script that takes all of this to a card, without one: stages, their limits, what becomes of them."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_session", ROOT / "benchmarks" / "gpu_session.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_session", module)
    spec.loader.exec_module(module)
    return module


def test_a_stage_that_fails_or_hangs_does_not_end_the_others(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = {
        "fails": "print('words'); raise SystemExit(3)",
        "hangs": "import time; time.sleep(60)",
        "runs": "",
    }
    made = [
        script.Stage(name, 1 + 20 * (name != "hangs"), [sys.executable, "-c", code])
        for name, code in codes.items()
    ]
    monkeypatch.setattr(script, "stages", lambda _: made)
    monkeypatch.setattr(sys, "argv", ["gpu_session.py", str(tmp_path), "--plugin", "x.so"])
    assert script.main() == 1
    out = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split(",")[0] for line in out] == [
        "fails: failed with 3", "hangs: ended after 1 s", "runs: passed",
    ]  # fmt: skip
    assert (tmp_path / "logs" / "fails.txt").read_text() == "words\n"


@pytest.mark.parametrize("dry", [False, True])
def test_what_the_stages_run_is_there(script: ModuleType, tmp_path: Path, dry: bool) -> None:
    given = {
        "folder": tmp_path,
        "plugin": Path("x.so"),
        "program": Path("p"),
        "stages": None,
        "sizes": "a:1:1",
    }
    found = {stage.name: stage for stage in script.stages(argparse.Namespace(dry_run=dry, **given))}
    checked = () if dry else ("memcheck",)
    assert set(found) == {"kernels", "operators", "graphs", "families", "bench", *checked}
    for stage in found.values():
        named = [part for part in stage.command if part.endswith(".py")]
        assert all((ROOT / part).is_file() for part in named)
        assert named or "tests.plugins.fuzz" in stage.command
    assert ("TSMERGE_GPU_PROVIDER" in found["operators"].environment) == dry
    given["stages"] = "bench,operators"
    some = script.stages(argparse.Namespace(dry_run=dry, **given))
    assert {stage.name for stage in some} == {"bench", "operators"}
    names = (ROOT / "tests" / "gpu" / "test_operators.py").read_text()
    assert names.count("_family_") == 1  # what tells the stages operators and families apart
