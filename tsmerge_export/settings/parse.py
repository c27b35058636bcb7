"""Reads the values of merge settings: exact, checked, with errors that name the flag."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeVar

from tsmerge_export.errors import UsageError

_MAX_RATIO = Fraction(1, 2)
#: Shares have no larger one: an operator's attributes hold both parts.
MAX_DENOMINATOR = 1_000_000
# Of a number as text. 1e-999999999, a few characters, is a fraction of as many digits.
_MAX_TEXT = 40
_MAX_POWER = 40

ValueT = TypeVar("ValueT")


def exact(value: str | float | Fraction) -> Fraction:
    """A number as it is written: ``"1/4"``, ``0.1``. Raises ValueError, ZeroDivisionError."""
    if isinstance(value, Fraction):
        return value
    # str() first: Fraction(0.1) would be the binary neighbour of 1/10.
    text = str(value).strip().lower()
    power = text.partition("e")[2]
    if len(text) > _MAX_TEXT or (power and abs(int(power)) > _MAX_POWER):
        raise ValueError(text)
    return Fraction(text)


def parse_ratio(value: str | float | Fraction) -> Fraction:
    """Read a merge ratio as an exact fraction, so that no two runtimes round it differently.

    Args:
        value: ``"1/4"``, ``"0.25"``, ``"25%"``, a float or a Fraction; the share of tokens to remove.

    Returns:
        The ratio in lowest terms, 0 < ratio <= 1/2.

    Raises:
        UsageError: not a number, or outside (0, 1/2] (one merge step removes at most every second token).
    """
    try:
        if isinstance(value, str) and value.strip().endswith("%"):
            ratio = exact(value.strip()[:-1]) / 100
        else:
            ratio = exact(value)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"--ratio {value!r} is not a number; write it as 1/4, 0.25 or 25%") from None
    if not 0 < ratio <= _MAX_RATIO:
        raise UsageError(
            f"--ratio {value} is out of range; it must be above 0 and at most 1/2 (every second token)"
        )
    if ratio.denominator > MAX_DENOMINATOR:
        raise UsageError(
            f"--ratio {value} has more than six decimals; write it as a simple fraction such as 1/3"
        )
    return ratio


def parse_k(value: str | int) -> int | None:
    """Read the neighbourhood: a whole number >= 1, or ``"global"`` (returned as None) for all tokens."""
    if isinstance(value, str) and value.strip().lower() in ("global", "all"):
        return None
    try:
        k = int(value)
    except (TypeError, ValueError):
        raise UsageError(f"--k {value!r} is not a whole number; give 1, 2, ... or 'global'") from None
    if k < 1 or (not isinstance(value, str) and k != value):
        raise UsageError(f"--k {value} is out of range; it must be a whole number of at least 1, or 'global'")
    return k


def whole(flag: str, value: Any, least: int) -> int:
    """A whole number of at least ``least``; raises UsageError that names ``flag``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{flag} {value} is not a whole number of at least {least}")
    return value


def number(flag: str, value: Any, least: float, most: float) -> float:
    """A finite number from ``least`` to ``most``; raises UsageError that names ``flag``."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise UsageError(f"{flag} {value} is not a number") from None
    if isinstance(value, bool) or not math.isfinite(found) or not least <= found <= most:
        raise UsageError(f"{flag} {value} is out of range; it must be from {least:g} to {most:g}")
    return found


def per_layer(value: Any, read: Callable[[Any], ValueT]) -> ValueT | tuple[ValueT, ...]:
    """One value for all layers, or one for each: a sequence, or text with commas."""
    if isinstance(value, str) and "," in value:
        value = value.split(",")
    if isinstance(value, list | tuple):
        return tuple(read(item) for item in value)
    return read(value)
