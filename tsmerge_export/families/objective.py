"""What a family's models predict, and how a window of a series is put to them: all that training needs to know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

if TYPE_CHECKING:
    from tsmerge_export.families.base import Component

Series = NDArray[np.float32]

#: What a model gives for a window; each has a likelihood of its own (:mod:`tsmerge_export.tools.distill.losses`):
#: ``quantiles`` the pinball loss, ``logits`` the cross-entropy, ``distribution`` the negative log-likelihood,
#: ``points`` the squared error; ``tokens``, outputs of every token with no future beside them, none at all.
Kind = Literal["quantiles", "logits", "distribution", "points", "tokens"]
KINDS: tuple[str, ...] = get_args(Kind)
#: A unit is not smaller than this share of the largest value of its context: a constant has no unit of its own.
_LEAST_UNIT = 1e-4


@dataclass(frozen=True)
class Batch:
    """Windows as a model takes them.

    Attributes:
        inputs: by name. future: ``[B, H]`` float32, NaN is missing; for ``logits`` the labels ``[B, H]`` int64, -100
            where there is none.
        unit: ``[B]`` float32, standard deviation of what is known of each context: the unit of the losses.
    """

    inputs: Mapping[str, Tensor]
    future: Tensor
    unit: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        inputs = {name: value.to(device) for name, value in self.inputs.items()}
        return Batch(inputs, self.future.to(device), self.unit.to(device))


@dataclass(frozen=True)
class Predicted:
    """What a model says of a batch.

    Attributes:
        values: by name: ``quantiles [B, Q, H]``; ``logits [B, T, V]``; ``points [B, H, C]``; of a distribution its
            parameters ``[B, H, C]``, and ``series_loc``, ``series_scale`` (broadcast to them), the affine map from
            their unit to that of the data; of tokens ``tokens [B, N, D]``.
        unit: of the batch. levels: of the quantiles. distribution: its name in transformers.
    """

    kind: Kind
    values: Mapping[str, Tensor]
    unit: Tensor
    levels: tuple[float, ...] = ()
    distribution: str | None = None

    def float(self) -> Predicted:
        """The same in float32, after mixed precision."""
        return replace(self, values={name: value.float() for name, value in self.values.items()})


def unit_of(context: Series) -> Series:
    """``[B]``: standard deviation of what is known of each row of ``context [B, L]``; above 0."""
    values = np.asarray(context, np.float64)
    seen = ~np.isnan(values)
    count = np.maximum(seen.sum(1), 1)
    filled = np.where(seen, values, 0.0)
    mean = filled.sum(1) / count
    deviation = np.sqrt((np.where(seen, values - mean[:, None], 0.0) ** 2).sum(1) / count)
    least = _LEAST_UNIT * np.abs(filled).max(1, initial=0.0)
    unit = np.maximum(deviation, least)
    return np.where(unit > 0, unit, 1.0).astype(np.float32)


class Objective(ABC):
    """How a model is trained. ``model`` is always the family's original module.

    Attributes:
        kind: of what is predicted. horizon: steps of the future that it takes.
        any_length: whether a shorter context makes fewer tokens (else all are filled up to one length).
        windows: of a step on a CPU, at most. What more of them add to a gradient is worth less than the steps that the
            same time has room for.
        rate: the highest learning rate, as a multiple of what a model of its size has by default.
    """

    kind: Kind
    horizon: int
    any_length: bool = True
    windows: int = 64
    rate: float = 1.0

    @abstractmethod
    def feed(
        self, model: nn.Module, context: Series, future: Series
    ) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
        """The model's inputs by name, and :attr:`Batch.future`, for ``[B, L]`` and ``[B, H]``, NaN is missing."""

    @abstractmethod
    def outputs(self, model: nn.Module, batch: Batch) -> Predicted:
        """Run the module, gradients flowing; merging that is applied to it takes part."""

    def batch(self, model: nn.Module, context: Series, future: Series) -> Batch:
        """Windows ``[B, L]`` and what follows them ``[B, H]`` float32, NaN is missing, as tensors."""
        inputs, wanted = self.feed(model, context, future)
        tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in inputs.items()}
        return Batch(
            tensors, torch.from_numpy(np.ascontiguousarray(wanted)), torch.from_numpy(unit_of(context))
        )


class ByComponent(Objective):
    """A model whose only component forecasts alone: it is trained on what its file takes and gives."""

    def __init__(self, component: Component, horizon: int) -> None:
        self.component, self.horizon = component, horizon

    def feed(
        self, model: nn.Module, context: Series, future: Series
    ) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
        """See :meth:`Objective.feed`."""
        return self.component.from_series(model, context), future


class Quantiles(ByComponent):
    """Quantiles ``[B, Q, H]`` at ``levels``, which ``read`` finds among the component's outputs."""

    kind = "quantiles"

    def __init__(
        self,
        component: Component,
        horizon: int,
        levels: Sequence[float],
        read: Callable[[Mapping[str, Tensor]], Tensor] = lambda outputs: outputs["quantiles"],
    ) -> None:
        super().__init__(component, horizon)
        self.levels, self._read = tuple(levels), read

    def outputs(self, model: nn.Module, batch: Batch) -> Predicted:
        """See :meth:`Objective.outputs`."""
        found = self._read(self.component.eager(model, batch.inputs))
        return Predicted(self.kind, {"quantiles": found}, batch.unit, self.levels)


class EveryToken(ByComponent):
    """An output for every token, ``[B, N, D]``, beside which no future stands: the teacher alone is followed."""

    kind = "tokens"

    def __init__(self, component: Component, horizon: int, name: str) -> None:
        super().__init__(component, horizon)
        self._name = name

    def outputs(self, model: nn.Module, batch: Batch) -> Predicted:
        """See :meth:`Objective.outputs`."""
        found = self.component.eager(model, batch.inputs)[self._name]
        return Predicted(self.kind, {"tokens": found}, batch.unit)
