"""PiToMe (protect informative tokens before merging): the specification, in plain PyTorch.

Source: "Accelerating Transformers with Spectrum-Preserving Token Merging", arXiv 2405.16148, section 3. Tokens of high
energy (equation 4, see :mod:`tsmerge_export.methods.pitome.energy`) have many alike: they are redundant and merge.
Those of low energy are informative and stay. The margin m of the energy falls with depth, ``m = 0.9 - 0.9 * layer /
layers``: the deeper, the looser (R8.10). Rules R8 of docs/specification.md.

Two things differ from the published code (github.com/hchautran/PiToMe, algo/pitome/merge.py): order is preserved, a
merged token stands where its b stood (the code moves them to the end); and the split alternates whatever the energy
(the code's variant for text, ``pitome_text``, splits into upper and lower half).

Neighbours in the order of energy are often close, and a swap of two makes an a of a b, so decisions hang on float noise
more often than those of local merging, and the more so the longer the row. Of the 147 rows of the parity corpus that
are not degenerate, at most one flips in the Chronos-Bolt demo model (129 tokens) and one to four in Chronos-T5 (513). A
coarser step for energies (2^-12 was tried: none to three) hardly mends that, as tokens near an edge between steps flip
instead, while the index would decide between tokens that are not alike; so the step is that of cosines.

The cost is O(N^2) in time and memory: every token is compared with every other.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from tsmerge_export.errors import UsageError
from tsmerge_export.methods.amount import AmountMethod, amount_options, read_removed, removed_by
from tsmerge_export.methods.combine import Merged, combine, identity
from tsmerge_export.methods.matching import check_tokens
from tsmerge_export.methods.method import Attributes, Evidence, Place
from tsmerge_export.methods.pitome import ALPHA_MOST, ENERGIES
from tsmerge_export.methods.pitome.energy import Kernel, compare, order_of, pairs_of, rank_of
from tsmerge_export.methods.pitome.evidence import Scores
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.parse import number


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

    Cosines are taken in float32 and rounded to 2^-20, and so are f_m of each and the mean of these. A merged token is
    the size-weighted mean of its members, at b's place.

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
    check_tokens(x, metric, size)
    removed = read_removed(
        x.shape[1], r, ratio, min_tokens=min_tokens, protect_first=protect_first, protect_last=protect_last
    )
    if energy not in ENERGIES:
        raise UsageError(f"energy {energy!r} is not known; choose one of: {', '.join(ENERGIES)}")
    kernel = Kernel(number("margin", margin, -1, 1), number("alpha", alpha, 0, ALPHA_MOST), energy)
    size = x.new_ones(x.shape[:2], dtype=torch.float32) if size is None else size.float()
    if removed == 0:
        return identity(x, size)
    tokens = compare((x if metric is None else metric).detach(), size, protect_first, protect_last)
    order = order_of(rank_of(tokens, kernel(tokens.scores)))
    a, b, scores = pairs_of(tokens, order, removed)
    into = b.gather(1, scores.argmax(-1))  # R8.8, the first of equals
    # R8.9
    return combine(x, size, protect_first + a, protect_first + into)


class PitomeMethod(AmountMethod):
    """PiToMe as a method that a plan can place in a model (see :mod:`tsmerge_export.merge.plan`)."""

    name = "pitome"
    op_type = "PitomeMerge"

    def attributes(self, config: MergeConfig, place: Place) -> Attributes:
        """Attributes of the operator ``tsmerge::PitomeMerge``; energy is an index into ENERGIES.

        The margin falls with the depth of the merge point in the whole model, whether or not others merge.
        """
        by_depth = 0.9 - 0.9 * place.layer / place.layers
        margin = config.at("margin", place.turn)
        return {
            **super().attributes(config, place),
            "margin": by_depth if margin is None else float(margin),
            "alpha": 1.0 if config.alpha is None else float(config.alpha),
            "energy": ENERGIES.index(config.energy or ENERGIES[0]),
        }

    def merge(self, x: Tensor, metric: Tensor, size: Tensor | None, attributes: Attributes) -> Merged:
        """:func:`pitome_merge` with the operator's attributes."""
        return pitome_merge(
            x, metric, size, margin=float(attributes["margin"]), alpha=float(attributes["alpha"]),
            energy=ENERGIES[int(attributes["energy"])], **amount_options(attributes),
        )  # fmt: skip

    def evidence(self, x: Tensor, metric: Tensor, size: Tensor | None, attributes: Attributes) -> Evidence:
        """What :class:`~tsmerge_export.methods.pitome.evidence.Scores` make of the operator's attributes."""
        options: dict[str, Any] = dict(attributes)
        first, last = (options[name] for name in ("protect_first", "protect_last"))
        removed = removed_by(attributes, x.shape[1])
        if removed == 0:
            return Evidence(margin=x.new_full((x.shape[0],), torch.inf, dtype=torch.float32))
        sizes = x.new_ones(x.shape[:2], dtype=torch.float32) if size is None else size.float()
        kernel = Kernel(options["margin"], options["alpha"], ENERGIES[options["energy"]])
        scores = Scores(kernel, compare(metric.detach(), sizes, first, last), removed, first)
        return Evidence(margin=scores.margin(), allows=scores.allows)
