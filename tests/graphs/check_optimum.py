"""Files that optimum itself wrote. Not collected by itself: `make test-optimum` writes them and names this file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.graphs.bundles import bundle_of


@pytest.mark.parametrize(
    ("name", "barriers"), [("bert", []), ("llama", []), ("vit", ["Gather"]), ("wav2vec2", [])]
)
def test_file_of_optimum(name: str, barriers: list[str], tmp_path: Path) -> None:
    file = tmp_path / f"{name}.onnx"
    shutil.copy(Path(os.environ["TSMERGE_OPTIMUM_FILES"]) / f"{name}.onnx", file)
    found = bundle_of(file).manifest
    part, parity = found["components"][0], found["verdicts"]["parity"]
    assert len(part["merges"]) == 3
    assert [barrier["op_type"] for barrier in part["barriers"]] == barriers
    assert parity["passed"] and parity["cases"] >= 8 and parity["max_rel"] < 2e-5
    assert parity["rows"] > 2 * parity["decision_flips"]
