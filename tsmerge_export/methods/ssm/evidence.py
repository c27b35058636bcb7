"""How near a decision of the reference is to another one, and whether a given one is near enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tsmerge_export.methods.method import Ints
from tsmerge_export.methods.similarity import RANK_NAN, RANK_PADDING, cosine, norm


class Links(NamedTuple):
    """What a step knows of the unprotected tokens, U of them: P = U // 2 in A, Q = U - P in B.

    Attributes:
        weight: ``[B, U]``, importance, or a negative number.
        a: ``[B, P]``, b: ``[B, Q]``: indices, rising.
        scores: ``[B, P, Q]``, similarity of each a with each b, or a RANK_*.
        rank: ``[B, P]``, of each a's link.
        y: ``[B, U, Dm]`` float32. padding: ``[B, U]``.
    """

    weight: Tensor
    a: Tensor
    b: Tensor
    scores: Tensor
    rank: Tensor
    y: Tensor
    padding: Tensor


def margin(links: Links, removed: int) -> Tensor:
    """``[B]``: the smallest difference of two scores that the decision hangs on; infinite where it hangs on none."""
    out = links.weight.gather(1, links.b).amin(1) - links.weight.gather(1, links.a).amax(1)
    ordered = links.rank.sort(dim=-1, descending=True).values
    if removed < ordered.shape[1]:
        out = torch.minimum(out, ordered[:, removed - 1] - ordered[:, removed])
    if links.scores.shape[-1] > 1:
        best, second = links.scores.topk(2, dim=-1).values.unbind(-1)
        # Links that are near being taken count too. The b of a padding a is chosen by no score.
        taken = (links.rank >= ordered[:, removed - 1 : removed] - out[:, None].clamp(0, 1)) & (
            links.rank < RANK_PADDING
        )
        out = torch.minimum(out, (best - second).masked_fill(~taken, torch.inf).amin(1))
    return out


def allows(links: Links, removed: int, first: int) -> Callable[[int, Ints, Ints, float], bool]:
    """Judges a decision ``(row, kept [M], target [N], t)``: whether scores that are off by t / 2 can lead to it."""

    def judge(row: int, kept: Ints, target: Ints, t: float) -> bool:
        count, left = len(target), len(kept)
        if not (
            left == count - removed
            and (np.diff(kept) > 0).all()
            and 0 <= kept[0] <= kept[-1] < count
            and 0 <= target.min() <= target.max() < left
            and np.array_equal(target[kept], np.arange(left))
        ):
            return False
        weight, padding = links.weight[row], links.padding[row]
        lowest_b, highest_a = weight[links.b[row]].min(), weight[links.a[row]].max()
        may_be_a, may_be_b = weight <= lowest_b + t, weight >= highest_a - t
        sure_a, sure_b = weight < lowest_b - t, (weight > highest_a + t) & ~padding
        source = torch.from_numpy(np.setdiff1d(np.arange(count), kept)) - first
        into = torch.from_numpy(kept[target[source.numpy() + first]]) - first
        if min(source.min(), into.min()) < 0 or max(source.max(), into.max()) >= len(weight):
            return False
        if not (may_be_a[source].all() and may_be_b[into].all()):
            return False
        y = links.y[row]
        length = norm(y)
        scores = cosine(y @ y.T, length[:, None], length[None, :])
        if not sure_b.any():
            return True
        rival = scores[:, sure_b].amax(1)  # at least so good is a token's best link
        rank = scores[source, into].masked_fill(padding[source], RANK_PADDING)
        real = ~padding[source]
        if (rank[real] < rival[source][real] - t).any() or (padding[into] & real).any():
            return False
        stays = sure_a.clone()
        stays[source] = False
        rival = rival.masked_fill(padding, RANK_PADDING)
        return bool(not stays.any() or rank.min() >= rival[stays].max() - t or rank.min() == RANK_NAN)

    return judge
