"""Bundles as forecasters. Needs numpy and onnxruntime; neither torch nor transformers."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from tsmerge_export.backends import Providers, check_runtime, get
from tsmerge_export.bundle import Bundle
from tsmerge_export.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from tsmerge_export.console.progress import Progress
    from tsmerge_export.forecast.base import Forecaster

_FORECASTERS = {
    "autoformer": ("lagged", "Lagged"),
    "chronos-2": ("chronos2", "Chronos2"),
    "chronos-bolt": ("chronos_bolt", "ChronosBolt"),
    "chronos-t5": ("chronos_t5", "ChronosT5"),
    "informer": ("lagged", "Lagged"),
    "patchtsmixer": ("channels", "forecaster"),
    "patchtst": ("channels", "forecaster"),
    "time-series-transformer": ("lagged", "Lagged"),
    "timesfm": ("timesfm", "TimesFm"),
    "timesfm-2.5": ("timesfm", "TimesFm"),
}

#: Entry points of the forecasters that other packages bring for their families, each named after its family.
GROUP = "tsmerge_export.forecasters"

DEFAULT_MEMORY = 512 * 2**20


def pipeline(
    directory: str | Path | Bundle,
    runtime: str = "onnxruntime",
    threads: int | None = None,
    providers: Providers | None = None,
    *,
    plugin: str | Path | None = None,
    memory: int = DEFAULT_MEMORY,
    progress: Progress | None = None,
) -> Forecaster:
    """A bundle as a forecaster with the methods of chronos-forecasting's pipelines, on numpy arrays.

    Args:
        directory, threads, providers, plugin: see :func:`tsmerge_export.load`; hashes are checked as there.
        runtime: ``"onnxruntime"``, which also runs bundles that were made for a runtime of engines; or ``"openvino"``.
        memory: bytes for activations and caches, about; larger batches are forecast in parts.
        progress: told how far a call is; by default a bar on stderr, if that is a terminal and a call takes long.

    Returns:
        ``predict``, ``predict_quantiles`` and ``predict_df``.

    Raises:
        UsageError: no bundle, a changed file, a bundle of another version, a bad argument.
        UnsupportedError: a family without a forecaster.
        MissingDependencyError: the runtime or a provider is not installed, or a library is missing.
    """
    from tsmerge_export.forecast.inputs import whole

    check_runtime(runtime)
    whole("memory", memory, 1, 2**62)
    bundle = Bundle.open(directory.path if isinstance(directory, Bundle) else directory)
    family = bundle.contents.family
    if family in _FORECASTERS:
        module, name = _FORECASTERS[family]
        make = getattr(import_module(f"tsmerge_export.forecast.{module}"), name)
    else:
        make = _plugged(family, bundle)
    from tsmerge_export.console.progress import LateBar

    session = get(runtime).forecaster(bundle, threads, providers, plugin)
    forecaster: Forecaster = make(bundle, session, memory=memory, progress=progress or LateBar("forecast"))
    return forecaster


def _plugged(family: str | None, bundle: Bundle) -> type[Forecaster]:
    """The forecaster that a package brings for its family; see :func:`pipeline` for what is raised."""
    from tsmerge_export.forecast.base import Forecaster
    from tsmerge_export.settings.entry_points import found, imported

    if family is None or family not in found(GROUP):
        names = ", ".join([*_FORECASTERS, *sorted(found(GROUP))])
        raise UnsupportedError(f"{bundle.path}: a bundle of {family} is no forecaster; supported are {names}")
    made, entry, label = imported(GROUP, "forecaster", family)
    if not (isinstance(made, type) and issubclass(made, Forecaster)):
        raise UsageError(f"{label}: {entry.value} is no class of {Forecaster.__module__}.Forecaster")
    return made
