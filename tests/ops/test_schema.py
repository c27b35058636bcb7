"""The schema refuses what the bodies could not run."""

from __future__ import annotations

from typing import Any

import pytest

from tsmerge_export import ops
from tsmerge_export.errors import UnsupportedError, UsageError

GOOD = {
    "k": 1,
    "r": 0,
    "ratio_num": 1,
    "ratio_den": 4,
    "min_tokens": 4,
    "protect_first": 0,
    "protect_last": 1,
}

DYNAMIC = {"k": 1, "threshold": 0.9, "min_tokens": 4, "protect_first": 0, "protect_last": 1}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": -1}, "k=-1 must be a whole number from 0"),
        ({"r": 3}, "r and ratio_num exclude each other"),
        ({"ratio_den": 0}, "ratio_den=0 must be"),
        ({"ratio_num": 3}, "ratio 3/4 must be at most 1/2"),
        ({"min_tokens": True}, "min_tokens=True must be"),
        ({"protect_last": 1.0}, "protect_last=1.0 must be"),
        ({"protect_first": None}, "needs the attribute 'protect_first'"),
        ({"threshold": 1}, "no attribute 'threshold'"),
        ({"causal": 1}, "causal needs k = 1 and protect_first >= 1"),
        ({"causal": 1, "k": 2, "protect_first": 1}, "causal needs k = 1"),
        ({"similarity": 3}, "similarity=3 must be a whole number from 0 to 2"),
    ],
)
def test_bad_attributes_are_named(change: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ops.function("LocalMerge", {**GOOD, **change})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threshold": 1.5}, "threshold=1.5 must be a number from -1 to 1"),
        ({"threshold": float("nan")}, "threshold=nan must be"),
        ({"threshold": None}, "needs the attribute 'threshold'"),
        ({"r": 1}, "no attribute 'r'"),
    ],
)
def test_bad_attributes_of_dynamic_merging_are_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ops.function("DynamicMerge", {**DYNAMIC, **change})


def test_bad_shares_to_prune_are_named() -> None:
    good = {name: value for name, value in GOOD.items() if name != "k"} | {"prune_num": 1, "prune_den": 2}
    ops.function("SsmMerge", good)
    with pytest.raises(UsageError, match="share to prune must be at most 1"):
        ops.function("SsmMerge", {**good, "prune_num": 3})
    with pytest.raises(UsageError, match="prune_den=0 must be"):
        ops.function("SsmMerge", {**good, "prune_den": 0})


def test_unknown_operator_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        UnsupportedError, match="has: LocalMerge, DynamicMerge, SeriesMerge, PitomeMerge, SsmMerge, Unmerge"
    ):
        ops.variant_key("Prune", {})


def test_functions_follow_the_schema() -> None:
    for name, attributes in (("LocalMerge", GOOD), ("DynamicMerge", DYNAMIC), ("Unmerge", {})):
        function, schema = ops.function(name, attributes, opset=23), ops.schema(name)
        assert list(function.input) == [value.name for value in schema.inputs]
        assert list(function.output) == [value.name for value in schema.outputs]
        assert list(function.attribute) == [attribute.name for attribute in schema.attributes]
        assert [(entry.domain, entry.version) for entry in function.opset_import] == [("", 23)]
