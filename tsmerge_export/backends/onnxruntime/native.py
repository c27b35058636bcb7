"""The native operators of ``plugins``: libraries that ONNX Runtime runs instead of the portable functions.

A file keeps its functions. Where a library is registered, ONNX Runtime takes its operators for the nodes that it has
(:attr:`Library.operators`); everywhere else the same file runs by its functions. There is one library for the CPU's
provider and one for CUDA's.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tsmerge_export.errors import MissingDependencyError, UnsupportedError, first_line

if TYPE_CHECKING:
    import onnxruntime

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@dataclass(frozen=True)
class Library:
    """One library: its file, the environment variable that says where it is, the folder that it is built from, and
    the operators of domain ``tsmerge`` that it has."""

    file: str
    variable: str
    source: str
    operators: tuple[str, ...]


#: For sessions on the CPU alone.
CPU_LIBRARY = Library(
    "libtsmerge_ort.so",
    "TSMERGE_ORT_PLUGIN",
    "plugins/onnxruntime",
    ("LocalMerge", "DynamicMerge", "SeriesMerge"),
)
#: For sessions whose first provider is CUDA's.
CUDA_LIBRARY = Library(
    "libtsmerge_ort_cuda.so",
    "TSMERGE_ORT_CUDA_PLUGIN",
    "plugins/onnxruntime_cuda",
    ("LocalMerge", "DynamicMerge"),
)
#: Among the versions of a bundle, where a library stood in for functions of the files.
NATIVE = "native operators"
VARIABLE, LIBRARY = CPU_LIBRARY.variable, CPU_LIBRARY.file


def for_providers(providers: Sequence[str]) -> Library | None:
    """The library whose operators these providers (names, in order of preference) run; None where there is none.

    The CPU's is not for other providers: they would hand its nodes over to the CPU.
    """
    if all(name == _CPU for name in providers):
        return CPU_LIBRARY
    return CUDA_LIBRARY if providers[0] == _CUDA else None


def find_library(given: str | Path | None = None, library: Library = CPU_LIBRARY) -> Path | None:
    """The library: an argument, else its environment variable, else None.

    Raises:
        MissingDependencyError: it does not exist.
    """
    chosen = given or os.environ.get(library.variable)
    if not chosen:
        return None
    path = Path(chosen)
    if not path.is_file():
        raise MissingDependencyError(f"the library {path} does not exist; build {library.source}")
    return path


def register(
    options: onnxruntime.SessionOptions,
    given: str | Path | None = None,
    providers: Sequence[str] = (_CPU,),
) -> None:
    """Let sessions of these options run a library's operators, if there is a library for their providers.

    Args:
        options: of a session. given: see :func:`find_library`. providers: the session's, by name, in order.

    Raises:
        MissingDependencyError: it does not exist. UnsupportedError: ONNX Runtime cannot load it.
    """
    library = for_providers(providers)
    path = None if library is None else find_library(given, library)
    if path is None:
        return
    try:
        options.register_custom_ops_library(str(path.resolve()))
    except Exception as error:  # ONNX Runtime has no common base class for its errors
        reason = first_line(error)
        raise UnsupportedError(f"{path}: ONNX Runtime cannot load it: {reason}") from error


def description(library: Path) -> str:
    """Name and content of a library, for the versions of a bundle."""
    return f"{library.name}, SHA-256 {hashlib.sha256(library.read_bytes()).hexdigest()[:16]}"
