"""Types of flags: what reads a value from the command line, in words that say what is wrong with it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

_UNITS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


#: What runtimes and formats hold a number in is often no wider.
_MOST = 2**31 - 1


def whole(least: int) -> Callable[[str], int]:
    """Type of a flag: a whole number of at least ``least``, and of at most 32 bits."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        if value > _MOST:
            raise argparse.ArgumentTypeError(f"{text!r} is larger than {_MOST}")
        return value

    return parse


def names(text: str, what: str = "column") -> tuple[str, ...]:
    """Type of ``--column`` and the like: names with commas between them."""
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} names no {what}")
    return found


def targets(text: str) -> tuple[str, ...]:
    """Type of ``--targets``: a name that stands there twice was meant to be another."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    twice = next((part for part in parts if parts.count(part) > 1), None)
    if twice is not None:
        raise argparse.ArgumentTypeError(f"{twice!r} is there twice; name each column once")
    return names(text)


def modules(text: str) -> tuple[str, ...]:
    """Type of ``--keep-precise``."""
    return names(text, "module or node")


def tolerance(limit: float) -> Callable[[str], float]:
    """Type of ``--atol`` and ``--rtol``: a number from 0 to below ``limit``."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < limit:  # NaN fails too
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to below {limit:g}")
        return value

    return parse


def layers(text: str) -> tuple[int, ...]:
    """Type of ``--layers``: layer indices with commas between them."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of layer indices such as 0,1,2") from None


def levels(text: str) -> tuple[float, ...]:
    """Type of ``--quantiles``: levels from 0 to 1 with commas between them."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = (math.nan,)
    if not all(0 <= level <= 1 for level in found):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of levels from 0 to 1 such as 0.1,0.5,0.9")
    return found


def seconds(text: str) -> float:
    """Type of ``--budget``: seconds of a time such as 30s, 10min or 1h."""
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = text[len(digits) :].strip() or "min"
    try:
        value = float(digits) * _UNITS[unit]
    except (ValueError, KeyError):
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 30s, 10min or 1h")
    return value


def percent(text: str) -> float:
    """Type of ``--max-increase``: 3 of ``3%`` or ``3``."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share such as 3%")
    return value


def batch(text: str) -> int | str:
    """Type of ``--batch`` of a training: a whole number, or ``auto``."""
    return text if text == "auto" else whole(1)(text)


def rate(text: str) -> float:
    """Type of ``--lr``: a number above 0, at most 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate above 0, such as 1e-3")
    return value
