"""What else PiToMe's reference might have decided, had its cosines been a little different."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tsmerge_export.methods.pitome.energy import Kernel, Tokens, order_of, pairs_of, rank_of
from tsmerge_export.methods.similarity import RANK_NAN, SCORE_STEP

Ints = npt.NDArray[np.int64]

# Margins are looked for between these; beyond the upper one a decision counts as firm.
_LEAST, _MOST = 2.0**-26, 2.0**-6
_HALVINGS = 6


def _moved(scores: Tensor, by: Tensor) -> Tensor:
    """Scores moved and rounded again; whole numbers that stand for NaN and padding stay."""
    rounded = ((scores + by) / SCORE_STEP).round() * SCORE_STEP
    return torch.where(scores <= RANK_NAN, scores, rounded)


class Scores:
    """The scores behind the decisions of one step, each of which may be off by t/2 on its own.

    That bounds every energy, also across the step of f_m at the margin, and so the place of every token in the order.
    Bounds count with rounding: equal tokens whose energies lie in the middle of a step are firm at small t. On the CPU.

    Args:
        kernel, tokens: the energies come from these. removed: r(N) >= 1. first: tokens that are protected at the front.
    """

    def __init__(self, kernel: Kernel, tokens: Tokens, removed: int, first: int) -> None:
        self._kernel, self._tokens, self._removed, self._first = kernel, tokens, removed, first
        order = order_of(rank_of(tokens, kernel(tokens.scores)))
        self._pairs = pairs_of(tokens, order, removed)[2]

    def margin(self) -> Tensor:
        """``[B]`` float32: the largest t up to which every row's decision is certain, to a fifth or so.

        A decision is the order of the 2r first tokens, which says who merges and who of them is an a, and each a's b.
        Infinite above 2^-6, 0 below 2^-26.
        """
        least, most = (self._pairs.new_full((len(self._pairs),), t) for t in (_LEAST, _MOST))
        ever, always = self._certain(least), self._certain(most)
        for _ in range(_HALVINGS):
            middle = (least * most).sqrt()
            holds = self._certain(middle)
            least, most = torch.where(holds, middle, least), torch.where(holds, most, middle)
        least = torch.where(ever, least, torch.zeros_like(least))
        return torch.where(always, torch.full_like(least, torch.inf), least)

    def allows(self, row: int, kept: Ints, target: Ints, t: float) -> bool:
        """Whether a decision of one row could be that of scores which are off by t/2: each token is judged on its own.

        An a must be one that may stand at an even place among the first 2r, and one that stands there for certain must
        be an a. Its b must be one that may stand at an odd place, and as good as any that stands there for certain.

        Args:
            row: of the batch. kept: ``[M]``, target: ``[N]``, as of :class:`~tsmerge_export.methods.combine.Merged`.
        """
        count, left = len(target), len(kept)
        if not (
            left == count - self._removed
            and (np.diff(kept) > 0).all()
            and 0 <= kept[0] <= kept[-1] < count
            and 0 <= target.min() <= target.max() < left
            and np.array_equal(target[kept], np.arange(left))
        ):
            return False
        half = self._pairs.new_full((1, 1, 1), t / 2)
        tokens = Tokens(*(part[row : row + 1] for part in self._tokens))
        earliest, latest = (place[0].numpy() for place in self._places(tokens, half))
        source = np.setdiff1d(np.arange(count), kept) - self._first
        into = kept[target[source + self._first]] - self._first
        if min(source.min(), into.min()) < 0 or max(source.max(), into.max()) >= len(earliest):
            return False
        last = np.minimum(latest, 2 * self._removed - 1)
        may_be_a, may_be_b = (earliest + (earliest % 2 != odd) <= last for odd in (0, 1))
        certain = (earliest == latest) & (earliest <= last)
        stays = np.ones(len(earliest), np.bool_)
        stays[source] = False
        if (may_be_a & certain & stays).any() or not (may_be_a[source].all() and may_be_b[into].all()):
            return False
        scores, padding = tokens.scores[0], tokens.padding[0].numpy()
        sure_b = torch.from_numpy(may_be_b & certain & ~padding)
        rivals = _moved(scores[source], -half[0])[:, sure_b]
        best = rivals.amax(1).numpy() if sure_b.any() else np.full(len(source), -np.inf)
        fits = (_moved(scores[source, into], half[0, 0]).numpy() >= best) & ~padding[into]
        fits_padding = (earliest[into] <= 1) & (latest[into] >= 1)
        return bool(np.where(padding[source], fits_padding, fits).all())

    def _places(self, tokens: Tokens, half: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, U]`` int64: the first and the last place in the order that each token may have."""
        low, high = _moved(tokens.scores, -half), _moved(tokens.scores, half).clamp(max=1)
        least, most = (rank_of(tokens, terms) for terms in self._kernel.bounds(low.minimum(high), high))
        index = torch.arange(least.shape[1])
        lower, others = index < index[:, None], index != index[:, None]  # [i, j]: j < i, j != i

        def ahead(of_j: Tensor, of_i: Tensor) -> Tensor:
            j, i = of_j[:, None, :], of_i[:, :, None]
            return (((j > i) | ((j == i) & lower)) & others).sum(-1)

        return ahead(least, most), ahead(most, least)

    def _certain(self, t: Tensor) -> Tensor:
        """``[B]``: whether scores that are off by ``t [B]`` / 2 lead to the same decision."""
        half = t[:, None, None] / 2
        earliest, latest = self._places(self._tokens, half)
        moves = ((earliest < 2 * self._removed) & (latest > earliest)).any(1)
        best = self._pairs.argmax(-1, keepdim=True)
        low, high = _moved(self._pairs, -half).gather(-1, best), _moved(self._pairs, half)
        place = torch.arange(high.shape[-1])
        rival = (place != best) & ((high > low) | ((high == low) & (place < best)))
        return ~(moves | rival.flatten(1).any(1))
