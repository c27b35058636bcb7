"""Fixtures of the commands that search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.models import tiny_folder
from tests.tools.searches import table


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model ``tiny`` and a table ``series.csv``."""
    monkeypatch.chdir(tmp_path)
    tiny_folder(tmp_path / "tiny")
    np.savetxt("series.csv", table().values, delimiter=",", header="a,b", comments="")
    return tmp_path
