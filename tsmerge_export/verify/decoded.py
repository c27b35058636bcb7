"""Forecasts of a family of several components, by its exported files alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tsmerge_export.compile.build import Built
from tsmerge_export.families.base import Family, Forecast
from tsmerge_export.forecast import DEFAULT_MEMORY
from tsmerge_export.verify.checks import USUAL, Checks


def decoded_by(
    family: Family,
    model: nn.Module,
    built: Sequence[Built],
    checks: Checks = USUAL,
    memory: int = DEFAULT_MEMORY,
) -> Forecast | None:
    """A forecast by a model's files behind the first component, which do not depend on how that one merged.

    Args:
        built: those files; the first component's may be among them. checks: how they are run.
        memory: bytes for what one part of a batch takes while it is decoded, about.

    Returns:
        None for a family whose first component forecasts alone.
    """
    generation = family.generation(model)
    if generation is None:
        return None
    first = family.components(model)[0].name
    sessions = {
        item.component.name: checks.forecaster(item.merged, quiet=True)
        for item in built
        if item.component.name != first
    }
    return generation.forecaster(sessions, memory)
