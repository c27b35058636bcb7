"""Tokens on which rounding shows."""

from __future__ import annotations

import torch


def above_one() -> torch.Tensor:
    """Pairs of parallel tokens ``[1, 400, 2]`` so small that many cosines come out above 1 in float32."""
    scale = torch.logspace(-20.8, -20.0, 200)[:, None] * torch.tensor([1.0, 1.3])
    return (scale.reshape(-1, 1) * torch.tensor([1.0, 0.7]))[None]
