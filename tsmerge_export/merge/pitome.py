"""PiToMe (protect informative tokens before merging): the specification, in plain PyTorch.

Source: "Accelerating Transformers with Spectrum-Preserving Token Merging", arXiv 2405.16148, section 3. Tokens are the
nodes of a graph that joins each with all others. The energy of token i (equation 4) is high where it has many alike::

    E_i = 1/|N(i)| * sum over j in N(i) of f_m(cos(v_i, v_j)),    f_m(x) = x                      if x >= m
                                                                           alpha * (exp(x - m) - 1)  otherwise

Tokens of high energy are redundant and merge, those of low energy are informative and stay. The margin m falls with
depth, ``m = 0.9 - 0.9 * layer / layers``: the deeper, the looser.

What this file settles where equation and published code (github.com/hchautran/PiToMe, algo/pitome/merge.py) differ:

- N(i) is all *other* tokens. The code adds i itself, which is the same number for every token but a zero vector.
- f_m is equation 4. The code uses ELU(x - m), which is f_m less m above the margin, and so has no step there.
- Padding, protected tokens (the code cuts off its class token first) and pairs whose cosine is NaN are not in N(i).
- All tokens count alike in E, whatever their size, as in both.
- ``energy="gaussian"`` is the code's variant for text (``pitome_text``), ``exp(-((1 - x) / sigma)^2 / 2)`` with
  ``sigma = 1 - m``, for f_m. Its factor ``1 / (sigma * sqrt(2 pi))``, one number for all, is left out: it changes no
  order. That code also splits into upper and lower half; here the split alternates whatever the energy.
- Order is preserved: a merged token stands where its b stood. The code moves all of them to the end.

The cost is O(N^2) in time and memory: every token is compared with every other.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tsmerge_export.config import ENERGIES, MergeConfig, parse_ratio, tokens_removed
from tsmerge_export.errors import UsageError
from tsmerge_export.merge.combine import Merged, combine, identity
from tsmerge_export.merge.method import Attributes, Evidence, Place
from tsmerge_export.merge.similarity import RANK_INTO_PADDING, RANK_NAN, SCORE_STEP, cosine, norm
from tsmerge_export.parse import ALPHA_MOST, number

# Energies are rounded to this before they are compared.
ENERGY_STEP = 2.0**-20

# Evidence looks for margins between these; beyond the upper one a decision counts as firm.
_LEAST_MARGIN, _MOST_MARGIN = 2.0**-26, 2.0**-6
_HALVINGS = 6


class _Kernel(NamedTuple):
    """f_m: what the energy of a token sums over the others."""

    margin: float
    alpha: float
    energy: str

    def __call__(self, score: Tensor) -> Tensor:
        """f_m of cosines, float32, in whole numbers of SCORE_STEP (halves to even)."""
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


class _Tokens(NamedTuple):
    """The unprotected tokens, U of them.

    Attributes:
        scores: ``[B, U, U]`` float32, cosines, RANK_NAN where not a number.
        neighbours: ``[B, U, U]`` bool, row i is N(i).
        padding: ``[B, U]`` bool.
    """

    scores: Tensor
    neighbours: Tensor
    padding: Tensor


def _tokens(metric: Tensor, size: Tensor, first: int, last: int) -> _Tokens:
    end = metric.shape[1] - last
    v, padding = metric[:, first:end].float(), size[:, first:end] == 0
    length = norm(v)
    scores = cosine(v @ v.transpose(1, 2), length[:, :, None], length[:, None, :])
    others = ~torch.eye(v.shape[1], dtype=torch.bool, device=v.device)
    return _Tokens(scores, others & ~padding[:, None, :] & (scores != RANK_NAN), padding)


def _rank(tokens: _Tokens, terms: Tensor) -> Tensor:
    """Energy of each token in whole numbers of ENERGY_STEP: the mean of ``terms [B, U, U]`` over its neighbours.

    Terms are whole numbers, and are summed exactly: equal tokens have equal energies whatever the order of sums. The
    sum is then rounded to float32, and its quotient by the count. Padding is infinite, free to drop; a token without
    neighbours, or with an infinite energy, ranks below every number.
    """
    total = terms.double().masked_fill(~tokens.neighbours, 0).sum(-1).float()
    mean = total / tokens.neighbours.sum(-1).float()
    energy = (mean * (SCORE_STEP / ENERGY_STEP)).round()
    energy = torch.where(energy.isfinite(), energy, torch.full_like(energy, -torch.inf))
    return energy.masked_fill(tokens.padding, torch.inf)


def _order(rank: Tensor) -> Tensor:
    """Indices by falling rank, the lowest of equals first."""
    return rank.sort(dim=-1, descending=True, stable=True).indices


def _pairs(tokens: _Tokens, order: Tensor, removed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A and B ``[B, r]``, indices in order of energy, and the scores ``[B, r, r]`` of each a with each b."""
    a, b = order[:, 0 : 2 * removed : 2], order[:, 1 : 2 * removed : 2]
    batch = torch.arange(len(order), device=order.device)[:, None]
    scores = tokens.scores[batch[..., None], a[:, :, None], b[:, None, :]]
    padding = tokens.padding[batch, a][:, :, None] | tokens.padding[batch, b][:, None, :]
    # All b's are the same to a padding a: it weighs nothing, so it goes into the first one and no noise has a say.
    return a, b, scores.masked_fill(padding, RANK_INTO_PADDING)


