"""A ratio that is chosen when a file runs: the graph's input, which values it may have, and which fraction one means.

Nothing here needs more than the standard library.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from tsmerge_export.errors import UsageError

#: What stands in the place of a ratio that is chosen at run time.
WORD = "runtime"
#: The graph's input, a float32 scalar.
INPUT = "merge_ratio"
#: Among the metadata of a file: the ratio that it was made for, as ``1/4``.
METADATA = "tsmerge.merge_ratio"
#: A value means the nearest fraction with no larger denominator (R14.2 of docs/specification.md), so that every such
#: fraction is meant by the float32 nearest to it (R14.3).
MOST_DENOMINATOR = 1024
#: Values count in steps of this (R14.1).
STEPS = 2**21
MOST = Fraction(1, 2)


@dataclass(frozen=True)
class RunTime:
    """A ratio that is chosen at run time. ``default``: what it is where nobody chooses; None is left to the family."""

    default: Fraction | None = None

    def __str__(self) -> str:
        return WORD if self.default is None else f"{WORD}:{self.default}"


def nearest(value: float) -> Fraction:
    """The fraction that a value of the input means (R14.1 to R14.4), in whole numbers.

    Args:
        value: rounded to float32. NaN and negative numbers count as 0, those above 1/2 as 1/2.
    """
    single = (
        value
        if not math.isfinite(value) or abs(value) > 1
        else struct.unpack("f", struct.pack("f", value))[0]
    )
    cut = 0.0 if not single > 0 else min(single, 0.5)
    m = round(cut * STEPS)  # exact but for the rounding, halves to even
    distances = []
    for d in range(1, MOST_DENOMINATOR + 1):
        n = (m * d + STEPS // 2) // STEPS
        distances.append((abs(n * STEPS - m * d) * MOST_DENOMINATOR // d, d, n))
    _, d, n = min(distances)
    return Fraction(n, d)


def read(value: Any, name: str = "ratio") -> Fraction:
    """What a user gave as a ratio at run time, as the fraction that the graph makes of it.

    Args:
        value: ``"1/4"``, ``"0.25"``, ``"25%"``, a number or a Fraction, from 0 (nothing merges) to 1/2. Of an array of
            one number, that number.
        name: of the argument or flag, for errors.

    Raises:
        UsageError: not a number, or out of range.
    """
    wrong = f"{name} {str(value)[:40]!r} is not a ratio; give a number from 0 (nothing merges) to 1/2, such as 1/4"
    try:
        if isinstance(value, str):
            text = value.strip()
            share, whole = (text[:-1], 100) if text.endswith("%") else (text, 1)
            # Not a Fraction of what may be 1e999999999: that has as many digits.
            number = float(Fraction(share)) if "/" in share and len(share) < 40 else float(share)
            number /= whole
        else:
            number = float(value)
    except (TypeError, ValueError, ArithmeticError):
        raise UsageError(wrong) from None
    if isinstance(value, bool) or not 0 <= number <= MOST:
        raise UsageError(wrong)
    return nearest(number)


def parse_default(text: str) -> RunTime | None:
    """``runtime`` or ``runtime:1/4``; None for any other text.

    Raises:
        UsageError: a default that is not above 0 and at most 1/2, or that no value of the input means.
    """
    from tsmerge_export.settings.parse import parse_ratio

    word, colon, rest = text.strip().partition(":")
    if word.strip().lower() != WORD:
        return None
    if not colon:
        return RunTime()
    default = parse_ratio(rest)
    if default.denominator > MOST_DENOMINATOR:
        raise UsageError(
            f"--ratio {text}: a ratio at run time has a denominator of at most {MOST_DENOMINATOR}; "
            f"the nearest is {nearest(float(default))}"
        )
    return RunTime(default)
