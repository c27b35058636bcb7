"""ONNX Runtime's providers: which file they run, and the options that load the plugin.

A bundle made for TensorRT has a second file with plugin nodes. It is used when the TensorRT provider comes first and
the registering plugin library is known; else every provider runs the portable file. Written without a GPU at hand.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tsmerge_export.backends import Providers
from tsmerge_export.backends.onnxruntime import native
from tsmerge_export.backends.onnxruntime.place import CPU, CUDA, TENSORRT, name_of, names
from tsmerge_export.bundle import Bundle
from tsmerge_export.bundle.target import TargetEntry
from tsmerge_export.errors import MissingDependencyError, UsageError

LIBRARIES = "trt_extra_plugin_lib_paths"
REGISTERED = "libtsmerge_trt_registered.so"
#: Environment variable with the registering library.
VARIABLE = "TSMERGE_TRT_PLUGIN_REGISTERED"


@dataclass(frozen=True)
class Chosen:
    """Providers with their options, per component the file to run where it is not the portable one, and the library of
    native operators."""

    providers: Providers | None
    files: Mapping[str, Path] = field(default_factory=dict)
    operators: str | Path | None = None


def with_plugin(providers: Providers | None, bundle: Bundle, plugin: str | Path | None = None) -> Chosen:
    """Set the options that load the plugin for the TensorRT provider.

    Args:
        providers: as given by the user. bundle: open and verified.
        plugin: the registering library; else the option ``trt_extra_plugin_lib_paths``, else the environment variable.
            With CUDA first or the CPU alone, that provider's library of native operators.

    Raises:
        UsageError: a plugin for other providers, or the TensorRT provider's for a bundle that was not made for it.
        MissingDependencyError: the library does not exist.
    """
    entries = [providers] if isinstance(providers, str) else list(providers or ())
    first = entries[0] if entries else None
    options: dict[str, Any] = dict(first[1]) if isinstance(first, (tuple, list)) and len(first) == 2 else {}
    if name_of(first) != TENSORRT:
        none = plugin is not None and Path(plugin) == native.NONE
        if plugin is not None and not none and native.for_providers(names(entries)) is None:
            raise UsageError(
                f"plugin has no effect unless {TENSORRT} or {CUDA} is the first of providers, or {CPU} the only one"
            )
        return Chosen(providers, operators=plugin)
    library = plugin or options.get(LIBRARIES) or os.environ.get(VARIABLE)
    if not library or Path(library) == native.NONE:
        return Chosen(providers)
    target = bundle.contents.target
    if target is None or target.runtime != "tensorrt":
        raise UsageError(
            "the bundle has no plugin form; export it with --runtime tensorrt, or leave the plugin out"
        )
    for path in str(library).split(";"):
        if not Path(path).is_file():
            raise MissingDependencyError(
                f"the plugin library {path} does not exist; build plugins/local_merge"
            )
    options = {**_shapes(target), **options, LIBRARIES: str(library)}
    files = {component: bundle.file(entry.onnx) for component, entry in target.components.items()}
    return Chosen([(TENSORRT, options), *entries[1:]], files)


def _shapes(target: TargetEntry) -> dict[str, str]:
    """The provider's range of shapes; it takes one for all sessions, so only of a bundle with one component."""
    if len(target.components) != 1:
        return {}
    (entry,) = target.components.values()
    return {
        f"trt_profile_{which}_shapes": ",".join(
            f"{name}:{'x'.join(map(str, getattr(sizes, which)))}" for name, sizes in entry.profile.items()
        )
        for which in ("min", "opt", "max")
    }
