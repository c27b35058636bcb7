"""Merging inside an eager model: applied by hooks, taken off again without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import nn

from tsmerge_export import families
from tsmerge_export.eager.default import settle
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.families.base import Family
from tsmerge_export.merge.applied import APPLIED, run_of
from tsmerge_export.merge.plan import MergeStep, make_plan
from tsmerge_export.merge.run import MergeRun
from tsmerge_export.settings.config import MergeConfig

ModelT = TypeVar("ModelT")


def apply(model: ModelT, merge: MergeConfig | None) -> ModelT:
    """Make an eager model merge its tokens. Applying again replaces the settings; the weights are untouched.

    Args:
        model: a module of a known family, or a ``chronos-forecasting`` pipeline around one.
        merge: the settings; ``method="none"`` leaves the model as it is; None is what an export without a setting
            merges, see :mod:`tsmerge_export.eager.default`.

    Returns:
        The same object.

    Raises:
        UnsupportedError: no known family. UsageError: a layer that the model does not have.
    """
    family, core = families.for_model(model)
    # Everything that can fail comes first: a refused config leaves the model as it was.
    if merge is None or merge.open:
        with _bare(core):
            merge = settle(merge, family, core).merge
    refuse_where_nothing_merges(family, core, merge)
    plan = plan_of(family, core, merge)
    run = MergeRun(plan, merge.positions, metric=merge.metric, prop_attn=merge.prop_attn)
    handles = family.instrument(core, run) if plan else []
    remove(model)
    if plan:
        APPLIED[core] = (run, handles)
    return model


def plan_of(family: Family, model: nn.Module, merge: MergeConfig) -> dict[int, MergeStep]:
    """The steps of a model of a family, by layer. Raises UsageError as :func:`~tsmerge_export.merge.plan.make_plan`."""
    points = family.merge_points(model)
    return make_plan(
        merge, points.count, protect_first=points.protect_first, protect_last=points.protect_last
    )


def refuse_where_nothing_merges(family: Family, model: nn.Module, merge: MergeConfig) -> None:
    """Raises UnsupportedError, with the family's reason, for merging in a model that has no place for it."""
    points = family.merge_points(model)
    if merge.active and points.count == 0:
        raise UnsupportedError(
            f"{family.name}: no token can be merged: {points.reason}; use --merge none to export it as it is"
        )


def remove(model: ModelT) -> ModelT:
    """Take merging off again; does nothing where none is applied. Returns the same object."""
    _, core = families.for_model(model)
    _, handles = APPLIED.pop(core, (None, ()))
    for handle in handles:
        handle.remove()
    return model


def current_run(model: object) -> MergeRun | None:
    """The run of a model that merging is applied to, else None."""
    _, core = families.for_model(model)
    return run_of(core)


@contextmanager
def merging(model: object, merge: MergeConfig | None) -> Iterator[MergeRun]:
    """``with merging(model, merge) as run:`` merge inside the block, then restore what was applied before.

    Yields:
        The :class:`~tsmerge_export.merge.run.MergeRun`: its ``steps`` tell what the last forward merged.
    """
    _, core = families.for_model(model)
    with _bare(core):
        try:
            apply(model, merge)
            yield current_run(model) or MergeRun({})
        finally:
            remove(model)


@contextmanager
def _bare(core: nn.Module) -> Iterator[None]:
    """Take off what is applied to a module, and put it back."""
    saved = APPLIED.pop(core, None)
    for handle in saved[1] if saved else []:
        handle.remove()
    try:
        yield
    finally:
        if saved is not None:
            family, _ = families.for_model(core)
            APPLIED[core] = (saved[0], family.instrument(core, saved[0]))
