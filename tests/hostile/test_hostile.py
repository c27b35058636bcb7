"""A fixed part of the attack list in seconds; ``python -m tests.hostile.fuzz`` runs all of it, and mutations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.hostile.attacks import VALID, attacks
from tests.hostile.cases import outcome
from tests.hostile.fuzz import main
from tsmerge_export import api
from tsmerge_export.checkpoint.onnx_file import read_onnx
from tsmerge_export.checkpoint.onnx_risk import risk
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.inspect import inspect_path
from tsmerge_export.runtimes.onnxruntime import GraphSession

GROUPS = (
    "attribute",
    "external",
    "file",
    "functions",
    "if",
    "input",
    "names",
    "node",
    "output",
    "value",
    "weight",
)


@pytest.mark.parametrize("group", GROUPS)
def test_files_are_read_or_refused(group: str, tmp_path: Path) -> None:
    """Before any runtime sees them; what is right is read."""
    for name, write in attacks().items():
        if name.partition("-")[0] == group:
            folder = tmp_path / name.replace("/", " ").replace("\0", " ")[:60]
            folder.mkdir()
            write(folder / "m.onnx")
            found = outcome(lambda file=folder / "m.onnx": read_onnx(file))
            assert found in ("ok", "usage", "unsupported"), (name, found)
            assert found == "ok" or name not in VALID, name


def of(name: str, folder: Path) -> onnx.ModelProto:
    attacks()[name](folder / "m.onnx")
    return onnx.load(folder / "m.onnx")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("valid", None),
        ("if-nested-5", None),
        ("functions-chain-50", None),
        ("loop-endless", "operator Loop"),
        ("loop-huge-count", "operator Loop"),
        ("integer-Div-by-zero", "may be by zero"),
        ("integer-Mod-by-hidden-zero", "may be by zero"),
        ("integer-Div-overflow", "may be by zero"),
        ("memory-expand-1099511627776", "Expand of a large size"),
        ("memory-range-1099511627776", "Range of a large size"),
        ("conv-strides-0", "Conv with unusual attributes"),
        ("pool-strides-0", "operator MaxPool"),
        ("memory-doubling", "beside itself"),
        ("ours-forged", None),
    ],
)
def test_what_is_not_known_to_be_harmless(name: str, why: str | None, tmp_path: Path) -> None:
    found = risk(of(name, tmp_path))
    assert (found is None) if why is None else (found is not None and why in found)


def test_endless_loops_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own where a file is looked at, by a flag of the runtime where a session runs it."""
    file = tmp_path / "m.onnx"
    attacks()["loop-endless"](file)
    monkeypatch.setenv("TSMERGE_MAX_SECONDS", "2")
    session = GraphSession(file, threads=1)
    with pytest.raises(Exception, match="terminate"):
        session.run({"x": np.ones((1, 2, 8), np.float32)})
    with pytest.raises(UnsupportedError, match=r"no answer in 2 s|terminate"):
        inspect_path(file)


def test_crashes_stay_outside(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whole numbers divided by zero end the process that divides them."""
    file = tmp_path / "m.onnx"
    attacks()["integer-Div-by-hidden-zero"](file)
    with pytest.raises(UnsupportedError, match=r"m\.onnx.*(ended with signal 8|zero)"):
        inspect_path(file)
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["integer-Div-by-hidden-zero", "loop-endless", "memory-doubling"])
def test_no_export_of_what_harms(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSMERGE_MAX_SECONDS", "30")
    file = tmp_path / "m.onnx"
    attacks()[name](file)
    with pytest.raises(UnsupportedError, match=r"m\.onnx"):
        api.export(file, output=tmp_path / "out", threads=1)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.slow
def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--mutations", "40", "--seed", "7", "--no-attacks"]) == 0
    assert "40 cases, 0 unexpected" in capsys.readouterr().out
