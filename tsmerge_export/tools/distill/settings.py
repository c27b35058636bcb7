"""What a distillation is asked to do: a recipe, checked when it is made."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import nn

from tsmerge_export.errors import UsageError
from tsmerge_export.families.objective import Objective
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.parse import number, parse_ratio, whole
from tsmerge_export.settings.precision import FP32, TRAINABLE

#: Seconds of training where neither a budget nor a number of steps is given.
BUDGET = 900.0
#: What is trained for where no setting is given: half of the tokens in every layer.
MERGE = MergeConfig("local", k=1, ratio="1/2")
_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h)")


@dataclass(frozen=True)
class Recipe:
    """Settings of a distillation.

    Args:
        elastic: ratios that one checkpoint is to serve, from 0 (unmerged) to 1/2: each step draws one of them. Empty
            trains for the one setting that is given.
        trainable: ``all`` weights; ``norm+attention``, those of attention (of the mixer, in a state-space model) and
            of norms; ``lora:R``, additions of rank R to every matrix, which are merged into the weights at the end.
        budget: seconds, or text such as ``15min``; what the training takes, about. It is turned into a number of steps
            at the beginning. None is 15 minutes, unless ``steps`` is given.
        steps: instead of a budget.
        batch: windows per step, or ``auto``: as many as memory allows, at most 256 on a GPU and what the family says on
            a CPU (64, Chronos-T5 16). Steps of the longest context take half as many.
        lr: the highest learning rate; None is :func:`default_rate` of the model's size, times what the family says.
        seed: of everything that is drawn. The same seed on as many threads gives the same weights.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        max_increase: goal, as a share: how much more MSE and WQL merging may cost on the test part.
        control: also train without merging, by the same steps.
        context: steps of the windows that are scored; None is what the model reads, or the data have room for.
        windows: at most so many per column are tested; None is all, of a model that draws step by step 64 in all.
        teacher: weight of the distance to the teacher in the loss, beside the likelihood of the future.
        validations: so many in the course of the training, which choose what is kept.
        patience: stop after so many of them without a better one; None never stops.
        ema: decay of a running average of the weights, which is what is validated and kept; 0 keeps none.
        threads: of PyTorch; None is half of the cores.
        precision: of the files that the weights are for, ``fp32`` or one that is quantised: layers round in training as
            they will there.

    Raises:
        UsageError: a setting is out of range, or contradicts another.
    """

    elastic: tuple[Fraction, ...] = ()
    trainable: str = "all"
    budget: float | str | None = None
    steps: int | None = None
    batch: int | Literal["auto"] = "auto"
    lr: float | None = None
    seed: int = 0
    device: str = "auto"
    max_increase: float = 0.03
    control: bool = False
    context: int | None = None
    windows: int | None = None
    teacher: float = 1.0
    validations: int = 12
    patience: int | None = 6
    ema: float = 0.985
    threads: int | None = None
    precision: str = FP32

    def __post_init__(self) -> None:
        if self.steps is not None and self.budget is not None:
            raise UsageError("--steps and --budget exclude each other; give one of them")
        if self.steps is not None:
            whole("--steps", self.steps, 1)
        else:
            self._set("budget", seconds(BUDGET if self.budget is None else self.budget))
        self._set("elastic", parse_elastic(self.elastic))
        if self.batch != "auto":
            whole("--batch", self.batch, 1)
        if self.lr is not None:
            self._set("lr", number("--lr", self.lr, 1e-8, 1.0))
        self._set("max_increase", number("--max-increase", self.max_increase, 0.0, 10.0))
        self._set("teacher", number("teacher", self.teacher, 0.0, 1e6))
        self._set("ema", number("ema", self.ema, 0.0, 0.99999))
        whole("--seed", self.seed, 0)
        whole("validations", self.validations, 1)
        for flag, value in (
            ("--context", self.context),
            ("windows", self.windows),
            ("patience", self.patience),
            ("--threads", self.threads),
        ):
            if value is not None:
                whole(flag, value, 1)
        if self.trainable not in ("all", "norm+attention") and self.rank is None:
            raise UsageError(
                f"--trainable {self.trainable} is not known; choose all, norm+attention or lora:R with a rank, such as "
                "lora:8"
            )
        if self.precision not in (FP32, *TRAINABLE):
            raise UsageError(
                f"--precision {self.precision}: training rounds for {', '.join(TRAINABLE)}; give one of them, or leave "
                "it out"
            )
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise UsageError(f"--device {self.device} is not known; choose auto, cpu or cuda")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # frozen; this is its own constructor

    @property
    def rounds(self) -> bool:
        """Whether layers round."""
        return self.precision != FP32

    @property
    def rank(self) -> int | None:
        """R of ``lora:R``; None for the other two."""
        found = re.fullmatch(r"lora:([1-9]\d{0,5})", self.trainable)
        return None if found is None else int(found[1])

    def torch_device(self) -> torch.device:
        """Where to train. Raises UsageError where there is no such device."""
        if self.device == "cpu" or (self.device == "auto" and not torch.cuda.is_available()):
            return torch.device("cpu")
        index = int(self.device.partition(":")[2] or 0)
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            there = torch.cuda.device_count() if torch.cuda.is_available() else 0
            raise UsageError(
                f"--device {self.device}: PyTorch sees {there} CUDA device{'s' * (there != 1)} here; use --device cpu"
            )
        return torch.device("cuda", index)

    def points(self, merge: MergeConfig) -> tuple[MergeConfig, ...]:
        """The settings to train for, ``merge`` with each of the ratios; the unmerged one has the method ``none``.

        Raises:
            UsageError: ``merge`` merges nothing, or does not go with the ratios.
        """
        if not merge.active:
            raise UsageError("--merge none: there is nothing to distill for; give a method")
        if merge.at_run_time:
            raise UsageError(
                "--ratio runtime is for exports; distill for the ratios that runs will choose: --elastic"
            )
        if not self.elastic:
            return (merge,)
        if not merge.takes("ratio") or not isinstance(merge.ratio, Fraction):
            raise UsageError(
                f"--elastic varies one ratio for all layers, which {merge.describe()} does not have; leave it out"
            )
        if merge.ratio not in self.elastic:
            raise UsageError(
                f"--ratio {merge.ratio} is not among --elastic {','.join(map(str, self.elastic))}; add it there"
            )
        return tuple(replace(merge, ratio=r) if r else MergeConfig("none") for r in self.elastic)

    def highest_rate(self, model: nn.Module, objective: Objective) -> float:
        """The learning rate at its highest: what is given, else that of the model's size times what the family says."""
        return self.lr or default_rate(sum(p.numel() for p in model.parameters())) * objective.rate

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"elastic": [str(ratio) for ratio in self.elastic]}


