"""The native operators of ``plugins``: libraries that ONNX Runtime runs instead of the portable functions.

A file keeps its functions. Where a library is registered, ONNX Runtime takes its operators for the nodes that it has
(:attr:`Library.operators`); everywhere else the same file runs by its functions. There is one library for the CPU's
provider and one for CUDA's. Each is also a wheel, whose library is found where nothing names another.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tsmerge_export.backends.onnxruntime.wheels import CPU_WHEEL, CUDA_WHEEL, Wheel, installed, wheel_of
from tsmerge_export.errors import MissingDependencyError, UnsupportedError, first_line
from tsmerge_export.settings.domain import DOMAIN
from tsmerge_export.untrusted.onnx_wire import opsets_of

if TYPE_CHECKING:
    import onnxruntime

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@dataclass(frozen=True)
class Library:
    """One library: its file, the environment variable that says where it is, its wheel, the folder that it is built
    from, and the operators of domain ``tsmerge`` that it has."""

    file: str
    variable: str
    wheel: str
    source: str
    operators: tuple[str, ...]


#: For sessions on the CPU alone.
CPU_LIBRARY = Library(
    "libtsmerge_ort.so",
    "TSMERGE_ORT_PLUGIN",
    CPU_WHEEL,
    "plugins/onnxruntime",
    ("LocalMerge", "DynamicMerge", "SeriesMerge"),
)
#: For sessions whose first provider is CUDA's.
CUDA_LIBRARY = Library(
    "libtsmerge_ort_cuda.so",
    "TSMERGE_ORT_CUDA_PLUGIN",
    CUDA_WHEEL,
    "plugins/onnxruntime_cuda",
    (
        "LocalMerge",
        "DynamicMerge",
        "SeriesMerge",
        "PitomeMerge",
        "SsmMerge",
        "Unmerge",
        "GatherPairs",
        "DistancePlane",
    ),
)
#: Instead of a library's file: none, also where a wheel of one is installed.
NONE = Path("none")
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
    """The library: an argument, else its environment variable, else that of its wheel; None where there is none of
    them, or the one that counts is :data:`NONE`.

    Raises:
        MissingDependencyError: it does not exist.
    """
    chosen = given or os.environ.get(library.variable)
    if not chosen:
        wheel = installed(library.wheel)
        return None if wheel is None else wheel.file
    path = Path(chosen)
    if path == NONE:
        return None
    if not path.is_file():
        raise MissingDependencyError(
            f"the library {path} does not exist; build {library.source}, or pip install {source_of(library)}"
        )
    return path


def source_of(library: Library) -> str:
    """What pip installs its wheel from: the wheels are on no index."""
    return f"./plugins/wheels/{library.wheel}"


def register(
    options: onnxruntime.SessionOptions,
    given: str | Path | None = None,
    providers: Sequence[str] = (_CPU,),
    model: str | bytes = b"",
) -> None:
    """Let sessions of these options run a library's operators, if there is a library for their providers.

    Args:
        options: of a session. given: see :func:`find_library`. providers: the session's, by name, in order.
        model: the ONNX file or its bytes, whose operators must be of the version that a wheel has.

    Raises:
        MissingDependencyError: it does not exist, or its operators are of another version.
        UnsupportedError: ONNX Runtime cannot load it.
    """
    library = for_providers(providers)
    path = None if library is None else find_library(given, library)
    if library is None or path is None:
        return
    wheel = wheel_of(path)
    if wheel is not None:
        _check_version(wheel, library, model)
    try:
        options.register_custom_ops_library(str(path.resolve()))
    except Exception as error:  # ONNX Runtime has no common base class for its errors
        reason = first_line(error)
        hint = "" if wheel is None else f" (of {wheel}; {library.variable}={NONE} runs without it)"
        raise UnsupportedError(f"{path}: ONNX Runtime cannot load it: {reason}{hint}") from error


def _check_version(wheel: Wheel, library: Library, model: str | bytes) -> None:
    """A custom operator stands for those of all versions. Raises MissingDependencyError."""
    wanted = opsets_of(Path(model) if isinstance(model, str) else model).get(DOMAIN, wheel.operators)
    if wanted != wheel.operators:
        raise MissingDependencyError(
            f"{said(model)}: has operators of version {wanted}, the installed "
            f"{wheel} those of version {wheel.operators}; install {wheel.name} {wanted}, or set "
            f"{library.variable}={NONE} to run without it"
        )


def said(model: str | bytes) -> str:
    """A model in a message."""
    return model if isinstance(model, str) else "the model"


def lacking(reason: str, providers: Sequence[str]) -> str | None:
    """What to install where ONNX Runtime knows no operator that a library has, and the file no function; else None.

    Args:
        reason: why it did not open the file. providers: as of :func:`register`.
    """
    library = for_providers(providers)
    if library is None or "is not a registered function/op" not in reason:
        return None
    operator = next((name for name in library.operators if f"tsmerge:{name}(" in reason), None)
    if operator is None:
        return None
    return (
        f"has no function for {operator}, which then needs the native operators; pip install {source_of(library)} "
        f"in the source tree of tsmerge-export, or name their library ({library.variable})"
    )


def description(library: Path) -> str:
    """Name and content of a library, and the wheel that it came with, for the versions of a bundle."""
    wheel = wheel_of(library)
    name = library.name if wheel is None else f"{library.name} of {wheel}"
    return f"{name}, SHA-256 {hashlib.sha256(library.read_bytes()).hexdigest()[:16]}"
