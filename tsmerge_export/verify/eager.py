"""The original eager module with merging applied: the reference that a family's files are held against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial

import numpy as np
import torch
from torch import nn

from tsmerge_export.backends.ratio import value_of
from tsmerge_export.eager.apply import merged_inside
from tsmerge_export.families.base import Component
from tsmerge_export.merge.run import StepRecord
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.run_time import INPUT
from tsmerge_export.verify import corpus, decisions, noise
from tsmerge_export.verify.artefact import Outputs
from tsmerge_export.verify.cast import Cast
from tsmerge_export.verify.decisions import Decision
from tsmerge_export.verify.threads import torch_threads


@dataclass(frozen=True)
class Expected:
    """What a reference makes of one case.

    Attributes:
        inputs: of the artefact. outputs: by name, batch first. decided: the decision of every merge layer.
        noise: measures the reference's own float32 noise on it; None where that does not excuse anything.
    """

    inputs: Outputs
    outputs: Outputs
    decided: Sequence[Decision]
    noise: Callable[[], noise.Noise] | None = None


@contextmanager
def eager_reference(
    component: Component, model: nn.Module, merge: MergeConfig, *, threads: int | None, noisy: bool
) -> Iterator[Callable[[corpus.Case], Expected]]:
    """A function that runs the module on a case, while the block lasts; the module is left as it was.

    Of a ratio that is chosen at run time it is the module with that ratio as its setting.

    Args:
        noisy: a row beyond the tolerance may be within the model's own float32 noise, which can be measured.
    """

    def expected(case: corpus.Case) -> Expected:
        inputs = component.from_series(model, case.series())
        ratio = merge.default_ratio if case.ratio is None else case.ratio
        fixed = merge if ratio is None else merge.fixed(ratio)
        outputs, decided = run_eager(component, model, fixed, inputs)
        if ratio == 0:  # the outputs are those of the module as it is, which decides nothing
            _, decided = run_eager(component, model, merge, inputs, ratio)
        measured = (
            cache(partial(noise.measure, component, model, fixed, inputs, merged_inside)) if noisy else None
        )
        chosen = {} if case.ratio is None else {INPUT: value_of(case.ratio)}
        return Expected(inputs | chosen, outputs, decided, measured)

    was_training = model.training
    model.eval()
    try:
        with torch_threads(threads):
            yield expected
    finally:
        model.train(was_training)


def run_eager(
    component: Component,
    model: nn.Module,
    merge: MergeConfig,
    inputs: Outputs,
    ratio: Fraction | None = None,
    *,
    follow: Sequence[StepRecord] | None = None,
    cast: Cast | None = None,
) -> tuple[Outputs, list[Decision]]:
    """Run the original module with merging applied: its outputs, and the decision of every merge layer.

    Args:
        ratio: where it is chosen at run time; None is the default.
        follow: every merge decides by what these compared. cast: products are in half.
    """
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in inputs.items()}
    # Always: a merge that the caller has applied must not leak in.
    with torch.no_grad(), merged_inside(model, merge) as run:
        run.record, run.ratio, run.follow = True, ratio, follow
        if cast is not None:
            cast.leave_out(run)
        with cast or nullcontext():
            outputs = component.eager(model, tensors)
        steps = decisions.from_steps(run.steps)
    return {name: value.numpy() for name, value in outputs.items()}, steps
