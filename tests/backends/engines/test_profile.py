"""Ranges of input shapes."""

from __future__ import annotations

import pytest

from tsmerge_export.backends.engines.profile import make_profile, parse_shapes
from tsmerge_export.errors import UsageError
from tsmerge_export.families.base import TensorSpec

IDS = TensorSpec("ids", "int64", ("batch", "length"))
MASK = TensorSpec("mask", "bool", ("batch", "length"))
FIXED = TensorSpec("static", "float32", ("batch", 3))


def test_parse() -> None:
    assert parse_shapes("ids:1x64,a:b:8x2x3") == {"ids": (1, 64), "a:b": (8, 2, 3)}


@pytest.mark.parametrize(
    "text", ["", "ids", "ids:", "ids:1x", "ids:0x4", "ids:1x-2", ":1x2", "ids:1x2,ids:3x4"]
)
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--opt-shapes"):
        parse_shapes(text, "--opt-shapes")


def test_defaults_are_cut_to_what_the_model_reads() -> None:
    profile = make_profile([IDS, MASK, FIXED], (None, None, None), longest=300)
    assert profile.shapes["ids"] == profile.shapes["mask"] == ((1, 64), (4, 300), (8, 300))
    assert profile.shapes["static"] == ((1, 3), (4, 3), (8, 3))
    assert profile.flag(1) == "ids:4x300,mask:4x300,static:4x3"


def test_given_sizes_hold_for_every_input() -> None:
    profile = make_profile([IDS, MASK], ({"ids": (2, 16)}, None, {"mask": (2, 32)}), longest=512)
    assert profile.shapes["mask"] == ((2, 16), (2, 32), (2, 32))
    assert profile.to_dict()["ids"] == {"min": [2, 16], "opt": [2, 32], "max": [2, 32]}


@pytest.mark.parametrize(
    ("low", "usual", "high", "says"),
    [
        ({"ids": (9, 64)}, {"ids": (4, 64)}, None, "sizes of batch must not fall"),
        ({"ids": (1, 64), "mask": (1, 65)}, None, None, "length is 64 in one input and 65 in mask"),
        (None, None, {"tokens": (1, 2)}, "tokens is not an input; the inputs are ids, mask, static"),
        (None, {"ids": (1, 2, 3)}, None, "ids has 2 dims"),
        (None, None, {"static": (1, 4)}, "a dim of static is 3, not 4"),
    ],
)
def test_contradictions_are_refused(low: object, usual: object, high: object, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make_profile([IDS, MASK, FIXED], (low, usual, high), longest=512)  # type: ignore[arg-type]
