"""Model families. A new one is a module here and a line in ``_MODULES``; nothing else knows families by name.

Families of other packages come from entry points (:mod:`tsmerge_export.families.plugins`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tsmerge_export.errors import TsmergeError, UnsupportedError, UsageError
from tsmerge_export.families import plugins

if TYPE_CHECKING:
    from torch import nn

    from tsmerge_export.families.base import Family

# Imported on first use: a family's module pulls in its modelling library.
_MODULES = {
    "autoformer": ("tsmerge_export.families.autoformer", "Autoformer"),
    "chronos-2": ("tsmerge_export.families.chronos2", "Chronos2"),
    "chronos-bolt": ("tsmerge_export.families.chronos_bolt", "ChronosBolt"),
    "chronos-t5": ("tsmerge_export.families.chronos_t5", "ChronosT5"),
    "informer": ("tsmerge_export.families.informer", "Informer"),
    "mamba": ("tsmerge_export.families.mamba", "Mamba"),
    "mamba2": ("tsmerge_export.families.mamba2", "Mamba2"),
    "patch-mamba": ("tsmerge_export.families.patch_mamba", "PatchMamba"),
    "patchtsmixer": ("tsmerge_export.families.patchtsmixer", "PatchTSMixer"),
    "patchtst": ("tsmerge_export.families.patchtst", "PatchTST"),
    "time-series-transformer": ("tsmerge_export.families.time_series_transformer", "TimeSeriesTransformer"),
    "timesfm": ("tsmerge_export.families.timesfm", "TimesFm"),
    "timesfm-2.5": ("tsmerge_export.families.timesfm2_5", "TimesFm25"),
}


def names() -> tuple[str, ...]:
    """The names of all families, the built-in ones first."""
    return (*_MODULES, *(name for name in plugins.found() if name not in _MODULES))


def built_in(name: str) -> bool:
    """Whether the family is part of this package."""
    return name in _MODULES


@cache
def get(name: str) -> Family:
    """The family of that name. A built-in family cannot be replaced by a plug-in.

    Raises:
        UsageError: an unknown name, or a broken plug-in.
        MissingDependencyError: what a plug-in imports is not installed.
    """
    if name in _MODULES:
        module, attribute = _MODULES[name]
        family: Family = getattr(import_module(module), attribute)()
        return family
    if name in plugins.found():
        return plugins.load(name)
    raise UsageError(f"--family {name} is not known; choose one of: {', '.join(names())}")


def detect(config: Mapping[str, Any]) -> Family:
    """The family that a config.json belongs to, built-in ones first. Raises UnsupportedError when there is none."""
    broken = []
    for name in names():
        try:
            family = get(name)
        except TsmergeError as error:
            if built_in(name):
                raise
            broken.append(
                str(error)
            )  # it may be meant for other models: only a model that nothing takes asks for it
            continue
        if family.matches(config) if built_in(name) else plugins.matches(family, config, broken):
            return family
    for name in _MODULES:
        reason = get(name).another_head(config)
        if reason is not None:
            raise UnsupportedError(reason)
    found = (config.get("architectures") or [config.get("model_type", "an unnamed model")])[0]
    raise UnsupportedError(
        "; ".join(
            [
                f"config.json describes {found}, which is no supported family ({', '.join(names())}); if it is a model "
                "of one of them, add --family; any transformer can be exported to .onnx first, and that file given",
                *broken,
            ]
        )
    )


def for_model(model: object) -> tuple[Family, nn.Module]:
    """The family of an eager model, and its core module; pipelines of ``chronos-forecasting`` are unwrapped.

    Raises:
        UnsupportedError: no family takes it.
    """
    core: Any = model
    for attribute in ("inner_model", "model"):  # pipeline -> (ChronosModel ->) transformers module
        if not hasattr(core, "config") or not hasattr(core.config, "to_dict"):
            core = getattr(core, attribute, core)
    if not hasattr(core, "config") or not hasattr(core.config, "to_dict"):
        raise UnsupportedError(
            f"{type(model).__name__} is no model of a supported family ({', '.join(names())})"
        )
    config = core.config.to_dict()
    config["architectures"] = [type(core).__name__]
    return detect(config), core
