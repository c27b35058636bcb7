"""A model for commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.models import tiny_folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in a folder of its own."""
    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def model(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model ``tiny`` in the current folder, which a test may damage."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved, "tiny")
    return "tiny"
