"""Runtimes that execute a bundle. Reading one needs numpy and the runtime, not torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsmerge_export.bundle import Bundle
from tsmerge_export.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from tsmerge_export.runtimes.onnxruntime import Session

RUNTIMES = ("onnxruntime",)
PLANNED = ("tensorrt", "tensorrt-rtx")

Providers = Sequence[str | tuple[str, dict[str, Any]]]


def check_runtime(name: str) -> None:
    """Raises UnsupportedError for a runtime that is planned, UsageError for an unknown one."""
    if name in PLANNED:
        raise UnsupportedError(f"runtime {name} is not supported yet; use {RUNTIMES[0]}")
    if name not in RUNTIMES:
        raise UsageError(f"runtime {name!r} is not known; choose one of: {', '.join(RUNTIMES)}")


def load(
    directory: str | Path | Bundle,
    runtime: str = "onnxruntime",
    threads: int | None = None,
    providers: Providers | None = None,
) -> Session:
    """Open a bundle for inference, after comparing every file with the manifest's SHA-256.

    Args:
        directory: the bundle's folder (or a Bundle, whose files are compared again).
        runtime: ``"onnxruntime"``.
        threads: threads inside an operator, >= 1; by default the runtime's choice.
        providers: ONNX Runtime execution providers in order of preference; default the CPU.

    Returns:
        A session with ``.inputs``, ``.outputs`` and ``.run({name: array}) -> {name: array}``.

    Raises:
        UsageError: no bundle, a changed file, a bad argument.
        UnsupportedError: a runtime that is not there yet, or a model that it cannot load.
        MissingDependencyError: the runtime or a provider is not installed.
    """
    check_runtime(runtime)
    from tsmerge_export.runtimes.onnxruntime import Session

    bundle = Bundle.open(directory.path if isinstance(directory, Bundle) else directory)
    return Session(bundle, threads=threads, providers=providers)
