"""Tolerances stay honest."""

from __future__ import annotations

import pytest

from tsmerge_export.errors import UsageError
from tsmerge_export.verify import tolerances
from tsmerge_export.verify.tolerances import Tolerance, end_to_end


def test_every_number_in_the_table_is_strict() -> None:
    table = [*tolerances.PER_OP.values(), *tolerances.END_TO_END.values(), end_to_end("unheard-of")]
    assert all(0 <= t.atol < tolerances.LIMIT and 0 <= t.rtol < tolerances.LIMIT for t in table)
    for (_, dtype), t in tolerances.END_TO_END.items():
        assert dtype != "float32" or t.atol + t.rtol <= 1e-4
    assert tolerances.SCORE_NOISE <= 1e-5


def test_the_users_numbers_win_one_by_one() -> None:
    default = end_to_end("chronos-bolt")
    assert end_to_end("chronos-bolt", atol=1e-3) == Tolerance(1e-3, default.rtol)
    assert end_to_end("chronos-bolt", rtol=0.0) == Tolerance(default.atol, 0.0)


@pytest.mark.parametrize("value", [0.1, 1.0, -1e-9, float("nan"), float("inf")])
@pytest.mark.parametrize("flag", ["atol", "rtol"])
def test_useless_numbers_are_refused(flag: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"--{flag}"):
        end_to_end("chronos-bolt", **{flag: value})
