"""Back ends: what a bundle is made for and run by, a folder each, behind the protocol of :mod:`.base`.

Only the table here names them; importing it needs the standard library alone. Running a bundle needs numpy and the
runtime, not torch. A back end of another package is an entry point of the group ``tsmerge_export.backends``, named
after the runtime; in the pyproject.toml of such a package::

    [project.entry-points."tsmerge_export.backends"]
    my-runtime = "my_package:MyBackend"

The object is a subclass of :class:`~tsmerge_export.backends.base.Backend`. A plug-in that cannot be loaded is one line,
where it is asked for, and in nobody else's way. Entry points are looked for only where a built-in back end does not do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsmerge_export.errors import TsmergeError, UsageError
from tsmerge_export.settings import entry_points

if TYPE_CHECKING:
    from tsmerge_export.backends.base import Backend
    from tsmerge_export.backends.components import BundleSession
    from tsmerge_export.bundle import Bundle

#: Name -> module and class. The first is the default.
_TABLE = {
    "onnxruntime": ("tsmerge_export.backends.onnxruntime.backend", "OnnxRuntime"),
    "tensorrt": ("tsmerge_export.backends.tensorrt.backend", "TensorRT"),
    "tensorrt-rtx": ("tsmerge_export.backends.tensorrt_rtx.backend", "TensorRTRTX"),
    "openvino": ("tsmerge_export.backends.openvino.backend", "OpenVINO"),
}
DEFAULT = next(iter(_TABLE))
GROUP = "tsmerge_export.backends"

Providers = Sequence[str | tuple[str, dict[str, Any]]]


def built_in() -> tuple[str, ...]:
    """The names of this package's back ends, the default first."""
    return tuple(_TABLE)


def names() -> tuple[str, ...]:
    """The names of all back ends, the built-in ones first."""
    return (*_TABLE, *(name for name in entry_points.found(GROUP) if name not in _TABLE))


def check_runtime(name: str) -> None:
    """Raises UsageError for an unknown runtime."""
    if name not in _TABLE and name not in entry_points.found(GROUP):
        raise UsageError(f"runtime {name!r} is not known; choose one of: {', '.join(names())}")


@cache
def get(name: str) -> Backend:
    """A back end by name. A built-in one cannot be replaced by a plug-in.

    Raises:
        UsageError: an unknown one, or a plug-in that is broken. MissingDependencyError: what a plug-in imports is not
            installed.
    """
    check_runtime(name)
    if name not in _TABLE:
        return _plug_in(name)
    module, kind = _TABLE[name]
    made: Backend = getattr(import_module(module), kind)()
    return made


def usable() -> tuple[Backend, ...]:
    """All back ends that can be loaded, the built-in ones first."""
    out = []
    for name in names():
        try:
            out.append(get(name))
        except TsmergeError:
            if name in _TABLE:
                raise
    return tuple(out)


def forget() -> None:
    """Look for plug-ins anew: where packages were installed or removed while this process runs."""
    entry_points.found.cache_clear()
    get.cache_clear()


def _plug_in(name: str) -> Backend:
    from tsmerge_export.backends.base import Backend

    found, label = entry_points.load(GROUP, "back-end", name, Backend)  # type: ignore[type-abstract]
    ours = {(own.node.domain, own.node.op_type) for own in map(get, _TABLE) if own.node is not None}
    if found.node is not None and (found.node.domain, found.node.op_type) in ours:
        raise UsageError(
            f"{label}: {found.node.domain}.{found.node.op_type} is a node of this package; give it another domain"
        )
    return found


def of(manifest: Mapping[str, Any]) -> Backend:
    """The back end that a bundle was made for.

    Raises:
        UsageError: one that is not known.
    """
    target = manifest.get("target")
    return get(str(target.get("runtime")) if isinstance(target, Mapping) else DEFAULT)


def limits(manifest: Mapping[str, Any]) -> str:
    """What the verdicts and times of a bundle are worth, by its back end, in a sentence. Raises as :func:`of`."""
    from tsmerge_export.backends.onnxruntime.place import place_words

    return of(manifest).limits(place_words(manifest))


def load(
    directory: str | Path | Bundle,
    runtime: str = DEFAULT,
    threads: int | None = None,
    providers: Providers | None = None,
    plugin: str | Path | None = None,
) -> BundleSession[Any]:
    """Open a bundle for inference, after comparing every file with the manifest's SHA-256.

    A session runs the arrays that it is given. How many tokens a merge removes depends on how many a row has, padding
    too: a series that is padded to stand beside a longer one is merged otherwise than alone. Give rows of different
    lengths in different calls, or use :func:`tsmerge_export.pipeline`, which does.

    Args:
        directory: the bundle's folder (or a Bundle, whose files are compared again).
        runtime: ``"onnxruntime"``, or that which the bundle was exported for: ``"openvino"``,
            ``"tensorrt"``, or that of a plug-in.
        threads: threads inside an operator, >= 1; by default the runtime's choice.
        providers: ONNX Runtime execution providers in order of preference; default the CPU.
        plugin: a library of this project. For ONNX Runtime on the CPU that of native operators (else the environment
            variable TSMERGE_ORT_PLUGIN, else the installed tsmerge-ort), with CUDA's provider first the one for it
            (TSMERGE_ORT_CUDA_PLUGIN, tsmerge-ort-cuda), or ``"none"``; for TensorRT the plugin (TSMERGE_TRT_PLUGIN);
            for ONNX Runtime's TensorRT provider the registering one.

    Returns:
        A session with ``.inputs``, ``.outputs`` and ``.run({name: array}) -> {name: array}``.

    Raises:
        UsageError: no bundle, a changed file, a bad argument.
        UnsupportedError: a model that the runtime cannot load, or a runtime whose engines it cannot run.
        MissingDependencyError: the runtime, a provider, the plugin library or a GPU is missing.
    """
    from tsmerge_export.bundle import Bundle

    backend = get(runtime)
    bundle = Bundle.open(directory.path if isinstance(directory, Bundle) else directory)
    return backend.load(bundle, threads, providers, plugin)
