"""At which ratios a file is proved whose ratio is chosen when it runs: its own on every series, others on some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify.corpus import Case

#: Both ends, and what lies between; so many beside the default.
_OTHERS = (Fraction(0), Fraction(1, 2), Fraction(1, 3), Fraction(1, 10), Fraction(1, 5))
_BESIDE = 4
# One case in so many at each of the others: prime to the number of kinds of series, so that they take turns.
_EVERY = 7


def others(default: Fraction) -> list[Fraction]:
    """The ratios beside the default that parity runs at; 0 and 1/2 are among them, or are it."""
    return [ratio for ratio in _OTHERS if ratio != default][:_BESIDE]


def spread(cases: Sequence[Case], merge: MergeConfig) -> list[Case]:
    """The cases, and behind them some of them at other ratios, where the ratio is chosen at run time."""
    if merge.default_ratio is None or not cases:
        return list(cases)
    return [
        *cases,
        *(
            replace(case, ratio=ratio)
            for turn, ratio in enumerate(others(merge.default_ratio))
            for case in cases[turn % len(cases) :: _EVERY]
        ),
    ]
