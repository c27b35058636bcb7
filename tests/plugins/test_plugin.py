"""The TensorRT side of the plugin: its contract, its build for all architectures, and TensorRT-RTX's registry."""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.emulated import KERNELS
from tsmerge_export.ops import schema

#: Attributes that the plugin does not know: the back end refuses what they would change.
WITHOUT = ("similarity", "causal", "run_time")

ARCHITECTURES = ("80", "86", "89", "90", "100", "120")


def test_contract(contract: Path) -> None:
    """Types, shapes, fields, serialise -> create -> attach -> enqueue, by a C++ program with a fake IExprBuilder."""
    done = subprocess.run([contract], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "contract: ok" in done.stdout


def test_fields_are_the_attributes_of_the_operator() -> None:
    """Names and ranges in fields.h against the schema of tsmerge::LocalMerge."""
    source = (KERNELS / "fields.h").read_text()
    numbers = {
        name: int(value)
        for name, value in re.findall(r"constexpr int64_t (kMost|kRatioMost) = (\d+);", source)
    }
    found = {
        name: (int(least), numbers[most])
        for name, least, most in re.findall(r'\{"(\w+)", (\d+), (\w+), &Settings', source)
    }
    assert found == {
        a.name: (a.least, a.most) for a in schema("LocalMerge").attributes if a.name not in WITHOUT
    }


def check_machine_code(libraries: Path, architectures: tuple[str, ...]) -> None:
    """nvcc makes code for each architecture that spills nothing, and PTX of the last for those to come."""
    text = (libraries / "ptxas.txt").read_text()
    for architecture in architectures:
        kernels = re.findall(rf"Compiling entry function '(\S+)' for 'sm_{architecture}'", text)
        assert len(kernels) == 26
    assert set(re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", text)) == {("0", "0")}
    made = {code for group in re.findall(r",code=\[?([\w,]+)", text) for code in group.split(",")}
    assert made == {f"sm_{architecture}" for architecture in architectures} | {"compute_120"}


def test_machine_code_of_the_newest(libraries: Path) -> None:
    check_machine_code(libraries, ARCHITECTURES[-1:])


@pytest.mark.slow
def test_machine_code_of_all(all_libraries: Path) -> None:
    check_machine_code(all_libraries, ARCHITECTURES)


def test_libraries_need_no_cuda_runtime_and_export_little(libraries: Path) -> None:
    dynamic = {
        name: subprocess.run(["objdump", "-p", libraries / name], capture_output=True, text=True).stdout
        for name in ("libtsmerge_trt.so", "libtsmerge_trt_registered.so")
    }
    assert "libcudart" not in "".join(dynamic.values())
    assert "libnvinfer" not in dynamic["libtsmerge_trt.so"]
    assert "libnvinfer.so.10" in dynamic["libtsmerge_trt_registered.so"]
    library = ctypes.CDLL(str(libraries / "libtsmerge_trt.so"))
    assert library.tsmergeTensorRTMajor() == 10
    symbols = subprocess.run(
        ["nm", "-D", "--defined-only", libraries / "libtsmerge_trt.so"], capture_output=True, text=True
    )
    ours = {line.split()[-1] for line in symbols.stdout.splitlines()}
    assert {"getCreators", "setLoggerFinder", "tsmergeTensorRTMajor"} <= ours
    assert not [name for name in ours if "tsmerge" in name and name.startswith("_Z") and "WV" not in name]


_REGISTRY = """
import json, sys
import numpy as np
import tensorrt_rtx as trt
logger = trt.Logger(trt.Logger.ERROR)
registry = trt.get_plugin_registry()
handle = registry.load_library(sys.argv[1])
assert handle is not None, "the library is not loaded"
creator = registry.get_creator("LocalMerge", "1", "")
assert creator is not None, "no creator"
found = {"names": [field.name for field in creator.field_names], "made": []}
for fields in json.loads(sys.argv[2]):
    collection = trt.PluginFieldCollection([
        trt.PluginField(name, np.array([value], np.int32), trt.PluginFieldType.INT32) for name, value in fields.items()
    ])
    try:
        plugin = creator.create_plugin("layer", collection, trt.TensorRTPhase.BUILD)
    except Exception:
        plugin = None
    found["made"].append(plugin is not None)
print(json.dumps(found))
"""


def _registry(library: Path, fields: list[dict[str, int]]) -> dict[str, Any]:
    """What TensorRT-RTX's registry finds, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _REGISTRY, str(library), json.dumps(fields)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_tensorrt_rtx_loads_the_library_and_creates_the_plugin(libraries: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="no TensorRT-RTX (pip install tensorrt-rtx-cu13)")
    good: list[dict[str, int]] = [
        {},
        {"k": 0, "r": 64},
        {"ratio_num": 1, "ratio_den": 4, "min_tokens": 4},
        {"index_bits": 32},
    ]
    bad = [
        {"k": -1},
        {"ratio_den": 0},
        {"ratio_num": 2, "ratio_den": 3},
        {"r": 1, "ratio_num": 1, "ratio_den": 4},
        {"index_bits": 8},
    ]
    found = _registry(libraries / "libtsmerge_trt.so", [*good, *bad])
    assert found["names"] == [
        *(a.name for a in schema("LocalMerge").attributes if a.name not in WITHOUT),
        "index_bits",
    ]
    assert found["made"] == [True] * len(good) + [False] * len(bad)
