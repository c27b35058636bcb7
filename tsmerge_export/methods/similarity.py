"""How alike two tokens are, as a number that every runtime agrees on: shared by all methods.

Rules R3 and R4 of docs/specification.md. Three measures, all from -1 to 1, so that ranks, thresholds and float noise
mean the same in each. For features u and v, and S, the largest squared norm among the real, unprotected tokens of the
row::

    cosine    u.v / (|u| |v|)               R3.1: 0 where a norm is 0
    l2        1 - |u - v|^2 / (2 S)         R3.3: 1 for equal tokens; 0 where |u - v|^2 = 2 S
    dot       u.v / S                       R3.4

S takes the unit out: a row multiplied by a constant merges as before. Between tokens of one norm all three are the same
number. In l2 and dot a token that is far longer than the others makes the rest look alike: what differs by less than a
step of 2^-20 ties.
"""

from __future__ import annotations

import torch
from torch import Tensor

# R4.1. Ranks of candidates that are no similarity. Similarities lie in [-1, 1] up to rounding, so whole numbers outside
# that range order them strictly: padding a > any number > NaN > real a into padding b > no candidate at all.
RANK_PADDING = 2.0
RANK_NAN = -2.0
RANK_INTO_PADDING = -3.0
RANK_NONE = -4.0

# R3.5. Similarities are rounded to this step before they are ranked. Tokens that are equal tie in exact arithmetic, but
# their float32 cosine is 1 give or take a unit or two in the last place (6e-8), by the order of its sums: without the
# step, runtimes would disagree on which of many equal pairs to merge, and "the lowest index wins" would hold on none.
SCORE_STEP = 2.0**-20


def similarity_of(kind: str, dot: Tensor, square_a: Tensor, square_b: Tensor, scale: Tensor) -> Tensor:
    """Similarity in whole numbers of SCORE_STEP (halves to even), RANK_NAN where it is not a number.

    In l2 and dot every pair with a token whose squared norm is not finite is not a number (R3.7).

    Args:
        kind: one of options.SIMILARITIES. dot: products u.v. square_a, square_b: squared norms, that broadcast to it.
        scale: S, that broadcasts to it, from :func:`scale_of`; unused by the cosine. All float32.
    """
    if kind == "cosine":
        return cosine(dot, square_a.sqrt(), square_b.sqrt())
    numerator = dot - 0.5 * square_a - 0.5 * square_b if kind == "l2" else dot
    share = torch.where(scale == 0, torch.zeros_like(dot), numerator / scale)
    rounded = ((1 + share if kind == "l2" else share) / SCORE_STEP).round() * SCORE_STEP
    # R3.6: rounding may lead out of the range, and padding, which has no say in S, may be longer than S.
    finite = square_a.isfinite() & square_b.isfinite()
    return torch.where(finite, rounded.clamp(-1, 1), torch.full_like(dot, RANK_NAN))


def scale_of(v: Tensor, real: Tensor) -> Tensor:
    """S ``[B]`` (R3.2): the largest finite squared norm of ``v [B, U, Dm]`` where ``real [B, U]``; 0 if none."""
    square = squared_norm(v)
    return square.where(real & square.isfinite(), square.new_zeros(())).amax(1)


def cosine(dot: Tensor, norm_a: Tensor, norm_b: Tensor) -> Tensor:
    """Cosine from dot products and norms, all float32, rounded to SCORE_STEP (halves to even).

    0 where a norm is 0 (R3.1), RANK_NAN where it is not a number (R3.7).
    """
    scale = norm_a * norm_b
    cosine = torch.where(scale == 0, torch.zeros_like(dot), dot / scale)
    cosine = (cosine / SCORE_STEP).round() * SCORE_STEP
    return torch.where(torch.isnan(cosine), torch.full_like(cosine, RANK_NAN), cosine)


def squared_norm(v: Tensor) -> Tensor:
    """Sum of squares over the last axis."""
    return (v * v).sum(-1)


def norm(v: Tensor) -> Tensor:
    """Euclidean norm over the last axis."""
    return squared_norm(v).sqrt()


def in_steps(threshold: float) -> int:
    """A threshold in whole steps of SCORE_STEP, as similarities are rounded (halves to even)."""
    return round(threshold / SCORE_STEP)
