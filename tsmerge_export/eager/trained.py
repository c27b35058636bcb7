"""A setting held against the one that a checkpoint's weights were trained for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from torch import nn

from tsmerge_export.console.figures import change
from tsmerge_export.errors import UsageError
from tsmerge_export.families.base import Family, MergePoints
from tsmerge_export.families.trained import trained_of
from tsmerge_export.merge.plan import make_plan
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.precision import FLOAT32, FP32, Precision
from tsmerge_export.settings.run_time import MOST_DENOMINATOR, RunTime
from tsmerge_export.settings.trained import KEY, Trained


def fitting(family: Family, model: nn.Module) -> Trained | None:
    """What the weights were trained for, which this model can merge by; None where the config names nothing.

    Raises:
        UsageError: the config's entry cannot be read, or names layers that the model does not have.
    """
    trained = trained_of(family, model)
    if trained is None:
        return None
    points = family.merge_points(model)
    try:
        for merge in trained.settings():
            if not _plan(merge, points):
                raise UsageError(points.reason or "merges at no layer of this model")
    except UsageError as error:
        raise UsageError(f"config.json: {KEY}.merge: {error}") from None
    return trained


def filled(merge: MergeConfig, trained: Trained) -> MergeConfig:
    """The amount of the weights' own setting in the place of one that is left open, where the method is theirs."""
    own = trained.merge
    if not merge.open or merge.method != own.method:
        return merge
    if merge.at_run_time:
        ratio = own.default_ratio or own.ratio
        if (
            not isinstance(ratio, Fraction)
            or ratio.denominator > MOST_DENOMINATOR
            or own.schedule == "linear"
        ):
            return merge
        return replace(merge, ratio=RunTime(ratio))
    return replace(merge, ratio=own.ratio, r=own.r, schedule=merge.schedule or own.schedule)


def remark(merge: MergeConfig, trained: Trained, family: Family, model: nn.Module) -> str | None:
    """What to know of merging these weights by ``merge``, a line; None where they were trained for it."""
    if not merge.active:
        return unmerged_note(trained) if trained.needs_merging else None
    points = family.merge_points(model)
    if merge.default_ratio is not None:
        merge = merge.fixed(merge.default_ratio)
    if not merge.open and any(_alike(merge, own, points) for own in trained.settings()):
        return None
    return f"these weights were trained for {trained.describe()}; by other settings their error may be larger"


def unmerged_note(trained: Trained) -> str:
    """What it costs to run weights unmerged that were trained to merge, a line."""
    cost = (
        "may cost much (it was not measured)"
        if trained.unmerged is None
        else f"cost {change(100 * trained.unmerged)} (their loss, measured on validation data)"
    )
    return (
        f"unmerged, these weights {cost}: they were trained for {trained.describe()}; leave --merge out to merge like "
        "that"
    )


def settle_precision(
    asked: Precision | None, trained: Trained | None, possible: Callable[[Precision], bool]
) -> tuple[Precision, str | None]:
    """In which precision files are made, and a line where the weights were trained for one.

    Args:
        asked: None is what the weights were trained for, else float32. trained: what that is, where it is known.
        possible: whether files can be in a precision.
    """
    own = FP32 if trained is None else trained.precision
    if own == FP32 or (asked is not None and asked.kind == own):
        return asked or FLOAT32, None
    if asked is not None:
        return (
            asked,
            f"these weights were trained for files in {own}; in {asked.kind} their error may be larger",
        )
    if not possible(Precision(own)):
        return (
            FLOAT32,
            f"these weights were trained for files in {own}, which this target has none of: {FP32} instead",
        )
    return Precision(own), f"files in {own}, as this checkpoint was trained for; --precision to choose"


def _alike(one: MergeConfig, other: MergeConfig, points: MergePoints) -> bool:
    """Whether two settings do the same in a model with these points."""
    general = [(merge.positions, merge.metric, merge.prop_attn) for merge in (one, other)]
    return general[0] == general[1] and _plan(one, points) == _plan(other, points)


def _plan(merge: MergeConfig, points: MergePoints) -> object:
    return make_plan(
        merge, points.count, protect_first=points.protect_first, protect_last=points.protect_last
    )
