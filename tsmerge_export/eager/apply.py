"""Merging inside an eager model: applied by hooks, taken off again without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from torch import nn

from tsmerge_export import families
from tsmerge_export.console.notes import note
from tsmerge_export.eager.default import settle
from tsmerge_export.eager.trained import filled, fitting, remark
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.families.base import Family
from tsmerge_export.merge.applied import APPLIED, run_of
from tsmerge_export.merge.plan import MergeStep, make_plan
from tsmerge_export.merge.run import MergeRun
from tsmerge_export.settings.config import MergeConfig

ModelT = TypeVar("ModelT")


def apply(model: ModelT, merge: MergeConfig | None = None) -> ModelT:
    """Make an eager model merge its tokens. Applying again replaces the settings; the weights are untouched.

    Args:
        model: a module of a known family, or a ``chronos-forecasting`` pipeline around one.
        merge: the settings; ``method="none"`` leaves the model as it is; None is what an export without a setting
            merges: what the weights were trained for, else a default, see :mod:`tsmerge_export.eager.default`.

    Returns:
        The same object.

    Raises:
        UnsupportedError: no known family. UsageError: a layer that the model does not have.

    Warns:
        Note: the weights were trained for other settings.
    """
    _tell(model, merge)
    return _apply(model, merge)


def _apply(model: ModelT, merge: MergeConfig | None) -> ModelT:
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
    """The steps of a model of a family, by layer.

    Raises:
        UsageError: as :func:`~tsmerge_export.merge.plan.make_plan`. UnsupportedError: rows would end in padding, and
            the family cannot hide it.
    """
    points = family.merge_points(model)
    plan = make_plan(
        merge, points.count, protect_first=points.protect_first, protect_last=points.protect_last
    )
    if not family.hides_padding and any(step.pads for step in plan.values()):
        raise UnsupportedError(
            f"--per-series: {family.name} has no mask for the padding that shorter series end in; leave it out"
        )
    return plan


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


def merging(model: object, merge: MergeConfig | None = None) -> AbstractContextManager[MergeRun]:
    """``with merging(model, merge) as run:`` merge inside the block, then restore what was applied before.

    Args:
        model, merge: as for :func:`apply`.

    Returns:
        Yields the :class:`~tsmerge_export.merge.run.MergeRun`: its ``steps`` tell what the last forward merged.

    Warns:
        Note: the weights were trained for other settings.
    """
    _tell(model, merge)
    return merged_inside(model, merge)


def _tell(model: object, merge: MergeConfig | None) -> None:
    """Warn of settings that the weights were not trained for, in the name of the caller's caller."""
    if merge is None:
        return
    family, core = families.for_model(model)
    trained = fitting(family, core)
    said = None if trained is None else remark(filled(merge, trained), trained, family, core)
    if said is not None:
        note(said, above=1)


@contextmanager
def merged_inside(model: object, merge: MergeConfig | None) -> Iterator[MergeRun]:
    """:func:`merging` without a word on what the weights were trained for: for those that compare settings."""
    _, core = families.for_model(model)
    with _bare(core):
        try:
            _apply(model, merge)
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
