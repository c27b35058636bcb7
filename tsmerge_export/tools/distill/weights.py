"""Which weights are trained, their running average, and the best ones so far."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tsmerge_export.errors import UsageError

Named = dict[str, Tensor]
#: Parts of the names of modules' classes: attention or what a state-space model has instead, and norms.
_CHOSEN = ("Attention", "Mixer", "Norm")


class LowRank(nn.Module):
    """``W + B A`` in place of a matrix ``W [out, in]``, with A ``[R, in]`` at random and B ``[out, R]`` 0 at first.

    LoRA, arXiv 2106.09685, section 4.1, with a scale of 1.
    """

    def __init__(self, shape: torch.Size, rank: int, generator: torch.Generator, like: Tensor) -> None:
        super().__init__()
        rows, columns = shape
        start = torch.randn((rank, columns), generator=generator) / math.sqrt(columns)
        self.a = nn.Parameter(start.to(like))
        self.b = nn.Parameter(torch.zeros((rows, rank)).to(like))

    def forward(self, weight: Tensor) -> Tensor:
        """``[out, in]`` -> the same shape."""
        return weight + self.b @ self.a


def fixed(model: nn.Module) -> frozenset[str]:
    """Names of weights that are none to train: a table of positions. A model that is frozen as a whole has none."""
    names = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    return frozenset(names if len(names) < sum(1 for _ in model.parameters()) else ())


def prepare(
    model: nn.Module, trainable: str, rank: int | None, seed: int, frozen: Collection[str] = ()
) -> None:
    """Let gradients reach the weights that are to be trained, and no others; :func:`settle` takes additions back.

    Args:
        trainable: see :class:`~tsmerge_export.tools.distill.settings.Recipe`. rank: of ``lora:R``. seed: of additions.
        frozen: names of weights that are never trained.

    Raises:
        UsageError: the model has no such weights.
    """
    model.requires_grad_(trainable == "all")
    if trainable == "norm+attention":
        for module in model.modules():
            if any(part in type(module).__name__ for part in _CHOSEN):
                module.requires_grad_(True)
    elif rank is not None:
        generator = torch.Generator().manual_seed(seed)
        for module in [m for m in model.modules() if isinstance(m, nn.Linear)]:
            if rank < min(module.weight.shape):
                addition = LowRank(module.weight.shape, rank, generator, module.weight)
                parametrize.register_parametrization(module, "weight", addition)
                module.parametrizations.weight.original.requires_grad_(False)  # type: ignore[union-attr]
    for name in frozen if rank is None else ():
        model.get_parameter(name).requires_grad_(False)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise UsageError(f"--trainable {trainable}: the model has no such weights; choose another, or all")


def settle(model: nn.Module, frozen: Collection[str] = ()) -> None:
    """Put additions into the weights that they were made to; gradients reach all again but those ``frozen``."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name not in frozen)


class Trainees:
    """The trained weights of a model, with a running average of them and a copy of the best.

    Attributes:
        named: by name, those in the model. average: the running average, or None. best: None before the first.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.named: dict[str, nn.Parameter] = {
            name: weight for name, weight in model.named_parameters() if weight.requires_grad
        }
        self._decay = decay
        self.average: Named | None = self.copy() if decay else None
        self.best: Named | None = None

    def copy(self) -> Named:
        """The weights as they are."""
        return {name: weight.detach().clone() for name, weight in self.named.items()}

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Put values into the model."""
        with torch.no_grad():
            for name, weight in self.named.items():
                weight.copy_(values[name])

    def step(self, done: int) -> None:
        """Let the average follow after ``done`` steps; the first ones weigh more, so that it forgets the start."""
        if self.average is None:
            return
        decay = min(self._decay, (1 + done) / (10 + done))
        with torch.no_grad():
            for name, weight in self.named.items():
                self.average[name].lerp_(weight.detach(), 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[Named]:
        """The model has its average inside the block, which gets it; without one, what it has anyway."""
        if self.average is None:
            yield self.copy()
            return
        now = self.copy()
        self.load(self.average)
        try:
            yield {name: value.clone() for name, value in self.average.items()}
        finally:
            self.load(now)
