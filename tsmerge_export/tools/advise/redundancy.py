"""How alike the tokens of a model are at the places where they could merge; nothing is merged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tsmerge_export.eager.apply import current_run
from tsmerge_export.eager.count import forward
from tsmerge_export.families.base import Component, Family
from tsmerge_export.merge.run import MergeRun
from tsmerge_export.methods.matching import ranks

#: From this cosine on two tokens count as alike: the default threshold of dynamic merging.
ALIKE = 0.9
_CHUNK = 8  # windows per forward


@dataclass(frozen=True)
class Redundancy:
    """At one merge point, over all windows.

    Attributes:
        layer: index of the merge point. tokens: at it, special ones too.
        neighbours: mean cosine of the pairs of neighbouring tokens that local merging (k = 1) compares.
        best: mean cosine of each of their first tokens to the best partner anywhere (ToMe's matching).
        alike: share of all tokens that could go into a neighbour at least :data:`ALIKE` alike, 0 to 1/2.
    """

    layer: int
    tokens: int
    neighbours: float
    best: float
    alike: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass
class _Sums:
    tokens: int = 0
    near: list[Tensor] = field(default_factory=list)
    best: list[Tensor] = field(default_factory=list)
    rows: int = 0


class Observer(MergeRun):
    """A run that looks at every merge point and merges nowhere."""

    def __init__(self, protect_first: int, protect_last: int) -> None:
        super().__init__({})
        self._protect = {"protect_first": protect_first, "protect_last": protect_last}
        self.sums: dict[int, _Sums] = {}

    def merge(
        self, layer: int, x: Tensor, keys: Tensor | None = None, hidden: Tensor | None = None
    ) -> Tensor:
        """Note the cosines of the tokens ``x [B, N, D]``; returns x itself."""
        sums = self.sums.setdefault(layer, _Sums())
        sums.tokens, sums.rows = x.shape[1], sums.rows + x.shape[0]
        for k, noted in ((1, sums.near), (None, sums.best)):
            rank, _ = ranks(x.detach(), self._size, k=k, **self._protect)  # type: ignore[arg-type]
            # What is no number between two real tokens (padding, NaN) lies outside this range.
            noted.append(rank[(rank >= -1) & (rank <= 1)])
        return x


def measure(
    family: Family,
    component: Component,
    model: nn.Module,
    windows: npt.NDArray[np.float32],
    progress: Callable[[int, int], None] | None = None,
) -> list[Redundancy]:
    """Run the original model on windows ``[W, L]`` (NaN is missing) and compare its tokens at every merge point.

    Args:
        component: the family's first. model: in eager PyTorch; hooked only while this runs.
        progress: called with (batches of windows done, in all).

    Returns:
        One entry per merge point with at least one pair of real tokens, in order.
    """
    if current_run(model) is not None:
        raise ValueError("merging is applied to the model; remove it first")
    points = family.merge_points(model)
    run = Observer(points.protect_first, points.protect_last)
    chunks = [windows[start : start + _CHUNK] for start in range(0, len(windows), _CHUNK)]
    for number, chunk in enumerate(chunks):
        forward(family, component, model, run, component.from_series(model, chunk))
        if progress is not None:
            progress(number + 1, len(chunks))
    found = []
    for layer, sums in sorted(run.sums.items()):
        near, best = torch.cat(sums.near).double(), torch.cat(sums.best).double()
        if len(near):
            alike = float((near >= ALIKE).sum()) / (sums.rows * sums.tokens)
            found.append(Redundancy(layer, sums.tokens, float(near.mean()), float(best.mean()), alike))
    return found