def pitome_merge(
    x: Tensor,
    metric: Tensor | None = None,
    size: Tensor | None = None,
    *,
    r: int | None = None,
    ratio: Fraction | str | float | None = None,
    margin: float = 0.9,
    alpha: float = 1.0,
    energy: str = "elu",
    min_tokens: int = 0,
    protect_first: int = 0,
    protect_last: int = 0,
) -> Merged:
    """Merge r of the 2r tokens of highest energy into the others (arXiv 2405.16148, section 3).

    The 2r unprotected tokens of highest energy (see the module; ties to the lowest index) are mergeable. In order of
    energy the 1st, 3rd, ... are A, the 2nd, 4th, ... are B. Every a goes into the b of highest cosine similarity; of
    equals, into the one that comes first in the order of energy. All other tokens are protected.

    Padding (size 0) has the highest energy, so it merges first; an a that is padding goes into the first b. A real a
    never goes into padding: padding leads the order, so behind a real a there is a real b. A token without neighbours
    (its cosines are NaN, or it is alone) ranks below every number.

    Cosines are taken in float32 and rounded to 2^-20, and so is f_m of each; the mean is rounded to ENERGY_STEP. A
    merged token is the size-weighted mean of its members, at b's place.

    Args:
        x: ``[B, N, D]`` float32, float16 or bfloat16.
        metric: ``[B, N, Dm]``, the features v compared; default x.
        size: ``[B, N]`` float32, original tokens per token, 0 is padding; default 1 everywhere.
        r: tokens to remove, >= 0. Either r or ratio must be given.
        ratio: share of N to remove (rounded down), 0 < ratio <= 1/2, exact.
        margin: m, -1 <= m <= 1, used as float32. alpha: >= 0.
        energy: ``"elu"`` (f_m) or ``"gaussian"`` (without alpha; sigma is 1 - m, at least 2^-20).
        min_tokens: leave at least this many.
        protect_first, protect_last: so many tokens at either end take no part.

    Returns:
        :class:`Merged` with M = N - r(N), where
        ``r(N) = min(max(0, r or N*ratio), (N - protect_first - protect_last) // 2, max(0, N - min_tokens))``.

    Raises:
        UsageError: an argument is out of range or of the wrong shape.
    """
    if x.dim() != 3:
        raise UsageError(f"x must be [batch, tokens, features], not {list(x.shape)}")
    if (r is None) == (ratio is None):
        raise UsageError("give either r or ratio")
    if (r is not None and r < 0) or min(min_tokens, protect_first, protect_last) < 0:
        raise UsageError("r, min_tokens, protect_first and protect_last must not be negative")
    if energy not in ENERGIES:
        raise UsageError(f"energy {energy!r} is not known; choose one of: {', '.join(ENERGIES)}")
    for name, value in (("metric", metric), ("size", size)):
        if value is not None and value.shape[:2] != x.shape[:2]:
            raise UsageError(
                f"{name} must be [batch, tokens, ...] = {list(x.shape[:2])}, not {list(value.shape)}"
            )
    kernel = _Kernel(number("margin", margin, -1, 1), number("alpha", alpha, 0, ALPHA_MOST), energy)
    removed = tokens_removed(
        x.shape[1],
        r=r or 0,
        ratio=None if ratio is None else parse_ratio(ratio),
        min_tokens=min_tokens,
        protected=protect_first + protect_last,
    )
    size = x.new_ones(x.shape[:2], dtype=torch.float32) if size is None else size.float()
    if removed == 0:
        return identity(x, size)
    tokens = _tokens((x if metric is None else metric).detach(), size, protect_first, protect_last)
    order = _order(_rank(tokens, kernel(tokens.scores)))
    a, b, scores = _pairs(tokens, order, removed)
    into = b.gather(1, scores.argmax(-1))  # the first of equals
    return combine(x, size, protect_first + a, protect_first + into)


