"""What the tests of the plugin need: compilers, headers of TensorRT, and programs built once a session."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins import native
from tests.plugins.emulated import COMMON, EMULATION, KERNELS, build, compiler


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
    command = [cxx, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
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
    found = native.headers()
    if found is None:
        pytest.skip(
            "no headers of ONNX Runtime (python plugins/tools/onnxruntime_headers.py build/onnxruntime, or set "
            "ONNXRUNTIME_ROOT)"
        )
    return found


@pytest.fixture(scope="session")
def operators(ort_headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of native operators."""
    return native.build(tmp_path_factory.mktemp("operators"), ort_headers)


@pytest.fixture(scope="session")
def emulated_operators(ort_headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operators for the CUDA provider, made for the CPU's: their kernels are emulated."""
    return native.build_emulated(tmp_path_factory.mktemp("emulated-operators"), ort_headers)


def build_with_nvcc(source: Path, folder: Path, *options: str) -> str:
    """The CMake build of a CUDA project; returns what it printed. Skips where a tool is missing."""
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    cmake, ninja = (shutil.which(tool, path=search) for tool in ("cmake", "ninja"))
    if cmake is None or ninja is None:
        pytest.skip("no cmake or ninja (pip install cmake ninja)")
    nvcc = find_nvcc()
    if nvcc is None:
        pytest.skip("no nvcc (pip install 'tsmerge-export[plugin-tests]')")
    configure = ["cmake", "-G", "Ninja", "-S", str(source), "-B", str(folder), *options]
    configure.append(f"-DCMAKE_CUDA_COMPILER={nvcc}")
    environment = dict(os.environ)
    runtime = Path(nvcc).parents[1] / "lib" / "libcudart.so.13"
    if "site-packages" in nvcc and runtime.is_file():  # NVIDIA's wheels name and place it as no toolkit does
        configure.append(f"-DCUDA_CUDART={runtime}")
        environment["LIBRARY_PATH"] = str(runtime.parent)
    said = ""
    for command in (configure, [cmake, "--build", str(folder), "-v"]):
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        said = done.stdout
    return said


@pytest.fixture(scope="session")
def cuda_operators(ort_headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library for the CUDA provider, by nvcc, for one architecture."""
    folder = tmp_path_factory.mktemp("cuda-operators")
    build_with_nvcc(
        native.CUDA_SOURCES, folder, f"-DONNXRUNTIME_ROOT={ort_headers}", "-DCMAKE_CUDA_ARCHITECTURES=90-real"
    )
    return next(folder.glob("libtsmerge_*.so"))


@pytest.fixture(scope="session")
def libraries(headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the CMake build for all default architectures: the libraries, and what ptxas said (``ptxas.txt``)."""
    folder = tmp_path_factory.mktemp("libraries")
    said = build_with_nvcc(
        KERNELS, folder, f"-DTensorRT_ROOT={headers}", "-DCMAKE_CUDA_FLAGS=-Xptxas -v --threads 2"
    )
    (folder / "ptxas.txt").write_text(said)
    return folder
