"""What the TimesFM families have in common before the first patch: missing values, left padding, cutting to patches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


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


def in_patches(context: Tensor, padding: Tensor, longest: int, patch: int) -> tuple[Tensor, Tensor]:
    """The last ``longest`` steps of ``[B, L]``, padded on the left to whole patches ``[B, N, patch]``; its padding.

    For an exporter: no branch on the length.
    """
    batch, length = context.shape
    used = torch.sym_min(length, longest)
    patches = (used + patch - 1) // patch
    missing = torch.zeros((batch, patches * patch - used))
    cut, pad = (
        torch.cat([missing + fill, each[:, length - used :]], 1).reshape(batch, patches, patch)
        for each, fill in ((context, 0.0), (padding, 1.0))
    )
    return cut * (1 - pad), pad


def as_ragged(context: Tensor, padding: Tensor, longest: int, patch: int) -> dict[str, Any]:
    """Arguments of the original's forward for padded series: one tensor each, and the length it pads them to."""
    used = min(context.shape[1], longest)
    rows = [row[pad == 0] for row, pad in zip(context, padding, strict=True)]
    return {"past_values": rows, "forecast_context_len": -(-used // patch) * patch}
