"""``--providers`` and ``--plugin`` on every command that runs a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models import tiny_folder
from tsmerge_export.backends.onnxruntime.place import CPU, HERE, Place
from tsmerge_export.cli import main
from tsmerge_export.cli.parser import tsmerge_parser
from tsmerge_export.cli.target import target_of
from tsmerge_export.errors import UsageError

COMMANDS = {
    "export": ["tiny", "-o", "made"],
    "validate": ["made", "tiny"],
    "bench": ["tiny", "--batch", "1"],
    "tune": ["tiny", "--data", "series.csv"],
    "advise": ["tiny", "--data", "series.csv"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("place")
    tiny_folder(root / "tiny")
    values = np.random.default_rng(0).standard_normal((600, 2)).cumsum(0)
    np.savetxt(root / "series.csv", values, delimiter=",", header="a,b", comments="")
    (root / "text.so").write_text("no library")
    return root


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--providers", "nonsense"], 4, "provider nonsense is not in this ONNX Runtime"),
        (["--providers", "cpu,,"], 2, "'cpu,,' is not a list of providers"),
        (["--plugin", "nothing.so"], 2, "--plugin nothing.so: no such file"),
    ],
)
def test_what_is_not_there_is_said_at_once(
    command: str, flags: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, *COMMANDS[command], *flags]) == code
    out, err = capsys.readouterr()
    assert says in err and err.count("\n") == 1 and not out
    assert not Path("made").exists()


@pytest.mark.parametrize("command", ["export", "bench", "tune", "advise"])
def test_a_library_that_does_not_load_is_said_before_any_slow_step(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tsmerge_export.compile.checkpoint_source.load_model", None)
    assert main([command, *COMMANDS[command], "--plugin", "text.so"]) == 3
    assert "text.so: ONNX Runtime cannot load it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "called", "found"),
    [
        ("export", "api.export", lambda given: Place.of(given["providers"], given["plugin"])),
        ("validate", "api.validate", lambda given: Place.of(given["providers"], given["plugin"])),
        ("bench", "tools.bench.compare.bench", lambda given: given["place"]),
        ("tune", "tools.tune.contender.prepare", lambda given: given["checks"].place),
        ("advise", "tools.advise.study.study", lambda given: given["place"]),
    ],
)
def test_a_command_hands_the_place_on(
    command: str, called: str, found: Callable[[dict[str, Any]], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def instead(*values: Any, **named: Any) -> None:
        given.update({"checks": next((value for value in values if hasattr(value, "place")), None)}, **named)
        raise UsageError("seen")

    monkeypatch.setattr(f"tsmerge_export.{called}", instead)
    monkeypatch.setattr("tsmerge_export.bundle.read_manifest", lambda path: {})
    monkeypatch.setattr(Place, "try_out", lambda place: None)
    assert (
        main([command, *COMMANDS[command], "--providers", "CPUExecutionProvider", "--plugin", "text.so"]) == 2
    )
    assert found(given) == Place((CPU,), ((),), Path("text.so"))
    assert main([command, *COMMANDS[command]]) == 2
    assert found(given) == HERE


def test_the_library_goes_with_the_runtime() -> None:
    """One flag of export: of native operators, or with TensorRT its plugin."""
    flags = ["export", "tiny", "--plugin", "text.so"]
    for more, want in (([], None), (["--runtime", "tensorrt"], Path("text.so"))):
        assert target_of(tsmerge_parser().parse_args([*flags, *more])).plugin == want