def _rounded(scores: Tensor) -> Tensor:
    return (scores / SCORE_STEP).round() * SCORE_STEP


def _overtaken(least: Tensor, most: Tensor, order: Tensor, chosen: int) -> Tensor:
    """``[B]``: whether a token may come to stand before one of the first ``chosen``.

    Args:
        least, most: ``[B, U]``, bounds of each token's rank. order: ``[B, U]``, indices by falling rank.
    """
    least, most = least.gather(1, order)[:, :chosen, None], most.gather(1, order)[:, None, :]
    behind = torch.ones(chosen, order.shape[1], dtype=torch.bool, device=order.device).triu(1)
    lower = order[:, None, :] < order[:, :chosen, None]
    return (behind & ((most > least) | ((most == least) & lower))).flatten(1).any(1)


def _partner_changes(scores: Tensor, half: Tensor) -> Tensor:
    """``[B]``: whether an a's best b may be another one when ``scores [B, r, r]`` move by ``half [B, 1, 1]``."""
    firm = scores <= RANK_NAN  # whole numbers that stand for NaN and padding
    best = scores.argmax(-1, keepdim=True)
    low = torch.where(firm, scores, _rounded(scores - half)).gather(-1, best)
    high = torch.where(firm, scores, _rounded(scores + half))
    position = torch.arange(scores.shape[-1], device=scores.device)
    rival = (high > low) | ((high == low) & (position < best))
    return (rival & (position != best)).flatten(1).any(1)


