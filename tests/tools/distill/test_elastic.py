"""Which ratio a step of elastic weights draws: half alike, half by what validation finds behind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from tests.models import tiny
from tests.tools.distill.subjects import HALF, QUICK, table
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.distill import train
from tsmerge_export.tools.distill.distill import distill


@pytest.mark.parametrize(
    ("increases", "shares"),
    {
        "alike": ([1.5, 1.5], [1 / 2, 1 / 2]),
        "one of four is behind": ([-1.0, -1.0, -1.0, 3.0], [1 / 8, 1 / 8, 1 / 8, 5 / 8]),
        "in proportion": ([0.0, 2.0, 6.0], [1 / 6, 1 / 6 + 1 / 8, 1 / 6 + 3 / 8]),
        "no number counts as the largest": ([0.0, 4.0, math.inf], [1 / 6, 1 / 6 + 1 / 4, 1 / 6 + 1 / 4]),
        "no number at all": ([math.inf, math.nan], [1 / 2, 1 / 2]),
    }.values(),
)
def test_half_of_the_draws_are_alike_and_half_follow_what_is_behind(
    increases: Sequence[float], shares: Sequence[float]
) -> None:
    assert train.drawn_shares(increases) == pytest.approx(shares, abs=1e-12)


def test_steps_draw_by_the_last_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the second validation half of the tokens is behind, after it the unmerged end is."""
    drawn: list[bool] = []
    inside = train.merged_inside

    def watched(model: Any, merge: MergeConfig) -> Any:
        drawn.append(merge.active)
        return inside(model, merge)

    found = iter([0.0, 5.0, 5.0, 0.0, 0.0, 0.0])
    monkeypatch.setattr(train, "increases", lambda task, merge: next(found))
    monkeypatch.setattr(train, "merged_inside", watched)
    monkeypatch.setattr(train, "_ALIKE", 0.0)
    settings = {**QUICK, "steps": 6, "validations": 2}
    distill(tiny("chronos-bolt", seed=0), HALF, data=table(), elastic="0,1/2", **settings)
    assert drawn == [True] * 3 + [False] * 3
