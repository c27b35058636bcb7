"""Changes and ratios in words: one way for stdout, the report and the model card, the same for better and worse."""

from __future__ import annotations

import math

#: Two times whose ratio lies between its inverse and this are not told apart: timings scatter that much.
NOISE = 1.05


def change(percent: float | None, digits: int = 1) -> str:
    """A change in per cent with its sign; 0 has none, and what is not known is a dash."""
    if percent is None or math.isnan(percent):
        return "-"
    text = f"{percent:+.{digits}f} %"
    return text[1:] if float(text[:-1]) == 0 else text


def within_noise(ratio: float) -> bool:
    """Whether a ratio of two times says nothing about which is faster."""
    return 1 / NOISE < ratio < NOISE


def speed(ratio: float) -> str:
    """How many times faster or slower something is, of the ratio of the times before and after."""
    if within_noise(ratio):
        return "no faster, no slower"
    return f"{ratio:.2f}x faster" if ratio > 1 else f"{1 / ratio:.2f}x slower"


def pays(ratio: float, where: str) -> str | None:
    """A plain statement where merging does not bring speed; None where it does."""
    if within_noise(ratio):
        return f"merging hardly pays {where}: it runs at {ratio:.2f} times the speed, within what timings scatter"
    if ratio < 1:
        return f"merging does not pay {where}: the merged model takes {100 / ratio - 100:.0f} % longer"
    return None


def fewer(ratio: float) -> str:
    """How many times fewer operations, of the ratio of the counts before and after."""
    if f"{ratio:.2f}" == "1.00" or f"{1 / ratio:.2f}" == "1.00":
        return "as many"
    return f"{ratio:.2f}x fewer" if ratio > 1 else f"{1 / ratio:.2f}x more"
