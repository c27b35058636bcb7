"""Model families. A new one is a module here and a line in ``_MODULES``; nothing else knows families by name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tsmerge_export.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from tsmerge_export.families.base import Family

# Imported on first use: a family's module pulls in its modelling library.
_MODULES = {
    "chronos-bolt": ("tsmerge_export.families.chronos_bolt", "ChronosBolt"),
    "chronos-2": ("tsmerge_export.families.chronos2", "Chronos2"),
    "chronos-t5": ("tsmerge_export.families.chronos_t5", "ChronosT5"),
    "mamba": ("tsmerge_export.families.mamba", "Mamba"),
    "patch-mamba": ("tsmerge_export.families.patch_mamba", "PatchMamba"),
    "timesfm": ("tsmerge_export.families.timesfm", "TimesFm"),
    "timesfm-2.5": ("tsmerge_export.families.timesfm2_5", "TimesFm25"),
    "mamba2": ("tsmerge_export.families.mamba2", "Mamba2"),
}


def names() -> tuple[str, ...]:
    """The names of all families."""
    return tuple(_MODULES)


@cache
def get(name: str) -> Family:
    """The family of that name. Raises UsageError for an unknown one."""
    if name not in _MODULES:
        raise UsageError(f"--family {name} is not known; choose one of: {', '.join(names())}")
    module, attribute = _MODULES[name]
    family: Family = getattr(import_module(module), attribute)()
    return family


def detect(config: Mapping[str, Any]) -> Family:
    """The family that a config.json belongs to. Raises UnsupportedError when there is none."""
    for name in _MODULES:
        family = get(name)
        if family.matches(config):
            return family
    found = (config.get("architectures") or [config.get("model_type", "an unnamed model")])[0]
    raise UnsupportedError(
        f"config.json describes {found}, which is no supported family ({', '.join(names())})"
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
