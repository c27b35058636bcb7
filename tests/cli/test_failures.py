"""What no user did wrong: a package that is missing, a bug, a full disk, a reader that goes away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.said import Capture, error_of
from tsmerge_export.cli import main_export


def test_missing_package(model: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any) -> None:
        raise ModuleNotFoundError("No module named 'chronos'", name="chronos")

    monkeypatch.setattr("tsmerge_export.cli.commands.merge_config", absent)
    assert "chronos is not installed; pip install 'tsmerge-export[export]'" in error_of(
        capsys, main_export([model]), 4
    )


def test_a_bug_is_one_line_and_its_traceback_is_kept(
    model: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("first\nsecond")

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tsmerge_export.cli.commands.merge_config", broken)
    message = error_of(capsys, main_export([model]), 1)
    assert "unexpected ZeroDivisionError: first second; this is a bug" in message
    (log,) = tmp_path.glob("tsmerge-bug-*.txt")
    assert str(log) in message
    assert "in broken" in log.read_text()
    monkeypatch.setenv("TSMERGE_DEBUG", "1")
    assert main_export([model]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("debug", ["", "1"])
def test_what_libraries_log_is_for_debugging(debug: str) -> None:
    """Without a handler Python writes it to stderr."""
    code = (
        "import logging; from tsmerge_export.cli.handler import guarded;"
        "guarded(lambda: logging.getLogger('onnx_ir').warning('chatter') or 0)"
    )
    environment = {**os.environ, "TSMERGE_DEBUG": debug}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (ran.returncode, "chatter" in ran.stderr) == (0, bool(debug))


def test_full_disk(model: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "out/model.onnx")

    monkeypatch.setattr("tsmerge_export.cli.commands.merge_config", full)
    assert "out/model.onnx: No space left on device" in error_of(capsys, main_export([model]), 2)


@pytest.mark.parametrize(
    ("command", "unbuffered"), [(["--help"], "1"), (["--version"], ""), (["families"], "")]
)
def test_reader_that_goes_away(model: str, command: list[str], unbuffered: str) -> None:
    """`tsmerge ... | true` ends with 0 and says nothing, be it while printing or at the end; so does the module."""
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [sys.executable, "-m", "tsmerge_export", *command],
        stdout=write,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": unbuffered},
        check=False,
    )
    os.close(write)
    assert (result.returncode, result.stderr) == (0, b"")
