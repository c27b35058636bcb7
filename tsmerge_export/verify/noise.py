"""The float32 noise of an eager model itself: how far it is from what it would compute with exact numbers.

A file that computes in another order is about as far from the model as the model is from the truth, and no tolerance
below that says anything about the file. How far that is depends on the model, the series and the output: a mean of
values that cancel is noise alone, whatever a table says of its scale. So it is measured, where a row misses the plain
tolerance: the model in float32 against the same model in float64, the same tokens merged.

One difference is one draw, and may be 0 by chance. Others are taken from weights and inputs that are moved by less than
a millionth, each against its own float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tsmerge_export.families.base import Component
from tsmerge_export.families.hf import detached_twin
from tsmerge_export.merge.run import MergeRun, StepRecord
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify.artefact import Outputs

#: A row passes where its error is at most so many times the noise. Two float32 computations of one value are each off
#: by about the noise, so their difference by twice that; twice again, since three draws do not find the largest.
FACTOR = 4.0
#: Draws of the noise, the first of them with weights and inputs as they are.
DRAWS = 3
#: How far weights and inputs are moved for the others, as a share of themselves.
FAR = 2.0**-20
_ROUNDING = 2.0**-23
_WHOLE = 2.0**12

Noise = dict[str, npt.NDArray[np.float64]]
Feed = dict[str, Tensor]
#: How merging is applied: :func:`~tsmerge_export.eager.apply.merging`.
Merging = Callable[[nn.Module, MergeConfig], AbstractContextManager[MergeRun]]


def measure(
    component: Component, model: nn.Module, merge: MergeConfig, inputs: Outputs, merging: Merging
) -> Noise:
    """The noise of every output of floats in every row.

    Args:
        component, model, merge: as for :func:`~tsmerge_export.verify.parity.check`; the model stays as it is.
        inputs: of the component, batch first. merging: applies the settings to a module.

    Returns:
        By output ``[B]``: the largest difference of any element in any draw. A row without finite values has none, 0.
    """
    feed = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in inputs.items()}
    try:
        return _against_float64(component, model, merge, feed, merging)
    except (RuntimeError, TypeError):  # somewhere it asks for float32 by name
        return _against_moved(component, model, merge, feed, merging)


def _against_float64(
    component: Component, model: nn.Module, merge: MergeConfig, feed: Feed, merging: Merging
) -> Noise:
    def pair(draw: int) -> tuple[Feed, Feed]:
        twin, near = detached_twin(model, share=False), feed
        if draw:
            near = _moved(twin, feed, draw, FAR)
        single, steps = _run(component, twin, merge, near, merging, None)
        wide = {name: value.double() if value.is_floating_point() else value for name, value in near.items()}
        with _float64():
            double, _ = _run(component, twin.double(), merge, wide, merging, steps)
        return single, double

    return of_draws(pair)


def of_draws(pair: Callable[[int], tuple[Feed, Feed]]) -> Noise:
    """The noise of every output of floats in every row, of any model.

    Args:
        pair: of the number of a draw: outputs by name, ``[B, ...]``, in float32 and in float64 with the same tokens
            merged. Draw 0 is the model and its inputs as they are; in the others both are moved (:func:`move`).

    Returns:
        See :func:`measure`.
    """
    found: Noise = {}
    for draw in range(DRAWS):
        _note(found, *pair(draw))
    return found


def _against_moved(
    component: Component, model: nn.Module, merge: MergeConfig, feed: Feed, merging: Merging
) -> Noise:
    """Against itself with weights and inputs moved by a rounding: what a stable computation is off by."""
    found: Noise = {}
    plain, steps = _run(component, detached_twin(model, share=False), merge, feed, merging, None)
    for draw in range(1, DRAWS + 1):
        twin = detached_twin(model, share=False)
        near = _moved(twin, feed, draw, _ROUNDING)
        _note(found, plain, _run(component, twin, merge, near, merging, steps)[0])
    return found


def _moved(model: nn.Module, feed: Feed, seed: int, share: float) -> Feed:
    """Weights of a module, in place, and inputs: every number by at most such a share of itself."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            move(weight, generator, share)
    return {name: move(value.clone(), generator, share) for name, value in feed.items()}


def _note(found: Noise, single: Feed, other: Feed) -> None:
    for name, value in single.items():
        if value.is_floating_point():
            found[name] = np.maximum(found.get(name, 0.0), _largest(value, other[name]))


def move(value: Tensor, generator: torch.Generator, most: float = FAR) -> Tensor:
    """Every number by at most such a share of itself, in place; small whole numbers, such as those of masks, stay."""
    if value.is_floating_point():
        share = torch.rand(value.shape, generator=generator, dtype=value.dtype)
        whole = (value == value.round()) & (value.abs() < _WHOLE)
        value.mul_(torch.where(whole, 1.0, 1 + (2 * share - 1) * most))
    return value


def _run(
    component: Component,
    model: nn.Module,
    merge: MergeConfig,
    feed: Feed,
    merging: Merging,
    follow: Sequence[StepRecord] | None,
) -> tuple[Feed, Sequence[StepRecord]]:
    with torch.no_grad(), merging(model, merge) as run:
        run.record, run.follow = follow is None, follow
        return component.eager(model, feed), list(run.steps)


@contextmanager
def _float64() -> Iterator[None]:
    """What a forward makes anew, without saying of what type, is float64 too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _largest(single: Tensor, double: Tensor) -> npt.NDArray[np.float64]:
    if single.shape != double.shape or not single.numel():  # sizes that hang on the data: nothing can be said
        return np.zeros(len(single))
    off = (single.double() - double.double()).abs().reshape(len(single), -1)
    return torch.where(off.isfinite(), off, torch.zeros_like(off)).amax(1).numpy()
