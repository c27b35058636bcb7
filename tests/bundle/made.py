"""A small bundle, written as an export writes one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tsmerge_export.bundle import Bundle, BundleWriter
from tsmerge_export.bundle.manifest import Described, described_of
from tsmerge_export.errors import UsageError

COMPONENT = {
    "name": "model",
    "file": "model.onnx",
    "inputs": [{"name": "context", "dtype": "float32", "dims": ["batch", "length"]}],
    "outputs": [{"name": "quantiles", "dtype": "float32", "dims": ["batch", 3, 16]}],
    "merges": [{"layer": 0}],
    "barriers": [],
}
DESCRIBED = described_of(Described, {"family": "chronos-bolt", "components": [COMPONENT]}, "made")


def write(output: Path, content: bytes = b"graph", force: bool = False) -> Bundle:
    with BundleWriter(output, force) as writer:
        (writer.path / "model.onnx").write_bytes(content)
        (writer.path / "sub").mkdir()
        (writer.path / "sub" / "notes.txt").write_text("notes")
        (writer.scratch / "waste").write_text("not part of it")
        return writer.commit(DESCRIBED)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fails(match: str, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
