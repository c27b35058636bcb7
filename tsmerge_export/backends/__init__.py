"""Runtimes that execute a bundle. Reading one needs numpy and the runtime, not torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsmerge_export.bundle import Bundle
from tsmerge_export.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from tsmerge_export.backends.onnxruntime.session import Session
    from tsmerge_export.backends.tensorrt.engine import TensorrtSession

RUNTIMES = ("onnxruntime", "tensorrt", "tensorrt-rtx")

Providers = Sequence[str | tuple[str, dict[str, Any]]]


def check_runtime(name: str) -> None:
    """Raises UsageError for an unknown runtime."""
    if name not in RUNTIMES:
        raise UsageError(f"runtime {name!r} is not known; choose one of: {', '.join(RUNTIMES)}")


def load(
    directory: str | Path | Bundle,
    runtime: str = "onnxruntime",
    threads: int | None = None,
    providers: Providers | None = None,
    plugin: str | Path | None = None,
) -> Session | TensorrtSession:
    """Open a bundle for inference, after comparing every file with the manifest's SHA-256.

    A session runs the arrays that it is given. How many tokens a merge removes depends on how many a row has, padding
    too: a series that is padded to stand beside a longer one is merged otherwise than alone. Give rows of different
    lengths in different calls, or use :func:`tsmerge_export.pipeline`, which does.

    Args:
        directory: the bundle's folder (or a Bundle, whose files are compared again).
        runtime: ``"onnxruntime"``, or ``"tensorrt"`` for a bundle exported for it.
        threads: threads inside an operator, >= 1; by default the runtime's choice.
        providers: ONNX Runtime execution providers in order of preference; default the CPU.
        plugin: a library of this project. For ONNX Runtime on the CPU that of native operators (also the environment
            variable TSMERGE_ORT_PLUGIN), with CUDA's provider first the one for it (TSMERGE_ORT_CUDA_PLUGIN); for
            TensorRT the plugin (TSMERGE_TRT_PLUGIN); for ONNX Runtime's TensorRT provider the registering one.

    Returns:
        A session with ``.inputs``, ``.outputs`` and ``.run({name: array}) -> {name: array}``.

    Raises:
        UsageError: no bundle, a changed file, a bad argument.
        UnsupportedError: a model that the runtime cannot load, or a runtime whose engines it cannot run.
        MissingDependencyError: the runtime, a provider, the plugin library or a GPU is missing.
    """
    check_runtime(runtime)
    bundle = Bundle.open(directory.path if isinstance(directory, Bundle) else directory)
    if runtime != RUNTIMES[0] and (threads is not None or providers is not None):
        raise UsageError(f"threads and providers have no effect with runtime {runtime}; leave them out")
    if runtime == "tensorrt":
        from tsmerge_export.backends.tensorrt.engine import TensorrtSession

        return TensorrtSession(bundle, plugin)
    if runtime == "tensorrt-rtx":
        raise UnsupportedError(
            "engines of tensorrt-rtx are built here and run by TensorRT-RTX itself (tensorrt_rtx --loadEngine=FILE, or "
            "its C++ and Python API); load the bundle with runtime onnxruntime"
        )
    from tsmerge_export.backends.onnxruntime.providers import with_plugin
    from tsmerge_export.backends.onnxruntime.session import Session

    chosen = with_plugin(providers, bundle, plugin)
    return Session(
        bundle, threads=threads, providers=chosen.providers, files=chosen.files, plugin=chosen.operators
    )
