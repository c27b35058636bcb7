"""What is said beside the figures: an r beyond what can merge, and an error that is large."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tests.verify.reports import report
from tsmerge_export.verify.remarks import capped, large


def merges(r: int, *counts: int) -> list[dict[str, Any]]:
    return [{"before": before, "after": after, "attributes": {"r": r}} for before, after in pairwise(counts)]


def test_what_can_merge_is_said() -> None:
    assert capped(merges(16, 65, 49, 33, 17), 1024) is None
    assert capped(merges(16, 65, 49, 33, 17, 9), 1024) == (
        "--r 16 is more than can merge: of 65 tokens (length 1024) the layers remove 16, 16, 16, 8, which leaves 9"
    )
    several = merges(40, 65, 33)
    several += merges(4, 33, 29)
    assert capped(several, 512) == (
        "--r 40,4 is more than can merge: of 65 tokens (length 512) the layers remove 32, 4, which leaves 29"
    )


@pytest.mark.parametrize(
    ("after", "words"), [([1.04, 1.2, 1.0], None), ([1.06, 1.2, 1.1], "rises by 10 %: take a sm")]
)
def test_a_large_error_names_what_to_do(after: list[float], words: str | None) -> None:
    found = large(report([1.0, 1.0, 1.0], after))
    assert found is None if words is None else found is not None and words in found


def test_no_error_to_compare_with_is_not_large() -> None:
    assert large(report([0.0], [1.0])) is None
