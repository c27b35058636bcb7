"""What a command says of a mistake, and a bundle to make one with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tsmerge_export.bundle import BundleWriter
from tsmerge_export.bundle.manifest import ComponentEntry, Described

Capture = pytest.CaptureFixture[str]


def error_of(capture: Capture, code: int, expected: int) -> str:
    """The one line that a command said on stderr, which ended with the expected code."""
    out, err = capture.readouterr()
    assert code == expected, err
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def bundle(path: Path, family: str = "chronos-bolt") -> None:
    """A bundle whose only file is nonsense."""
    with BundleWriter(path) as writer:
        (writer.path / "model.onnx").write_bytes(b"nonsense")
        component = ComponentEntry("model", "model.onnx", (), ())
        writer.commit(Described(family=family, merge={"method": "local"}, components=(component,)))
