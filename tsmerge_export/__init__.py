"""tsmerge-export: the compiler for token merging in time-series models.

>>> import tsmerge_export as tsm
>>> bundle = tsm.export("model-folder", tsm.MergeConfig(method="local", k=1, ratio="1/4"), output="bundle")
>>> session = tsm.load("bundle")
>>> session.run({"context": series})
>>> forecaster = tsm.pipeline("bundle")
>>> quantiles, mean = forecaster.predict_quantiles(series, prediction_length=64)

Names are imported on first use: reading and running a bundle needs neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tsmerge_export import merge
    from tsmerge_export.api import export
    from tsmerge_export.backends import load
    from tsmerge_export.backends.target import Target
    from tsmerge_export.bundle import Bundle
    from tsmerge_export.checkpoint import load_model, save_checkpoint
    from tsmerge_export.eager.apply import apply, merging, remove
    from tsmerge_export.forecast import pipeline
    from tsmerge_export.settings.config import MergeConfig
    from tsmerge_export.settings.one_shape import OneShape
    from tsmerge_export.settings.precision import Precision
    from tsmerge_export.settings.trained import Trained
    from tsmerge_export.tools.distill.distill import distill
    from tsmerge_export.tools.distill.losses import distillation_loss

_HOMES = {
    "Bundle": "bundle",
    "MergeConfig": "settings.config",
    "OneShape": "settings.one_shape",
    "Precision": "settings.precision",
    "Target": "backends.target",
    "Trained": "settings.trained",
    "apply": "eager.apply",
    "distill": "tools.distill.distill",
    "distillation_loss": "tools.distill.losses",
    "export": "api",
    "load": "backends",
    "load_model": "checkpoint",
    "merging": "eager.apply",
    "pipeline": "forecast",
    "remove": "eager.apply",
    "save_checkpoint": "checkpoint",
}

__all__ = [
    "Bundle", "MergeConfig", "OneShape", "Precision", "Target", "Trained", "apply", "distill", "distillation_loss",
    "export", "load", "load_model", "merge", "merging", "pipeline", "remove", "save_checkpoint",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("tsmerge_export.version").version()
    if name != "merge" and name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        found = import_module(f"tsmerge_export.{_HOMES.get(name, name)}")
    except ModuleNotFoundError as error:
        if str(error.name).startswith(__name__):
            raise
        from tsmerge_export.console.missing import how_to_install
        from tsmerge_export.errors import MissingDependencyError

        raise MissingDependencyError(f"tsmerge_export.{name}: {how_to_install(str(error.name))}") from error
    return found if name == "merge" else getattr(found, name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
