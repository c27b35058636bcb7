"""Types of flags: what reads a value from the command line, in words that say what is wrong with it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def whole(least: int) -> Callable[[str], int]:
    """Type of a flag: a whole number of at least ``least``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return value

    return parse


def names(text: str) -> tuple[str, ...]:
    """Type of ``--column``: names with commas between them."""
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} names no column")
    return found


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
