"""Series as the inputs that transformers' forecasters have in common: values and a mask of a fixed length."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


def channelled(series: NDArray[np.float32], context: int, channels: int, *, spread: bool) -> Arrays:
    """Series ``[B, L]``, NaN is missing, as ``past_values`` and ``past_observed_mask`` ``[B, context, channels]``.

    Longer series are cut to their end, shorter ones are missing on their left. A missing value is 0 in the mask, and
    in the values the last one observed, or else the first (0 where there is none): patches know no mask. (The mean
    would be 0 when scaled, but for a rounding that a layer normalisation blows up.)

    Args:
        spread: channel c of row b is series b + c, so that channels differ; else every channel is the row's series.
    """
    batch, length = series.shape
    used = min(length, context)
    padded = np.full((batch, context), np.nan, np.float32)
    padded[:, context - used :] = series[:, length - used :]
    seen = ~np.isnan(padded)
    last = np.maximum.accumulate(np.where(seen, np.arange(context), -1), axis=1)
    filled = np.nan_to_num(
        np.take_along_axis(padded, np.where(last < 0, seen.argmax(1)[:, None], last), axis=1)
    )
    rows = (np.arange(batch)[:, None] + np.arange(channels) * spread) % batch
    return {
        "past_values": np.ascontiguousarray(filled[rows].transpose(0, 2, 1)),
        "past_observed_mask": seen[rows].transpose(0, 2, 1).astype(np.float32),
    }


def clock(first: int, steps: int, features: int) -> NDArray[np.float32]:
    """Time features ``[steps, features]`` for steps ``first``, ``first + 1``, ...; the forecast starts at step 0.

    A series alone has no calendar: these are waves of 24 steps and its fractions, sines and cosines in turn.
    """
    phase = 2 * np.pi * np.arange(first, first + steps)[:, None] / 24 * (np.arange(features) // 2 + 1)
    return np.where(np.arange(features) % 2 == 0, np.sin(phase), np.cos(phase)).astype(np.float32)


def filled(series: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Series ``[B, L]`` -> the same without NaN, and 1 where they have not begun.

    As TimesFM's own loader does: missing values in front are padding, those between others are interpolated linearly,
    those at the end repeat the last one. A series without any value is one 0.
    """
    out = np.array(series, np.float32)
    padding = np.zeros_like(out)
    steps = np.arange(out.shape[1])
    for row, pad in zip(out, padding, strict=True):
        seen = ~np.isnan(row)
        if not seen.any():
            row[-1], seen[-1] = 0, True
        pad[: seen.argmax()] = 1
        if not seen.all():
            row[:] = np.interp(steps, steps[seen], row[seen])
    return out * (1 - padding), padding
