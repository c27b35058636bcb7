"""Drawing tokens from logits: temperature, top-k and top-p as transformers applies them, for all sample paths at once.

A draw is a function of one uniform number per path (inverse of the cumulative distribution in token order), so the same
numbers give the same tokens wherever the same logits come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsmerge_export.errors import TsmergeError

Floats = NDArray[np.floating[Any]]

# Scores per block of the search for the k largest.
_BLOCK = 16


@dataclass(frozen=True)
class Sampling:
    """How to draw. ``top_k`` 0 and ``top_p`` 1 keep every token; ``top_k`` 1 is greedy.

    Attributes:
        temperature: > 0, divides the logits. top_p: least mass that is kept. banned: a token that is never drawn.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    banned: int | None = None


def uniforms(seed: int, series: int, block: int, samples: int, steps: int) -> NDArray[np.float64]:
    """``[samples, steps]`` numbers in [0, 1) for one series: a stream of its own, whatever is forecast beside it.

    Args:
        seed: >= 0. series: index of the series in the call. block: how many horizons of the model came before.
    """
    stream = np.random.SeedSequence(entropy=seed, spawn_key=(series, block))
    return np.random.default_rng(stream).random((samples, steps))


def draw(logits: NDArray[np.float32], uniform: NDArray[np.float64], how: Sampling) -> NDArray[np.int64]:
    """Draw one token per row.

    Args:
        logits: ``[..., V]``; the score of a banned token is overwritten.
        uniform: ``[...]`` in [0, 1).

    Returns:
        ``[...]`` int64: the first token, in order of ids, at which the cumulative probability exceeds ``uniform``.

    Raises:
        TsmergeError: a row has a NaN or no finite logit.
    """
    scores = logits.reshape(-1, logits.shape[-1])
    if how.banned is not None:
        scores[:, how.banned] = -np.inf
    if how.temperature != 1.0:
        scores = scores / np.float32(how.temperature)
    tokens: NDArray[np.int64] | None = None
    if 0 < how.top_k < scores.shape[1]:
        scores, tokens = top_k(scores, how.top_k)
    best = scores.max(axis=1)
    if not np.isfinite(best).all():
        raise TsmergeError("the decoder's logits are not finite; run `tsmerge validate` on the bundle")
    if how.top_p < 1.0:
        scores = _top_p(scores, best, how.top_p)
    weights = np.exp(scores - best[:, None])
    cumulative = weights.cumsum(axis=1, dtype=np.float64)
    total = cumulative[:, -1]
    # Below the total even where the product rounds up to it.
    aim = np.minimum(uniform.reshape(-1) * total, np.nextafter(total, 0))
    index = (cumulative <= aim[:, None]).sum(axis=1)
    drawn = index if tokens is None else tokens[np.arange(len(index)), index]
    return drawn.reshape(uniform.shape)


def top_k(scores: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k largest scores of each row and all that equal the k-th, as transformers' ``TopKLogitsWarper`` keeps them.

    The k-th largest maximum over blocks of scores is a lower bound of the k-th largest score, so that few candidates
    are left to look at: several times as fast as a partition of the rows.

    Args:
        scores: ``[R, V]``. k: 1 to V.

    Returns:
        Scores ``[R, C]`` with C >= k, -inf where a row has fewer, and their tokens ``[R, C]``, ascending. All of them
        where there is a NaN.
    """
    rows, vocab = scores.shape
    blocks = vocab // _BLOCK
    bound = np.full(rows, -np.inf, np.float32)
    if blocks > k:
        # Scores that lie `blocks` apart form a block: numpy's maximum is fast along the longer axis.
        maxima = scores[:, : blocks * _BLOCK].reshape(rows, _BLOCK, blocks).max(axis=1)
        bound = np.partition(maxima, blocks - k, axis=1)[:, blocks - k]
        # A maximum is NaN where a score is, so few numbers have to be looked at.
        unknown = np.isnan(maxima).any() or np.isnan(scores[:, blocks * _BLOCK :]).any()
    else:
        unknown = np.isnan(scores).any()
    if unknown:
        return scores, np.broadcast_to(np.arange(vocab), scores.shape)
    found = np.flatnonzero(scores >= bound[:, None])
    row, token = np.divmod(found, vocab)
    counts = np.bincount(row, minlength=rows)
    slot = np.arange(len(row)) - np.repeat(counts.cumsum() - counts, counts)
    width = int(counts.max())
    kept = np.full((rows, width), -np.inf, np.float32)
    tokens = np.zeros((rows, width), np.int64)
    kept[row, slot], tokens[row, slot] = scores.reshape(-1)[found], token
    least = np.partition(kept, width - k, axis=1)[:, width - k]
    kept[kept < least[:, None]] = -np.inf
    return kept, tokens


def _top_p(scores: NDArray[np.float32], best: NDArray[np.float32], top_p: float) -> NDArray[np.float32]:
    """Drop the least likely tokens whose mass is at most 1 - ``top_p`` together; the likeliest one always stays."""
    order = np.argsort(scores, axis=1, kind="stable")
    weights = np.exp(np.take_along_axis(scores, order, 1) - best[:, None])
    mass = (weights / weights.sum(axis=1, keepdims=True)).cumsum(axis=1, dtype=np.float64)
    drop = mass <= 1 - top_p
    drop[:, -1] = False
    out = scores.copy()
    np.put_along_axis(out, order, np.where(drop, -np.inf, np.take_along_axis(scores, order, 1)), 1)
    return out
