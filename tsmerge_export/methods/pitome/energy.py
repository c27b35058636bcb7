"""Energy of tokens and the order it puts them in: the first half of :mod:`tsmerge_export.methods.pitome.reference`.

Source: arXiv 2405.16148, section 3. Tokens are the nodes of a graph that joins each with all others. The energy of
token i (equation 4) is high where it has many alike::

    E_i = 1/|N(i)| * sum over j in N(i) of f_m(cos(v_i, v_j)),    f_m(x) = x                         if x >= m
                                                                           alpha * (exp(x - m) - 1)  otherwise

What this file settles where equation and published code (github.com/hchautran/PiToMe, algo/pitome/merge.py) differ:

- N(i) is all *other* tokens (R8.1). The code adds i itself, which is the same number for every token but a zero vector.
- f_m is equation 4. The code uses ELU(x - m), which is f_m less m above the margin, and so has no step there.
- Padding, protected tokens (the code cuts off its class token first) and pairs whose cosine is NaN are not in N(i).
- All tokens count alike in E, whatever their size, as in both.
- ``energy="gaussian"`` is the code's variant for text (``pitome_text``), ``exp(-((1 - x) / sigma)^2 / 2)`` with
  ``sigma = 1 - m``, for f_m. Its factor ``1 / (sigma * sqrt(2 pi))``, one number for all, is left out: it changes no
  order. So that m = 1 means something, sigma is at least 2^-20.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tsmerge_export.methods.similarity import RANK_INTO_PADDING, RANK_NAN, SCORE_STEP, cosine, norm


class Kernel(NamedTuple):
    """f_m: what the energy of a token sums over the others; ``energy`` is one of ENERGIES."""

    margin: float
    alpha: float
    energy: str

    def __call__(self, score: Tensor) -> Tensor:
        """f_m of cosines (R8.2, R8.3), float32, in whole numbers of SCORE_STEP (halves to even, R8.4)."""
        margin = score.new_tensor(self.margin)  # in float32, as the operator has it
        if self.energy == "gaussian":
            z = (1 - score) / (1 - margin).clamp(min=SCORE_STEP)
            value = (z * z * -0.5).exp()
        else:
            below = score.new_tensor(self.alpha) * ((score - margin).exp() - 1)
            value = torch.where(score >= margin, score, below)
        return (value / SCORE_STEP).round()

    def bounds(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Least and largest f_m, as above, of the cosines from ``low`` to ``high``."""
        ends = self(low), self(high)
        least, most = torch.minimum(*ends), torch.maximum(*ends)
        if self.energy == "gaussian":
            return least, most
        # The step at the margin: f_m rises to 0 in front of it, and is m on it.
        margin = low.new_tensor(self.margin)
        across = (low < margin) & (high >= margin)
        on_it = (margin / SCORE_STEP).round()
        least = torch.where(across, least.minimum(on_it.clamp(max=0)), least)
        return least, torch.where(across, most.maximum(on_it.clamp(min=0)), most)


class Tokens(NamedTuple):
    """The unprotected tokens, U of them.

    Attributes:
        scores: ``[B, U, U]`` float32, cosines, RANK_NAN where not a number.
        neighbours: ``[B, U, U]`` bool, row i is N(i).
        padding: ``[B, U]`` bool.
    """

    scores: Tensor
    neighbours: Tensor
    padding: Tensor


def compare(metric: Tensor, size: Tensor, first: int, last: int) -> Tokens:
    """The graph of all tokens but ``first`` and ``last`` at the ends, of ``metric [B, N, Dm]`` and ``size [B, N]``."""
    end = metric.shape[1] - last
    v, padding = metric[:, first:end].float(), size[:, first:end] == 0
    length = norm(v)
    scores = cosine(v @ v.transpose(1, 2), length[:, :, None], length[:, None, :])
    others = ~torch.eye(v.shape[1], dtype=torch.bool, device=v.device)
    return Tokens(scores, others & ~padding[:, None, :] & (scores != RANK_NAN), padding)


def rank_of(tokens: Tokens, terms: Tensor) -> Tensor:
    """Energy of each token, a whole number of SCORE_STEP: the mean of ``terms [B, U, U]`` over its neighbours (R8.5).

    Terms are whole numbers, and are summed exactly: equal tokens have equal energies whatever the order of sums. The
    sum is then rounded to float32, and its quotient by the count. Padding is infinite, free to drop; a token without
    neighbours, or with an infinite energy, ranks below every number (R8.6).
    """
    total = terms.double().masked_fill(~tokens.neighbours, 0).sum(-1).float()
    energy = (total / tokens.neighbours.sum(-1).float()).round()
    energy = torch.where(energy.isfinite(), energy, torch.full_like(energy, -torch.inf))
    return energy.masked_fill(tokens.padding, torch.inf)


def order_of(rank: Tensor) -> Tensor:
    """Indices by falling rank, the lowest of equals first (R8.7)."""
    return rank.sort(dim=-1, descending=True, stable=True).indices


def pairs_of(tokens: Tokens, order: Tensor, removed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A and B ``[B, r]``, indices in order of energy, and the scores ``[B, r, r]`` of each a with each b."""
    a, b = order[:, 0 : 2 * removed : 2], order[:, 1 : 2 * removed : 2]
    batch = torch.arange(len(order), device=order.device)[:, None]
    scores = tokens.scores[batch[..., None], a[:, :, None], b[:, None, :]]
    padding = tokens.padding[batch, a][:, :, None] | tokens.padding[batch, b][:, None, :]
    # All b's are the same to a padding a: it weighs nothing, so it goes into the first one and no noise has a say.
    return a, b, scores.masked_fill(padding, RANK_INTO_PADDING)
