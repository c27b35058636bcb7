"""How alike two tokens are, as a number that every runtime agrees on: shared by all methods."""

from __future__ import annotations

import torch
from torch import Tensor

# Ranks of candidates that are no cosine. Similarities lie in [-1, 1] up to rounding, so whole numbers outside
# that range order them strictly: padding a > any number > NaN > real a into padding b > no candidate at all.
RANK_PADDING = 2.0
RANK_NAN = -2.0
RANK_INTO_PADDING = -3.0
RANK_NONE = -4.0

# Cosines are rounded to this step before they are ranked. Tokens that are equal tie in exact arithmetic, but their
# float32 cosine is 1 give or take a unit or two in the last place (6e-8), by the order of its sums: without the step,
# runtimes would disagree on which of many equal pairs to merge, and "the lowest index wins" would hold on none.
SCORE_STEP = 2.0**-20


def cosine(dot: Tensor, norm_a: Tensor, norm_b: Tensor) -> Tensor:
    """Cosine from dot products and norms, all float32, rounded to SCORE_STEP (halves to even).

    0 where a norm is 0, RANK_NAN where it is not a number.
    """
    scale = norm_a * norm_b
    cosine = torch.where(scale == 0, torch.zeros_like(dot), dot / scale)
    cosine = (cosine / SCORE_STEP).round() * SCORE_STEP
    return torch.where(torch.isnan(cosine), torch.full_like(cosine, RANK_NAN), cosine)


def norm(v: Tensor) -> Tensor:
    """Euclidean norm over the last axis."""
    return (v * v).sum(-1).sqrt()


def in_steps(threshold: float) -> int:
    """A threshold in whole steps of SCORE_STEP, as cosines are rounded (halves to even)."""
    return round(threshold / SCORE_STEP)
