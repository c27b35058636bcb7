"""A GPU, the library of native operators for it, and files to run."""

from __future__ import annotations

import os
from pathlib import Path

import onnxruntime as ort
import pytest

from tsmerge_export.backends.onnxruntime.native import CUDA_LIBRARY

CUDA = "CUDAExecutionProvider"


@pytest.fixture(scope="session")
def cuda() -> str:
    """The provider that the tests run on; ``TSMERGE_GPU_PROVIDER`` names another, to try the tests themselves."""
    provider = os.environ.get("TSMERGE_GPU_PROVIDER", CUDA)
    if provider not in ort.get_available_providers():
        pytest.skip("no CUDA provider in this ONNX Runtime (pip install onnxruntime-gpu)")
    if provider == CUDA:
        import torch  # noqa: F401 (its wheels bring CUDA's libraries, where the system has none)

        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()
    return provider


@pytest.fixture(scope="session")
def library(cuda: str) -> Path:
    """The operators for ONNX Runtime's CUDA provider."""
    given = os.environ.get(CUDA_LIBRARY.variable)
    if not given:
        pytest.skip(
            f"no library of native operators (build {CUDA_LIBRARY.source}, set {CUDA_LIBRARY.variable})"
        )
    return Path(given)


@pytest.fixture(scope="session")
def files(cuda: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders as ``tests/gpu/files.py`` makes them."""
    given = os.environ.get("TSMERGE_GPU_FILES")
    if given:
        return sorted(path.parent for path in Path(given).glob("*/model.onnx"))
    from tests.gpu.files import make

    return make(tmp_path_factory.mktemp("files"))
