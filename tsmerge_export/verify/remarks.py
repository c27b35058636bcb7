"""What a user should know of a setting, from what came out: more asked for than can merge, and a large error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tsmerge_export.console.figures import change
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.inspection.inspect import inspect_file
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.trained import Trained
from tsmerge_export.verify.cost import CostReport

#: A rise of the error above this many per cent is pointed out, with what to do about it.
LARGE = 5.0
_NAMES = {"wql": "weighted quantile loss", "mse": "MSE", "mae": "MAE"}


def beyond(merge: MergeConfig, artefact: Path, length: int | None, batch: int = 1) -> str | None:
    """A line on an r that is more than can merge, even at the longest input; None where all of it merges.

    Args:
        artefact: .onnx file with its merge nodes. length: of its longest input, where one number says it.
    """
    if merge.r is None:
        return None
    try:
        found = inspect_file(artefact, batch=batch, length=length)
    except UnsupportedError:  # one number is not enough to describe its inputs
        return None
    return capped(found["merges"], found["length"])


def capped(merges: Sequence[Mapping[str, Any]], length: int) -> str | None:
    """:func:`beyond` for merges as :func:`~tsmerge_export.inspection.inspect.inspect_file` counts them."""
    asked = [int(one["attributes"]["r"]) for one in merges]
    gone = [int(one["before"]) - int(one["after"]) for one in merges]
    if all(wanted <= went for wanted, went in zip(asked, gone, strict=True)):
        return None
    wanted = str(asked[0]) if len(set(asked)) == 1 else ",".join(map(str, asked))
    return (
        f"--r {wanted} is more than can merge: of {merges[0]['before']} tokens (length {length}) the layers remove "
        f"{', '.join(map(str, gone))}, which leaves {merges[-1]['after']}"
    )


def rival_unfit(trained: Trained | None, remedy: str) -> str | None:
    """A line where the unmerged model that merging is compared with has weights that are not meant to run unmerged.

    Args:
        remedy: how to compare with the model that they were distilled from.
    """
    if trained is None or not trained.needs_merging:
        return None
    cost = "" if trained.unmerged is None else f" ({change(100 * trained.unmerged)})"
    return (
        f"the unmerged model here is not what these weights are for{cost}: hold the merged one against the model that "
        f"they were distilled from, {remedy}"
    )


def stranger(trained: Trained | None, name: str, weights: str) -> str | None:
    """A line where weights were distilled from another model than the one that they are compared with.

    Args:
        trained: what the weights were trained for; None, or one that names no teacher, has nothing to tell.
        name, weights: of the model that they are compared with, and the SHA-256 of its weights.
    """
    if trained is None or trained.teacher in (None, weights):
        return None
    return (
        f"these weights were distilled from another model than {name}: the changes are against a stranger; --original "
        "names the model that they were distilled from"
    )


def own_rival(trained: Trained | None) -> str | None:
    """A line where weights that were trained for merging are compared with themselves unmerged; None of all others.

    No user of such weights would otherwise run them unmerged, but the model that they were distilled from.
    """
    if trained is None:
        return None
    return rival_unfit(trained, "named by --original; no change is told from them") or (
        "unmerged are the same weights here; --original compares with the model that they were distilled from"
    )


def large(cost: CostReport) -> str | None:
    """A line on an error that rises by more than :data:`LARGE` per cent; None where it does not."""
    for metric, name in _NAMES.items():
        moved = cost.change_percent(metric)
        if moved == moved:  # the first metric that compares decides
            if moved <= LARGE:
                return None
            return (
                f"the {name} rises by {moved:.0f} %: take a smaller --ratio or --r (--threshold: a larger one), or let "
                "tsmerge tune find the fastest setting within a budget"
            )
    return None
