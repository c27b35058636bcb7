"""A checkpoint that says what it was trained for merges like that, and other uses of it are pointed out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import pytest
import torch

import tsmerge_export as tsm
from tests.models import tiny
from tsmerge_export import families
from tsmerge_export.console.notes import Note
from tsmerge_export.eager.default import settle
from tsmerge_export.families.trained import mark
from tsmerge_export.settings.config import AUTO, MergeConfig
from tsmerge_export.settings.trained import Trained

FAMILY = families.get("chronos-bolt")
HALF, TENTH = MergeConfig(ratio="1/2"), MergeConfig(ratio="1/10")
NONE = MergeConfig("none")
ELASTIC = Trained(HALF, (Fraction(0), Fraction(1, 10), Fraction(1, 2)), 0.004)


def bolt(trained: Trained) -> torch.nn.Module:
    model = tiny("chronos-bolt")
    mark(model, trained)
    return model


@contextmanager
def silent() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)
        yield


def removed(model: Any, *merge: MergeConfig | None) -> list[int]:
    """Tokens that each layer removes of the 33 of 256 steps; the last one is protected."""
    with torch.no_grad(), tsm.merging(model, *merge) as run:
        model(torch.randn(1, 256))
        return [int(step.removed) for step in run.steps]


def test_its_own_setting_without_a_word() -> None:
    model = bolt(Trained(MergeConfig(ratio="1/2", layers=(1,)), unmerged=1.04))
    found = settle(None, FAMILY, model)
    assert found.merge == MergeConfig(ratio="1/2", layers=(1,))
    assert found.note == f"merging {found.merge.describe()}, as this checkpoint was trained for"
    with silent():
        assert removed(model) == removed(model, None) == [16]
    # Untrained, the same model merges nothing by itself: it has too few tokens.
    mark(model, None)
    assert removed(model) == []


def test_applied_without_a_setting() -> None:
    model: Any = bolt(Trained(HALF))
    with silent():
        tsm.apply(model)
    from tsmerge_export.eager.apply import current_run

    run = current_run(model)
    assert run is not None
    with torch.no_grad():
        model(torch.randn(1, 256))
    assert [step.removed for step in run.steps] == [16, 8]


@pytest.mark.parametrize("trained", [Trained(HALF), Trained(MergeConfig(r=3, layers=(0,)))])
def test_an_amount_that_is_left_out_is_the_trained_one(trained: Trained) -> None:
    asked = MergeConfig(ratio=AUTO, layers=trained.merge.layers)
    found = settle(asked, FAMILY, bolt(trained))
    assert found.merge == trained.merge
    assert found.note is None
    # Of another method there is none: the family's, and that it was not trained for.
    other = settle(MergeConfig("pitome", ratio=AUTO), FAMILY, bolt(trained))
    assert other.merge == MergeConfig("pitome", ratio="1/10")
    assert other.note is not None
    assert "the default for chronos-bolt" in other.note
    assert f"trained for {trained.describe()}" in other.note


@pytest.mark.parametrize(
    ("trained", "merge"),
    [
        (Trained(HALF), HALF),
        (Trained(HALF), MergeConfig(ratio="1/2", layers=(0, 1))),  # all there are
        (Trained(HALF), MergeConfig(ratio="1/2,1/2")),
        (ELASTIC, TENTH),
        (ELASTIC, HALF),
        (ELASTIC, NONE),
        (Trained(HALF, unmerged=-0.2), NONE),  # measured, and no worse
    ],
)
def test_no_note_where_it_was_trained_for_that(trained: Trained, merge: MergeConfig) -> None:
    model = bolt(trained)
    assert settle(merge, FAMILY, model).note is None
    with silent():
        removed(model, merge)


@pytest.mark.parametrize(
    ("trained", "merge"),
    [
        (Trained(HALF), TENTH),
        (ELASTIC, MergeConfig(ratio="1/4")),
        (ELASTIC, MergeConfig(ratio="1/2,1/10")),  # every step drew one ratio for all layers
        (Trained(HALF), MergeConfig(ratio="1/2", k=2)),
        (Trained(HALF), MergeConfig(ratio="1/2", layers=(0,))),
        (Trained(HALF), MergeConfig(ratio="1/2", positions="compact")),
        (Trained(HALF), MergeConfig(ratio="1/2", prop_attn=True)),
        (Trained(HALF), MergeConfig("dynamic")),
    ],
)
def test_a_note_where_it_was_trained_for_something_else(trained: Trained, merge: MergeConfig) -> None:
    model = bolt(trained)
    found = settle(merge, FAMILY, model)
    assert found.merge == merge
    assert found.note == (
        f"these weights were trained for {trained.describe()}; by other settings their error may be larger"
    )
    with pytest.warns(Note, match="were trained for") as told:
        removed(model, merge)
    assert [one.filename for one in told] == [__file__]


def test_a_warning_with_the_measured_cost_where_weights_run_unmerged() -> None:
    note = settle(NONE, FAMILY, bolt(Trained(HALF, unmerged=1.04))).note
    assert note is not None
    assert note.startswith("unmerged, these weights cost +104.0 % (their loss")
    assert "trained for local k=1 ratio=1/2" in note
    with pytest.warns(Note, match="it was not measured"):
        tsm.apply(bolt(Trained(HALF)), NONE)


def test_internal_comparisons_say_nothing() -> None:
    """Parity and noise run both settings; a note for each would be nobody's."""
    from tsmerge_export.verify.eager import run_eager

    model = bolt(Trained(HALF))
    component = FAMILY.components(model)[0]
    with silent():
        run_eager(component, model, TENTH, component.example(model, 2, 64))


@pytest.mark.parametrize(
    ("merge", "words"),
    [
        (MergeConfig(ratio="1/2", layers=(7,)), "--layers 7 is out of range"),
        (MergeConfig(ratio="1/2,1/4,1/8"), "--ratio lists 3 values, but 2 layers merge"),
    ],
)
def test_what_the_model_cannot_merge_by_names_the_config(merge: MergeConfig, words: str) -> None:
    for asked in (None, HALF, NONE):
        with pytest.raises(tsm.errors.UsageError, match=f"^config.json: tsmerge.merge: {words}"):
            settle(asked, FAMILY, bolt(Trained(merge)))


def test_a_model_without_a_place_to_merge() -> None:
    family, model = families.get("patchtsmixer"), tiny("patchtsmixer")
    mark(model, Trained(HALF))
    with pytest.raises(tsm.errors.UsageError, match=r"^config\.json: tsmerge\.merge: .*mixes patches"):
        settle(None, family, model)
