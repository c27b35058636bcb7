"""Whether a model can stand for what another was distilled from: one that is asked alike and answers alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tsmerge_export.errors import UsageError

if TYPE_CHECKING:
    from tsmerge_export.compile.checkpoint_source import CheckpointSource


def check_original(source: CheckpointSource, original: CheckpointSource) -> None:
    """Weights, and sizes that nobody sees from outside, may differ.

    Args:
        source: what merges. original: what it is to be compared with.

    Raises:
        UsageError: of another family, or another horizon, context or form of the forecasts; one line.
    """
    start, remedy = f"--original {original.name}: ", f"give the model that {source.name} was distilled from"
    if original.family != source.family:
        raise UsageError(f"{start}is a {original.family}, {source.name} a {source.family}; {remedy}")
    theirs = _asked(original)
    for what, value in _asked(source).items():
        if theirs[what] != value:
            raise UsageError(f"{start}its {what} is {theirs[what]}, that of {source.name} {value}; {remedy}")


def _asked(source: CheckpointSource) -> Mapping[str, str]:
    """By what two models of a family may differ so that their forecasts do not compare, in words."""
    first = source.components[0]
    levels = source.of_family.quantile_levels(source.model)
    inputs = (f"{spec.name}[{', '.join(map(str, spec.dims))}]" for spec in first.inputs)
    return {
        "horizon": str(source.horizon),
        "context": str(source.longest),
        "list of quantile levels": ", ".join(f"{level:g}" for level in levels),
        "form of inputs": ", ".join(inputs),
        "form of outputs": ", ".join(spec.name for spec in first.outputs),
        "list of components": ", ".join(component.name for component in source.components),
    }
