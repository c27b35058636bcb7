"""What a checkpoint says it was trained for: exact after a round trip, and hostile until proved otherwise."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest

from tsmerge_export.errors import UsageError
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.trained import Trained, trained_in

HALF = MergeConfig("local", k=1, ratio="1/2")
GOOD = Trained(HALF, (Fraction(0), Fraction(1, 10), Fraction(1, 2)), 0.02)


@pytest.mark.parametrize(
    "trained",
    [
        GOOD,
        Trained(HALF),
        Trained(MergeConfig("dynamic", threshold=0.8), unmerged=1.04),
        Trained(MergeConfig(r="3,0")),
        Trained(HALF, teacher="0123456789abcdef" * 4),
    ],
)
def test_round_trip_through_json(trained: Trained) -> None:
    again = trained_in(json.loads(json.dumps({"tsmerge": trained.to_dict(), "d_model": 3})))
    assert again == trained


def test_nothing_said() -> None:
    assert trained_in({}) is None
    assert trained_in({"tsmerge": None}) is None


def test_the_settings_that_were_trained() -> None:
    assert GOOD.settings() == (HALF, MergeConfig("local", k=1, ratio="1/10"))
    assert Trained(HALF).settings() == (HALF,)
    # In whatever order they were given.
    assert Trained(HALF, (Fraction(1, 2), Fraction(0), Fraction(1, 2), Fraction(1, 10)), 0.02) == GOOD


def test_which_weights_need_merging() -> None:
    assert Trained(HALF).needs_merging  # nobody measured
    assert Trained(HALF, unmerged=1.04).needs_merging
    assert not Trained(HALF, unmerged=-0.001).needs_merging
    assert not Trained(HALF, (Fraction(0), Fraction(1, 2)), unmerged=0.3).needs_merging
    assert Trained(HALF, (Fraction(1, 4), Fraction(1, 2)), unmerged=0.3).needs_merging


MERGE = HALF.to_dict()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ([], r"tsmerge is \[\], expected an object"),
        ({}, r"tsmerge\.merge is missing"),
        ({"merge": "local"}, r"tsmerge\.merge is 'local', expected an object"),
        ({"merge": MERGE, "elastic": "1/2"}, r"tsmerge\.elastic is '1/2', expected a list"),
        ({"merge": MERGE, "elastic": [0.5]}, r"tsmerge\.elastic\[0\] is 0\.5, expected text"),
        ({"merge": MERGE, "elastic": ["1/2", "3/4"]}, r"--ratio 3/4 is out of range"),
        ({"merge": MERGE, "elastic": ["1/2", "1e-999999999"]}, "is not a number"),
        ({"merge": MERGE, "elastic": ["1/4"]}, "one ratio for all layers, which is among the elastic ones"),
        ({"merge": MERGE, "unmerged": float("nan")}, r"tsmerge\.unmerged is nan, expected a number or null"),
        ({"merge": MERGE, "unmerged": True}, r"tsmerge\.unmerged is True"),
        ({"merge": MERGE, "teacher": "amazon/x"}, "teacher is no SHA-256"),
        ({"merge": MERGE, "teacher": "A" * 64}, "teacher is no SHA-256"),
        ({"merge": MERGE, "teacher": 7}, r"tsmerge\.teacher is 7, expected text or null"),
        ({"merge": {"method": "none"}}, "a method that merges"),
        ({"merge": {"method": "local", "ratio": "auto"}}, "has no ratio"),
        ({"merge": {"method": ["local"]}}, "merge settings cannot be read"),
        ({"merge": {"method": "from-a-plugin"}}, "not a known method"),
        ({"merge": MERGE | {"ratio": "7/8"}}, "out of range"),
        ({"merge": MERGE | {"layers": [[0]]}}, "--layers"),
        ({"merge": MERGE | {"causal": {}}}, "--causal is {}"),
        ({"merge": MERGE | {"theirs": 1}}, "unknown merge setting 'theirs'"),
    ],
)  # fmt: skip
def test_a_hostile_entry_is_one_line_that_names_file_and_key(raw: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        trained_in({"tsmerge": raw}, "model/config.json")
    said = str(caught.value)
    assert said.startswith("model/config.json: tsmerge")
    assert "\n" not in said
    assert said.endswith("take that key out to use the weights without it")


def test_what_later_versions_add_is_left_alone() -> None:
    assert trained_in({"tsmerge": {**GOOD.to_dict(), "recipe": "amazon/x"}}) == GOOD


def test_entries_from_before_teachers_were_named_still_open() -> None:
    before = GOOD.to_dict()
    assert before.pop("teacher") is None
    assert trained_in({"tsmerge": before}) == GOOD
