"""What the tests of the plugin need: compilers, headers of TensorRT, and programs built once a session."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.plugins import native, wheels
from tests.plugins.emulated import COMMON, EMULATION, KERNELS, build, compiler
from tsmerge_export.backends.onnxruntime.native import CPU_LIBRARY, CUDA_LIBRARY

Importable = Callable[[Path], None]


def find_nvcc() -> str | None:
    """nvcc of the path, else that of NVIDIA's wheels."""
    found = shutil.which("nvcc")
    if found is None:
        spec = importlib.util.find_spec("nvidia")
        folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
        found = next((str(file) for folder in folders for file in folder.glob("cu*/bin/nvcc")), None)
    return found


@pytest.fixture(scope="session")
def cxx() -> str:
    """The C++ compiler."""
    found = compiler()
    if found is None:
        pytest.skip("no C++ compiler (apt install g++)")
    return found


@pytest.fixture(scope="session")
def kernels(cxx: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of the emulated kernels."""
    return build(tmp_path_factory.mktemp("kernels") / "emulated")


@pytest.fixture(scope="session")
def headers() -> Path:
    """Folder with the headers of TensorRT: ``TensorRT_ROOT``, else those that a wheel of tests carries."""
    given = os.environ.get("TensorRT_ROOT")  # noqa: SIM112 (the name that CMake reads)
    if given:
        for folder in (Path(given, "include"), Path(given)):
            if (folder / "NvInferRuntime.h").is_file():
                return folder
    spec = importlib.util.find_spec("kernel_lens")
    folder = Path(spec.origin).parent / "include" / "tensorrt" if spec and spec.origin else None
    if folder is None or not (folder / "NvInferRuntime.h").is_file():
        pytest.skip("no headers of TensorRT (pip install kernel-lens, or set TensorRT_ROOT)")
    return folder


@pytest.fixture(scope="session")
def contract(cxx: str, headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contract test, with address and undefined-behaviour sanitizers."""
    target = tmp_path_factory.mktemp("contract") / "contract_test"
    sources = [
        KERNELS / name
        for name in ("contract_test.cpp", "plugin.cpp", "creator.cpp", "exports.cpp", "local_merge.cu")
    ]
    command = [cxx, "-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    command += [
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-I",
        str(EMULATION),
        "-I",
        str(KERNELS),
        "-I",
        str(COMMON),
    ]
    command += ["-isystem", str(headers), "-x", "c++", *map(str, sources), str(EMULATION / "emulation.cpp")]
    subprocess.run([*command, "-o", str(target)], check=True, capture_output=True, text=True)
    return target


@pytest.fixture(scope="session")
def ort_headers(cxx: str) -> Path:
    """Headers of ONNX Runtime, where there are also a compiler and CMake."""
    if native.cmake() is None:
        pytest.skip("no cmake (pip install cmake)")
    if importlib.util.find_spec("scikit_build_core") is None:
        pytest.skip("no scikit-build-core (pip install scikit-build-core)")
    found = native.headers()
    if found is None:
        pytest.skip(
            "no headers of ONNX Runtime (python plugins/tools/onnxruntime_headers.py build/onnxruntime, or set "
            "ONNXRUNTIME_ROOT)"
        )
    return found


@pytest.fixture(scope="session")
def wheel(ort_headers: Path) -> wheels.Installed:
    """The wheel of native operators, of the source tree."""
    return wheels.once("cpu", "tsmerge-ort", {"ONNXRUNTIME_ROOT": ort_headers, "CMAKE_CXX_FLAGS": "-Werror"})


@pytest.fixture(scope="session")
def operators(wheel: wheels.Installed) -> Path:
    """The library of native operators."""
    return wheel.operators


@pytest.fixture(scope="session")
def emulated_wheel(ort_headers: Path) -> wheels.Installed:
    """The wheel for the CUDA provider, of its sdist; its library is for the CPU's, kernels emulated."""
    # What is emulated is tried on small problems: most of the time would go into the compiler.
    defines = {"CMAKE_BUILD_TYPE": "None", "CMAKE_CXX_FLAGS": "-Werror -O1", "TSMERGE_EMULATED": "ON"}
    defines["ONNXRUNTIME_ROOT"] = str(ort_headers)
    return wheels.once("emulated", "tsmerge-ort-cuda", defines, from_sdist=True)


@pytest.fixture(scope="session")
def emulated_operators(emulated_wheel: wheels.Installed) -> Path:
    """The operators for the CUDA provider, made for the CPU's: their kernels are emulated."""
    return emulated_wheel.operators


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[Importable]:
    """Puts a folder on Python's path; no variable names a library, and nothing is left of a wheel behind the test."""
    for library in (CPU_LIBRARY, CUDA_LIBRARY):
        monkeypatch.delenv(library.variable, raising=False)
    yield monkeypatch.syspath_prepend
    for name in wheels.NAMES:
        sys.modules.pop(name.replace("-", "_"), None)


def nvcc_options() -> tuple[dict[str, object], dict[str, str]]:
    """CMake's variables and those of the environment for builds by nvcc; skips where there is none."""
    nvcc = find_nvcc()
    if nvcc is None:
        pytest.skip("no nvcc (pip install 'tsmerge-export[plugin-tests]')")
    runtime = Path(nvcc).parents[1] / "lib" / "libcudart.so.13"
    if "site-packages" in nvcc and runtime.is_file():  # NVIDIA's wheels name and place it as no toolkit does
        return {"CMAKE_CUDA_COMPILER": nvcc, "CUDA_CUDART": runtime}, {"LIBRARY_PATH": str(runtime.parent)}
    return {"CMAKE_CUDA_COMPILER": nvcc}, {}


def build_with_nvcc(source: Path, folder: Path, *options: str) -> str:
    """The CMake build of a CUDA project; returns what it printed. Skips where a tool is missing."""
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    cmake, ninja = (shutil.which(tool, path=search) for tool in ("cmake", "ninja"))
    if cmake is None or ninja is None:
        pytest.skip("no cmake or ninja (pip install cmake ninja)")
    defines, more = nvcc_options()
    configure = ["cmake", "-G", "Ninja", "-S", str(source), "-B", str(folder), *options]
    configure += [f"-D{name}={value}" for name, value in defines.items()]
    environment = {**os.environ, **more}
    said = ""
    for command in (configure, [cmake, "--build", str(folder), "-v"]):
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        said = done.stdout
    return said


@pytest.fixture(scope="session")
def cuda_wheel(ort_headers: Path) -> wheels.Installed:
    """The wheel for the CUDA provider, by nvcc, for one architecture; a kernel that spills is an error."""
    defines, environment = nvcc_options()
    defines |= {"ONNXRUNTIME_ROOT": ort_headers, "CMAKE_CUDA_ARCHITECTURES": "90-real"}
    defines["CMAKE_CUDA_FLAGS"] = "-Xptxas --warn-on-spills -Xptxas --warning-as-error"
    return wheels.once("cuda", "tsmerge-ort-cuda", defines, environment)


def _libraries(folder: Path, headers: Path, *options: str) -> Path:
    said = build_with_nvcc(
        KERNELS, folder, f"-DTensorRT_ROOT={headers}", "-DCMAKE_CUDA_FLAGS=-Xptxas -v --threads 2", *options
    )
    (folder / "ptxas.txt").write_text(said)
    return folder


@pytest.fixture(scope="session")
def libraries(headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the CMake build for the newest architecture, and what ptxas said (``ptxas.txt``)."""
    return _libraries(tmp_path_factory.mktemp("libraries"), headers, "-DCMAKE_CUDA_ARCHITECTURES=120")


@pytest.fixture(scope="session")
def all_libraries(headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``libraries``, for all architectures that are the default."""
    return _libraries(tmp_path_factory.mktemp("all_libraries"), headers)