def parse_elastic(value: Sequence[str | float | Fraction] | str) -> tuple[Fraction, ...]:
    """Ratios from 0 to 1/2, at least two, in rising order; text has commas. Raises UsageError."""
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else list(value)
    found = set()
    for part in parts:
        zero = part == 0 or (isinstance(part, str) and re.fullmatch(r"0+(\.0*)?%?", part) is not None)
        try:
            found.add(Fraction(0) if zero else parse_ratio(part))
        except UsageError as error:
            raise UsageError(str(error).replace("--ratio", "--elastic", 1)) from None
    if len(found) == 1 or (parts and not any(found)):
        raise UsageError("--elastic names one ratio; give several, such as 0,1/4,1/2, or leave it out")
    return tuple(sorted(found))


def seconds(value: float | str) -> float:
    """A time such as ``30s``, ``15min`` or ``1h``, or a number of seconds. Raises UsageError."""
    if isinstance(value, str):
        found = _TIME.fullmatch(value.strip())
        if found is None:
            raise UsageError(f"--budget {value!r} is not a time; write it as 30s, 15min or 1h")
        value = float(found[1]) * _UNITS[found[2]]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UsageError(f"--budget {value} is not a time above 0")
    return float(value)


def default_rate(parameters: int) -> float:
    """Learning rate for a model of so many weights: 1e-3 up to a million, falling with the root of their number."""
    return 1e-3 * min(1.0, math.sqrt(1e6 / max(1, parameters)))
