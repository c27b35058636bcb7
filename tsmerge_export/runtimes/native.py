"""The native operators of ``plugins/onnxruntime``: a library that ONNX Runtime runs instead of the portable functions.

A file keeps its functions. Where the library is registered, ONNX Runtime takes its operators for the nodes that it has
(:data:`OPERATORS`); everywhere else the same file runs by its functions.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tsmerge_export.errors import MissingDependencyError, UnsupportedError, UsageError, first_line

if TYPE_CHECKING:
    import onnxruntime

#: Where the library is, unless an argument says so.
VARIABLE = "TSMERGE_ORT_PLUGIN"
LIBRARY = "libtsmerge_ort.so"
#: The operators of domain ``tsmerge`` that it has.
OPERATORS = ("LocalMerge", "DynamicMerge")


def find_library(given: str | Path | None = None) -> Path | None:
    """The library: an argument, else the environment variable, else None.

    Raises:
        MissingDependencyError: it does not exist.
    """
    chosen = given or os.environ.get(VARIABLE)
    if not chosen:
        return None
    path = Path(chosen)
    if not path.is_file():
        raise MissingDependencyError(f"the library {path} does not exist; build plugins/onnxruntime")
    return path


def register(options: onnxruntime.SessionOptions, given: str | Path | None = None) -> None:
    """Let sessions of these options run the library's operators, if there is a library.

    Args:
        options: of a session on the CPU: other providers would hand its nodes over to the CPU.
        given: see :func:`find_library`.

    Raises:
        MissingDependencyError: it does not exist. UnsupportedError: ONNX Runtime cannot load it.
    """
    path = find_library(given)
    if path is None:
        return
    try:
        options.register_custom_ops_library(str(path.resolve()))
    except Exception as error:  # ONNX Runtime has no common base class for its errors
        reason = first_line(error)
        raise UnsupportedError(f"{path}: ONNX Runtime cannot load it: {reason}") from error


def refuse(what: str) -> None:
    """Fail where the library must not run: what is proved there are other bodies of the same operators.

    Args:
        what: flags or a form of files, for the message.

    Raises:
        UsageError: the environment names a library.
    """
    if os.environ.get(VARIABLE):
        raise UsageError(f"{VARIABLE} has no effect with {what}, whose operators are other ones; unset it")


def description() -> str | None:
    """Name and content of the library that the environment names, for the versions of a bundle."""
    path = find_library()
    if path is None:
        return None
    return f"{path.name}, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
