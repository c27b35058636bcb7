"""How much merges where nobody says how much. The only place that such an amount comes from.

A family declares it as data (:class:`~tsmerge_export.families.base.Default`): the share of the tokens that all merging
layers together leave at least, and whether its models merge at all unless they are told to. From that follows the ratio
of one layer, for a deep model a smaller one than for a shallow one. Nothing is measured on data, so that the same model
has the same default everywhere; what merging costs on data is told by the verdicts, `tsmerge advise`, `tsmerge tune`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from torch import nn

from tsmerge_export.eager.count import tokens_at
from tsmerge_export.eager.trained import filled, fitting, remark
from tsmerge_export.families.base import PATCHES, Default, Family
from tsmerge_export.settings.config import AUTO, MergeConfig
from tsmerge_export.settings.run_time import RunTime

#: No layer removes more than this by default.
MOST = Fraction(1, 10)
#: With fewer tokens in front of the first merge than this, an amount that is safe saves less time than merging takes:
#: in the crossover of docs/tune.md a tenth per layer pays at none of its lengths, up to 129 tokens of a small model.
LEAST_TOKENS = 128
_CHOOSE = "--ratio to choose"


@dataclass(frozen=True)
class Settled:
    """``merge`` without an open end, and ``note``: one line that says where it comes from, or that the model's weights
    were trained for another; None where there is nothing to say."""

    merge: MergeConfig
    note: str | None = None


def ratio_of(kept: Fraction, layers: int) -> Fraction:
    """The largest 1/n up to :data:`MOST` of which ``layers`` in a row leave at least ``kept`` of the tokens."""
    n = MOST.denominator
    while (1 - Fraction(1, n)) ** layers < kept:
        n += 1
    return Fraction(1, n)


def settle(merge: MergeConfig | None, family: Family, model: nn.Module) -> Settled:
    """The setting for a model of a family.

    Args:
        merge: None for what the weights were trained for, else for the family's default, which may be not to merge.
            ``ratio="auto"`` merges in any case, and takes the amount from there. Anything else stays as it is.
        model: the family's module, with no merging applied.

    Raises:
        UsageError: the model's config says that it was trained for what it cannot merge by.
    """
    trained = fitting(family, model)
    if trained is None:
        return _settle_untrained(merge, family, model)
    if merge is None:
        return Settled(
            trained.merge, f"merging {trained.merge.describe()}, as this checkpoint was trained for"
        )
    found = _settle_untrained(filled(merge, trained), family, model)
    notes = [note for note in (found.note, remark(found.merge, trained, family, model)) if note is not None]
    return Settled(found.merge, "; ".join(notes) or None)


def _settle_untrained(merge: MergeConfig | None, family: Family, model: nn.Module) -> Settled:
    if merge is not None and not merge.open:
        return Settled(merge)
    points = family.merge_points(model)
    default = family.default
    if merge is None:
        against = _against(family, model, points.count, default)
        if against is not None:
            return Settled(MergeConfig("none"), against)
        merge = MergeConfig(ratio=AUTO)
    return settle_layers(merge, default, points.count, family.name)


def settle_layers(merge: MergeConfig | None, default: Default, points: int, name: str) -> Settled:
    """:func:`settle` for a model of which only the number of merge points is known; it merges in any case."""
    if merge is None:
        merge = MergeConfig(ratio=AUTO)
    if not merge.open:
        return Settled(merge)
    ratio = ratio_of(default.kept, len(merge.select_layers(points)))
    chosen = RunTime(ratio) if merge.at_run_time else ratio
    when = ", where a run chooses none" if merge.at_run_time else ""
    return Settled(
        replace(merge, ratio=chosen), f"merging {ratio} per layer{when}: the default for {name}; {_CHOOSE}"
    )


#: Of a model of no family: a file.
FILES = PATCHES


def _against(family: Family, model: nn.Module, points: int, default: Default) -> str | None:
    """Why not to merge by default, in one line; None where nothing speaks against it."""
    if points == 0:
        return f"not merging: {family.merge_points(model).reason}"
    if not default.merges:
        return f"not merging: the default for {family.name}, {default.reason}; --ratio to merge"
    found = family.merge_points(model)
    context = family.context(model)
    component = family.components(model)[0]
    tokens = tokens_at(family, component, model, component.example(model, 1, context))
    free = tokens - found.protect_first - found.protect_last
    if free < LEAST_TOKENS:
        return (
            f"not merging: the default for {family.name} with {free} tokens of {context} steps, too few for a safe "
            "amount to pay; --ratio to merge"
        )
    return None
