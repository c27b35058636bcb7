"""Model folders for the tests of loading."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.models import tiny_folder


@pytest.fixture(scope="package")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("folders")
    return {name: tiny_folder(root / name, name) for name in ("chronos-bolt", "chronos-t5")}


@pytest.fixture
def bolt(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(folders["chronos-bolt"], tmp_path / "bolt"))
