"""The command that brings a module that is not there."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from tsmerge_export.console.missing import how_to_install

REQUIRES = [
    "numpy>=1.26",
    "matplotlib>=3.8; extra == 'dev'",
    "ruff>=0.9; extra == 'dev'",
    "pandas>=2.0; extra == 'dev'",
    "matplotlib>=3.8; extra == 'forecast'",
    "pandas>=2.0; extra == 'forecast'",
    'matplotlib>=3.8; extra == "plot"',
    "chronos-forecasting>=2.3 ; extra == 'export'",
    "onnx-ir>=0.2 ; extra == 'export'",
    "tensorrt-rtx-cu13>=1.7; extra == 'tensorrt-rtx'",
]


@pytest.mark.parametrize(
    ("module", "what"),
    [
        ("chronos.chronos_bolt", "'tsmerge-export[export]'"),
        ("onnx_ir", "'tsmerge-export[export]'"),
        ("matplotlib", "'tsmerge-export[plot]'"),
        ("pandas", "'tsmerge-export[forecast]'"),
        ("tensorrt_rtx", "'tsmerge-export[tensorrt-rtx]'"),
        ("numpy", "numpy"),
        ("some_family.layers", "some-family"),
    ],
)
def test_the_smallest_extra_that_asks_for_it(module: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.requires", lambda _: REQUIRES)
    assert how_to_install(module) == f"{module.partition('.')[0]} is not installed; pip install {what}"


def test_from_a_source_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(_: str) -> list[str]:
        raise PackageNotFoundError

    monkeypatch.setattr("importlib.metadata.requires", requires)
    assert how_to_install("torch") == "torch is not installed; pip install torch"


def test_what_runs_a_bundle_needs_neither_torch_nor_onnx() -> None:
    """In a process where they cannot be imported: sessions and forecasters open; an export says what to install."""
    code = """
import sys
for name in ("torch", "transformers", "chronos", "onnx", "onnx_ir", "onnxscript", "pandas", "safetensors"):
    sys.modules[name] = None
import tsmerge_export as tsm
from tsmerge_export.errors import MissingDependencyError
assert tsm.__version__
tsm.load, tsm.pipeline, tsm.Bundle, tsm.MergeConfig
for name in ("export", "merge", "load_model"):
    try:
        getattr(tsm, name)
    except MissingDependencyError as error:
        print(error)
"""
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert [line.partition(":")[0] for line in found.stdout.splitlines()] == [
        "tsmerge_export.export",
        "tsmerge_export.merge",
    ]
    assert "is not installed; pip install" in found.stdout