def pitome_margin(
    metric: Tensor,
    size: Tensor,
    removed: int,
    *,
    margin: float = 0.9,
    alpha: float = 1.0,
    energy: str = "elu",
    protect_first: int = 0,
    protect_last: int = 0,
) -> Tensor:
    """How far cosines must move apart before :func:`pitome_merge` may decide otherwise.

    A decision is the order of the 2r first tokens (which ones, and who of them is an a) and each a's b. Every cosine
    may move by t/2 either way, on its own; that bounds every energy, also across the step of f_m at the margin. The
    decision is firm at t if no bounds of tokens overlap so that their order may change, and no a may find another b.
    The bounds count with rounding, so that equal tokens whose energies lie in the middle of a step are firm at small t.

    Args:
        metric: ``[B, N, Dm]``. size: ``[B, N]`` float32. removed: r(N). The options: as of :func:`pitome_merge`.

    Returns:
        ``[B]`` float32, t to a quarter octave or so: the decision is firm there, and no longer a little above.
        Infinite above 2^-6, and where nothing is removed; 0 below 2^-26.
    """
    if removed == 0:
        return metric.new_full((metric.shape[0],), torch.inf, dtype=torch.float32)
    kernel = _Kernel(margin, alpha, energy)
    tokens = _tokens(metric.detach(), size, protect_first, protect_last)
    order = _order(_rank(tokens, kernel(tokens.scores)))
    pairs = _pairs(tokens, order, removed)[2]

    def firm(t: Tensor) -> Tensor:
        half = t[:, None, None] / 2
        low, high = _rounded(tokens.scores - half), _rounded(tokens.scores + half).clamp(max=1)
        least, most = (_rank(tokens, terms) for terms in kernel.bounds(low.minimum(high), high))
        return ~(_overtaken(least, most, order, 2 * removed) | _partner_changes(pairs, half))

    least, most = (
        order.new_full((len(order),), t, dtype=torch.float32) for t in (_LEAST_MARGIN, _MOST_MARGIN)
    )
    always, ever = firm(most), firm(least)
    for _ in range(_HALVINGS):
        middle = (least * most).sqrt()
        holds = firm(middle)
        least, most = torch.where(holds, middle, least), torch.where(holds, most, middle)
    least = torch.where(ever, least, torch.zeros_like(least))
    return torch.where(always, torch.full_like(least, torch.inf), least)


class PitomeMethod:
    """PiToMe as a method that a plan can place in a model (see :mod:`tsmerge_export.merge.plan`)."""

    name = "pitome"
    op_type = "PitomeMerge"

    def attributes(self, config: MergeConfig, place: Place) -> Attributes:
        """Attributes of the operator ``tsmerge::PitomeMerge``; energy is an index into ENERGIES.

        The margin falls with the depth of the merge point in the whole model, whether or not others merge.
        """
        r, ratio = config.amount(place.turn, place.turns)
        by_depth = 0.9 - 0.9 * place.layer / place.layers
        margin = config.margin[place.turn] if isinstance(config.margin, tuple) else config.margin
        return {
            "r": r,
            "ratio_num": ratio.numerator,
            "ratio_den": ratio.denominator,
            "min_tokens": config.min_tokens,
            "protect_first": place.protect_first,
            "protect_last": place.protect_last,
            "margin": by_depth if margin is None else float(margin),
            "alpha": 1.0 if config.alpha is None else float(config.alpha),
            "energy": ENERGIES.index(config.energy or ENERGIES[0]),
        }

    def merge(self, x: Tensor, metric: Tensor, size: Tensor | None, attributes: Attributes) -> Merged:
        """:func:`pitome_merge` with the operator's attributes."""
        options: dict[str, Any] = dict(attributes)
        ratio = Fraction(options.pop("ratio_num"), options.pop("ratio_den"))
        energy = ENERGIES[options.pop("energy")]
        r = options.pop("r")
        amount: dict[str, Any] = {"ratio": ratio} if ratio else {"r": r}
        return pitome_merge(x, metric, size, energy=energy, **amount, **options)

    def evidence(self, x: Tensor, metric: Tensor, size: Tensor | None, attributes: Attributes) -> Evidence:
        """:func:`pitome_margin` with the operator's attributes."""
        options: dict[str, Any] = dict(attributes)
        ratio = Fraction(options.pop("ratio_num"), options.pop("ratio_den"))
        energy = ENERGIES[options.pop("energy")]
        removed = tokens_removed(
            x.shape[1],
            r=options.pop("r"),
            ratio=ratio or None,
            min_tokens=options.pop("min_tokens"),
            protected=options["protect_first"] + options["protect_last"],
        )
        sizes = x.new_ones(x.shape[:2], dtype=torch.float32) if size is None else size.float()
        return Evidence(margin=pitome_margin(metric, sizes, removed, energy=energy, **options))
