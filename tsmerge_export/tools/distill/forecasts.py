"""Errors of an eager model on windows: merged or not, by its forecasts or by its likelihood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tsmerge_export.eager.apply import merged_inside
from tsmerge_export.families.base import Arrays, Component, Family, Run
from tsmerge_export.families.objective import Objective
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.distill.losses import distance, likelihood
from tsmerge_export.tools.distill.windows import in_batches
from tsmerge_export.verify.data import Windows
from tsmerge_export.verify.quality import Errors
from tsmerge_export.verify.window_errors import window_errors

UNMERGED = MergeConfig("none")
_CHUNK = 32


@dataclass(frozen=True)
class Judge:
    """How models of one architecture are judged; it holds no weights.

    Attributes:
        stepwise: whether the family draws a forecast step by step. That is slow and noisy, so that such models are
            chosen by the likelihood, under teacher forcing, and forecast for the test alone.
    """

    family: Family
    objective: Objective
    device: torch.device
    seed: int

    def stepwise(self, model: nn.Module) -> bool:
        """See above."""
        return self.family.generation(model) is not None or self.objective.kind == "tokens"

    def errors(
        self,
        model: nn.Module,
        merge: MergeConfig,
        windows: Windows,
        told: Callable[[int, int], None] | None = None,
    ) -> dict[str, Errors]:
        """By metric ``[C, W]``: errors of forecasts, see :func:`~tsmerge_export.verify.window_errors.window_errors`."""
        run = merged_run(self.family.components(model)[0], model, merge)
        # All columns in a row: of a short table one has but a few windows.
        series = windows.context.reshape(-1, windows.context.shape[-1])
        parts = []
        for start in range(0, len(series), _CHUNK):
            parts.append(self.family.forecast(model, run, series[start : start + _CHUNK], self.seed))
            if told is not None:
                told(min(start + _CHUNK, len(series)), len(series))
        quantiles = np.concatenate(parts).reshape(*windows.target.shape[:2], -1, windows.target.shape[-1])
        return window_errors(quantiles, self.family.quantile_levels(model), windows)

    def likelihood(
        self, model: nn.Module, merge: MergeConfig, windows: Windows, teacher: nn.Module | None = None
    ) -> float:
        """Mean over all windows: of the likelihood, in the unit of the loss; of the distance to ``teacher`` for
        outputs that have none."""
        total, count = 0.0, 0
        with torch.no_grad():
            for context, future in in_batches(windows, _CHUNK):
                batch = self.objective.batch(model, context, future).to(self.device)
                with merged_inside(model, merge):
                    predicted = self.objective.outputs(model, batch)
                if self.objective.kind == "tokens" and teacher is not None:
                    value = distance(predicted, self.objective.outputs(teacher, batch))
                else:
                    value = likelihood(predicted, batch.future)
                total, count = total + float(value) * len(context), count + len(context)
        return total / max(1, count)


def merged_run(component: Component, model: nn.Module, merge: MergeConfig) -> Run:
    """A call of a component of the eager model that merges, as if it was a file. The rest of it is left alone."""
    device = next(model.parameters()).device

    def run(feed: Arrays) -> Arrays:
        tensors = {name: torch.from_numpy(np.ascontiguousarray(v)).to(device) for name, v in feed.items()}
        with torch.no_grad(), merged_inside(model, merge):
            outputs = component.eager(model, tensors)
        return {name: value.cpu().numpy() for name, value in outputs.items()}

    return run
