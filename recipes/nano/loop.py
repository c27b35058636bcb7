"""The training loop: AdamW with cosine decay, validation on the 60-80 % part, resumable at any step."""

from __future__ import annotations

import math
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tsmerge_export.tools.distill.synthetic import Array, Sampler

from .evaluate import Forecast, score
from .family import Family
from .series import Panel
from .state import Progress as Standing
from .state import load_state, save_model, save_state

BIAS_RATE = 5.0  # measured: the relative attention bias learns the season only at a higher rate
WARMUP = 100
CLIP = 1.0
# What is validated and kept is the average of the weights over the last thousand steps or so: single steps of
# a nano model differ by more than the models of neighbouring validations.
AVERAGE = 0.999
STATE_EVERY = 60.0  # seconds


@dataclass(frozen=True)
class Budget:
    """When a run is over: after `steps` steps or `seconds` of training, counted over all resumed parts."""

    steps: int | None
    seconds: float | None

    def share(self, standing: Standing) -> float:
        """0 at the start, 1 at the end."""
        if self.steps is not None:
            return min(1.0, standing.step / self.steps)
        assert self.seconds is not None
        return min(1.0, standing.seconds / self.seconds)


class Interrupt:
    """Turns SIGINT into a flag, so that a run stops between two steps with its state saved."""

    def __init__(self) -> None:
        self.raised = False

    def __enter__(self) -> Interrupt:
        self._before = signal.signal(signal.SIGINT, self._set)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _set(self, _signal: int, _frame: FrameType | None) -> None:
        self.raised = True


def make_optimizer(model: nn.Module, rate: float) -> torch.optim.AdamW:
    """AdamW; the relative attention bias gets `BIAS_RATE` times the rate and no decay."""
    bias = [p for n, p in model.named_parameters() if "relative_attention_bias" in n]
    rest = [p for n, p in model.named_parameters() if "relative_attention_bias" not in n]
    return torch.optim.AdamW(
        [
            {"params": rest, "lr": rate, "factor": 1.0, "weight_decay": 0.01},
            {"params": bias, "lr": rate * BIAS_RATE, "factor": BIAS_RATE, "weight_decay": 0.0},
        ]
    )


def set_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, share: float) -> None:
    """Linear warm-up over the first steps, cosine decay to 2 % over the budget."""
    rate = peak * min(1.0, (step + 1) / WARMUP) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def forecaster(family: Family, model: nn.Module) -> Forecast:
    """The point forecast of a model in memory; sampling has its own seed and leaves training's alone."""

    def forecast(contexts: Array) -> Array:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return family.point(model, contexts)

    return forecast


def validate(family: Family, model: nn.Module, panels: list[Panel]) -> dict[str, float]:
    """Median over columns of the MSE divided by the naive one's, per data set, on the 60-80 % part."""
    model.eval()
    forecast = forecaster(family, model)
    scores = [score(panel, forecast, "validation", family.validation_windows) for panel in panels]
    return {entry.dataset: entry.median_model / entry.median_naive for entry in scores}


def train(
    family: Family,
    model: nn.Module,
    sampler: Sampler,
    panels: list[Panel],
    budget: Budget,
    folder: Path,
    identity: dict[str, Any],
    resume: bool,
    validate_every: float,
    compiled: bool,
    console: Console,
) -> tuple[Standing, bool]:
    """Trains until the budget is used up; returns where it stands and whether SIGINT stopped it.

    The folder holds the model with the best validation figure (without real series: the last one).
    """
    optimizer = make_optimizer(model, family.learning_rate)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE))
    objective = torch.compile(family.loss, dynamic=False) if compiled else family.loss
    standing = Standing()
    if resume:
        standing = load_state(folder, identity, model, average, optimizer, sampler.rng)
    # Only hourly series have the season that the naive forecast uses, so only they choose the model.
    chosen = [panel for panel in panels if panel.name.startswith("ETT")]
    model.train()
    recent: list[float] = []
    saved = time.monotonic()
    # On resume the next validation is due a full interval after the last one.
    validated = standing.validation[-1][1] if standing.validation else 0.0
    columns = (
        TextColumn(family.name),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )

    def check() -> None:
        """Validates, notes the figures, and keeps the model if it is the best so far."""
        loss = float(np.mean(recent))
        recent.clear()
        standing.losses.append(round(loss, 5))
        if not chosen:
            save_model(folder, average.module)
            return
        figures = validate(family, average.module, chosen)
        mean = float(np.mean(list(figures.values())))
        standing.validation.append([standing.step, round(standing.seconds, 1), round(mean, 5)])
        better = standing.best is None or mean < standing.best
        if better:
            standing.best, standing.best_step = mean, standing.step
            save_model(folder, average.module)
        shown = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
        console.print(
            f"step {standing.step}, {standing.seconds / 60:.1f} min, loss {loss:.4f}, "
            f"validation MSE / naive: {shown}{' (best)' if better else ''}"
        )

    with Interrupt() as interrupt, Progress(*columns, console=console) as bar:
        total = budget.steps if budget.steps is not None else round(budget.seconds or 0)
        task = bar.add_task("", total=total)
        while (share := budget.share(standing)) < 1.0 and not interrupt.raised:
            started = time.monotonic()
            stage = family.stage(share)
            contexts, targets = sampler.batch(stage.batch, stage.context, stage.shares)
            set_rate(optimizer, family.learning_rate, standing.step, share)
            loss = objective(model, *family.tensors(model, contexts, targets))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            average.update_parameters(model)
            standing.step += 1
            standing.seconds += time.monotonic() - started
            recent.append(loss.item())
            done = standing.step if budget.steps is not None else int(standing.seconds)
            shown = f"step {standing.step} loss {np.mean(recent[-50:]):.4f}"
            bar.update(task, completed=done, description=shown)
            if standing.seconds - validated >= validate_every:
                validated = standing.seconds
                check()
            if time.monotonic() - saved >= STATE_EVERY:
                saved = time.monotonic()
                save_state(folder, identity, standing, model, average, optimizer, sampler.rng)
        if recent and not interrupt.raised:
            check()
        save_state(folder, identity, standing, model, average, optimizer, sampler.rng)
    return standing, interrupt.raised
