"""Changes and ratios in words: no sign on nothing, and the same band of noise on both sides."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsmerge_export.console import figures


@pytest.mark.parametrize(
    ("percent", "words"),
    [
        (None, "-"), (math.nan, "-"), (0.0, "0.0 %"), (-0.0, "0.0 %"), (-0.04, "0.0 %"), (0.04, "0.0 %"),
        (-0.06, "-0.1 %"), (12.34, "+12.3 %"), (-4.2, "-4.2 %"),
    ],
)  # fmt: skip
def test_changes(percent: float | None, words: str) -> None:
    assert figures.change(percent) == words


@given(st.floats(0.01, 100))
def test_better_and_worse_are_told_alike(ratio: float) -> None:
    """The words of a ratio and of its inverse differ in the direction alone, and never say 1.00x or 0 %."""
    there, back = figures.speed(ratio), figures.speed(1 / ratio)
    assert there.replace("faster", "slower") == back.replace("faster", "slower")
    assert not re.search(r"(?<!\d)1\.00x", f"{there} {figures.fewer(ratio)}")
    said = figures.pays(ratio, "here")
    assert said is None or " 0 % longer" not in said
    assert (said is None) == ("faster" in there and "slower" not in there)
    assert (said is not None and "does not pay" in said) == (there.endswith("x slower"))


def test_a_ratio_at_the_edge() -> None:
    assert figures.speed(1.049) == figures.speed(1 / 1.049) == "no faster, no slower"
    assert figures.speed(1.05) == "1.05x faster"
    assert figures.speed(1 / 1.06) == "1.06x slower"
    assert "takes 6 % longer" in str(figures.pays(1 / 1.06, "here"))
    assert figures.fewer(1.0) == figures.fewer(0.9999) == "as many"
    assert figures.fewer(2) == "2.00x fewer"
    assert figures.fewer(0.5) == "2.00x more"
