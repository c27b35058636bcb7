"""How many tokens a model has where they could merge."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tsmerge_export.families.base import Arrays, Component, Family
from tsmerge_export.merge.run import MergeRun


class _Counter(MergeRun):
    """Notes the tokens at the first merge point."""

    tokens = 0

    def merge(
        self, layer: int, x: Tensor, keys: Tensor | None = None, hidden: Tensor | None = None
    ) -> Tensor:
        self.tokens = self.tokens or x.shape[1]
        return x


def tokens_at(family: Family, component: Component, model: nn.Module, inputs: Arrays) -> int:
    """How many tokens the first merge point sees for these inputs; 0 where there is none. No merging is applied."""
    run = _Counter({})
    forward(family, component, model, run, inputs)
    return run.tokens


def forward(family: Family, component: Component, model: nn.Module, run: MergeRun, inputs: Arrays) -> None:
    """One pass of the original model that calls ``run.merge`` at its merge points; hooked only while this runs."""
    handles = family.instrument(model, run)
    try:
        with torch.inference_mode():
            component.eager(model, {name: torch.from_numpy(value) for name, value in inputs.items()})
    finally:
        for handle in handles:
            handle.remove()
