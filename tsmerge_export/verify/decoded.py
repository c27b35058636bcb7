"""Forecasts of a family of several components, by its exported files alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from tsmerge_export.backends.components import StepSession
from tsmerge_export.families.base import Family, Forecast, Forecasts
from tsmerge_export.forecast import DEFAULT_MEMORY
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import USUAL, Checks


def decoded_by(
    family: Family,
    model: nn.Module,
    built: Sequence[Built],
    checks: Checks = USUAL,
    memory: int = DEFAULT_MEMORY,
    opened: Callable[[Built], StepSession] | None = None,
) -> Forecast | None:
    """A forecast by a model's files behind the first component, which do not depend on how that one merged.

    Args:
        built: those files; the first component's may be among them. checks: how they are run.
        memory: bytes for what one part of a batch takes while it is decoded, about.
        opened: what runs a file; None is ONNX Runtime, by ``checks``.

    Returns:
        None for a family whose first component forecasts alone.
    """
    generation = family.generation(model)
    if generation is None:
        return None
    return generation.forecaster(_behind(family, model, built, checks, opened), memory)


def forecasts_by(
    family: Family,
    model: nn.Module,
    built: Sequence[Built],
    checks: Checks = USUAL,
    memory: int = DEFAULT_MEMORY,
) -> Forecasts:
    """Forecasts as :func:`tsmerge_export.pipeline` makes them of the bundle that holds these files.

    The arguments are those of :func:`decoded_by`. A family whose first component forecasts alone draws nothing.
    """
    generation = family.generation(model)
    if generation is not None:
        return generation.forecasts(_behind(family, model, built, checks), memory)
    return Forecasts(
        family.quantile_levels(model),
        lambda run, series, seed, first: family.forecast(model, run, series, seed),
    )


def _behind(
    family: Family,
    model: nn.Module,
    built: Sequence[Built],
    checks: Checks,
    opened: Callable[[Built], StepSession] | None = None,
) -> dict[str, Any]:
    """Sessions of the components behind the first."""
    first = family.components(model)[0].name
    return {
        item.component.name: checks.forecaster(item.merged, quiet=True) if opened is None else opened(item)
        for item in built
        if item.component.name != first
    }
