"""Operators of tsmerge for ONNX Runtime, as a library: tsmerge_export finds it by itself, other programs register it::

    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(library_path())

The first number of the version is that of the operators: 1.x runs files that import version 1 of domain ``tsmerge``.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

__all__ = ["__version__", "library_path"]
__version__ = version(__name__)


def library_path() -> str:
    """The library's file. It is not opened: nothing of ONNX Runtime or of CUDA need be there."""
    (library,) = Path(__file__).parent.joinpath("lib").iterdir()
    return str(library)
