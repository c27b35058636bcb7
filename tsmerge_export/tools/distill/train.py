"""The training: a student that merges follows the future and an unmerged teacher; validation chooses what is kept."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tsmerge_export.console.progress import Progress, below
from tsmerge_export.eager.apply import merged_inside
from tsmerge_export.errors import UsageError
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.distill import memory, weights
from tsmerge_export.tools.distill.forecasts import UNMERGED, Judge
from tsmerge_export.tools.distill.losses import terms
from tsmerge_export.tools.distill.scores import METRICS
from tsmerge_export.tools.distill.settings import Recipe
from tsmerge_export.tools.distill.state import Standing, StateFile
from tsmerge_export.tools.distill.weights import Trainees
from tsmerge_export.tools.distill.windows import Data, Scored
from tsmerge_export.verify.quality import increase
from tsmerge_export.verify.window_errors import next_to_nothing

_CLIP = 1.0
_DECAY = 0.01
_LAST_RATE = 0.02
_WARM_UP = 20
_STATE_SECONDS = 20.0
#: Of the measurement that turns a budget into steps.
_MEASURED_STEPS, _MEASURED_SHARE = 6, 0.1
#: Of a budget, validations take at most this share.
_VALIDATION_SHARE = 0.3
#: So many steps in a row without a number for a gradient end a training.
_LOST = 20
#: Of the steps of elastic weights, those that draw a ratio whatever validation says.
_ALIKE = 0.5


@dataclass
class Task:
    """What one training needs besides its settings.

    Attributes:
        student: trained in place. teacher: frozen; both in eval mode on one device, so that nothing drops out.
        points: the settings that it is trained for. file: where its state is kept, or None.
        frozen: names of weights that are never trained.
        references: errors of the teacher on each table's validation windows, see :func:`references_of`.
    """

    student: nn.Module
    teacher: nn.Module
    judge: Judge
    data: Data
    points: Sequence[MergeConfig]
    recipe: Recipe
    references: Sequence[Any]
    frozen: frozenset[str]
    file: StateFile | None
    progress: Progress
    name: str = "train"


def references_of(judge: Judge, teacher: nn.Module, scored: Sequence[Scored]) -> list[Any]:
    """Of each table what the unmerged teacher makes of its validation windows: errors, or a likelihood."""
    if judge.stepwise(teacher):
        return [judge.likelihood(teacher, UNMERGED, one.validation, teacher) for one in scored]
    return [judge.errors(teacher, UNMERGED, one.validation) for one in scored]


def increases(task: Task, merge: MergeConfig) -> float:
    """By how much the student at one setting is above the teacher on validation, per cent: the mean over tables.

    Of a table it is the mean over MSE and WQL of the median over columns; of a model that draws step by step the
    likelihood's difference, in hundredths of a nat per step.
    """
    judge, found = task.judge, []
    for one, reference in zip(task.data.scored, task.references, strict=True):
        if judge.stepwise(task.student):
            now = judge.likelihood(task.student, merge, one.validation, task.teacher)
            found.append(100 * (now - reference))
            continue
        errors = judge.errors(task.student, merge, one.validation)
        for metric in METRICS:
            smallest = next_to_nothing(metric, one.validation)
            value = increase(errors[metric], reference[metric], smallest, judge.seed).median
            found.append(value if math.isfinite(value) else math.inf)
    return float(np.mean(found))


def drawn_shares(increases: Sequence[float]) -> list[float]:
    """How often a step draws each of several ratios, adding up to 1.

    Half of the steps are alike for all; the other half go by how far the last validation found each above the lowest.
    The unmerged end has little to learn and half of the tokens much; drawn alike, they end far apart.

    Args:
        increases: of each ratio on validation, per cent, as :func:`increases` gives them; one that is no number counts
            as the largest that is.
    """
    known = [value for value in increases if math.isfinite(value)]
    lowest, highest = min(known, default=0.0), max(known, default=0.0)
    behind = [(value if math.isfinite(value) else highest) - lowest for value in increases]
    total, count = sum(behind), len(increases)
    if total <= 0:
        return [1 / count] * count
    return [_ALIKE / count + (1 - _ALIKE) * value / total for value in behind]


class Training:
    """One training. :meth:`run` takes it from where it stands to its end."""

    def __init__(self, task: Task) -> None:
        self.task, recipe = task, task.recipe
        weights.prepare(task.student, recipe.trainable, recipe.rank, recipe.seed, task.frozen)
        self.trainees = Trainees(task.student, recipe.ema)
        self.standing = Standing()
        self.sampler = task.data.sampler(np.random.default_rng([recipe.seed, 7]))
        self._peak = recipe.highest_rate(task.student, task.judge.objective)
        self._optimizer = self._fresh()
        self._lost = 0
        device = task.judge.device
        # Only on a GPU: on a CPU it would change results for little. What is rounded to 8 bits is no bf16 number.
        self._mixed: Callable[[], Any] = (
            (lambda: torch.autocast("cuda", torch.bfloat16))
            if device.type == "cuda" and not recipe.rounds
            else nullcontext
        )

    def run(self, resume: bool) -> Standing:
        """Train to the end; the student then has the weights that validation chose.

        Raises:
            UsageError: no memory for one window, a loss that is no number, or a state of another training.
        """
        task, standing = self.task, self.standing
        loaded = task.file.load() if resume and task.file is not None else None
        if loaded is None:
            self._begin()
        else:
            self._take_up(*loaded)
        standing, saved = self.standing, time.monotonic()
        task.progress.step(task.name)
        marks = self._marks()
        while standing.step < standing.steps and not standing.finished:
            started = time.monotonic()
            self._step()
            standing.seconds += time.monotonic() - started
            if standing.step in marks:
                self._validate()
                patience = task.recipe.patience
                standing.finished = patience is not None and standing.stale >= patience
            try:
                self._tell()
            except KeyboardInterrupt:  # a progress raises it between two steps, where nothing is half done
                self._save()
                raise
            if standing.step in marks or time.monotonic() - saved >= _STATE_SECONDS:
                self._save()
                saved = time.monotonic()
        standing.finished = True
        self._save()
        self.trainees.load(self.trainees.best or self.trainees.copy())
        weights.settle(task.student, task.frozen)
        return standing

    def _begin(self) -> None:
        """Batch, first validation and number of steps."""
        task, standing, recipe = self.task, self.standing, self.task.recipe
        standing.batch = recipe.batch if isinstance(recipe.batch, int) else self._batch()
        begun = time.monotonic()
        self._validate()
        validation = time.monotonic() - begun
        standing.validations = recipe.validations
        if recipe.steps is not None:
            standing.steps = recipe.steps
        else:
            assert isinstance(recipe.budget, float)
            most = int(_VALIDATION_SHARE * recipe.budget / max(validation, 1e-3))
            standing.validations = max(1, min(recipe.validations, most))
            left = recipe.budget - standing.validations * validation
            standing.steps = max(1, int(left / self._measured(recipe.budget)))
        standing.validations = min(standing.validations, standing.steps)
        self._remember()
        self._save()
        below(task.progress, "")

    def _batch(self) -> int:
        """As many windows as memory allows."""
        task = self.task
        few = 4
        state = self.sampler.rng.bit_generator.state
        context, future = task.data.draw(self.sampler, 2 * few)
        self.sampler.rng.bit_generator.state = state
        objective = task.judge.objective
        batch = objective.batch(task.student, context, future).to(task.judge.device)
        kept = max(memory.bytes_kept(objective, task.student, point, batch) for point in task.points)
        per_window = kept / len(context) * task.data.longest / context.shape[1]
        return memory.batch_for(per_window, task.judge.device, objective.windows)

    def _measured(self, budget: float) -> float:
        """Seconds of a step. What the steps change is taken back."""
        before, standing = self.trainees.copy(), self.standing
        average = None if self.trainees.average is None else self.trainees.copy()
        state = self.sampler.rng.bit_generator.state
        self.standing = copy.deepcopy(standing)
        self.standing.steps = 1_000_000
        self._step()  # the first one pays for what is set up once
        begun, count = time.monotonic(), 0
        while count < _MEASURED_STEPS and (count == 0 or time.monotonic() - begun < _MEASURED_SHARE * budget):
            self._step()
            count += 1
        seconds = (time.monotonic() - begun) / count
        standing.batch, standing.notes = self.standing.batch, self.standing.notes
        self.standing = standing
        self.trainees.load(before)
        self.trainees.average = average
        self.sampler.rng.bit_generator.state = state
        self._optimizer = self._fresh()
        return seconds

    def _marks(self) -> set[int]:
        """The steps that a validation follows, the last one among them."""
        standing = self.standing
        return {round(standing.steps * (i + 1) / standing.validations) for i in range(standing.validations)}

    def _fresh(self) -> torch.optim.AdamW:
        matrices = [w for w in self.trainees.named.values() if w.dim() > 1]
        others = [w for w in self.trainees.named.values() if w.dim() <= 1]
        groups = [{"params": matrices, "weight_decay": _DECAY}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW([group for group in groups if group["params"]], lr=self._peak)

    def _rate(self) -> float:
        """Linear warm-up, then a cosine from the peak to a fiftieth of it."""
        standing = self.standing
        share = standing.step / standing.steps
        warm = min(1.0, (standing.step + 1) / min(_WARM_UP, max(1, standing.steps // 10)))
        return self._peak * warm * (_LAST_RATE + (1 - _LAST_RATE) * 0.5 * (1 + math.cos(math.pi * share)))

    def _step(self) -> None:
        """One update, with as many windows as there is memory for."""
        standing, rng = self.standing, self.sampler.rng
        state = rng.bit_generator.state
        while True:
            try:
                future, teacher, windows, norm = self._gradients()
                break
            except (RuntimeError, MemoryError) as error:
                if not memory.is_out_of_memory(error):
                    raise
            # Out of the handler: its traceback holds the tensors.
            self._optimizer.zero_grad(set_to_none=True)
            if standing.batch == 1:
                raise UsageError(
                    "out of memory with one window per step; use a shorter --context, --trainable lora:8 or another "
                    "device"
                )
            standing.batch //= 2
            note = f"out of memory: the batch was halved to {standing.batch}"
            others = (n for n in standing.notes if not n.startswith("out of memory"))
            standing.notes = (*others, note)
            rng.bit_generator.state = state
            if self.task.judge.device.type == "cuda":
                torch.cuda.empty_cache()
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate()
        if math.isfinite(norm):
            self._optimizer.step()
            self._lost = 0
        else:
            self._lost += 1
            if self._lost >= _LOST:
                raise UsageError(
                    f"--lr {self._peak:g}: the loss is no number any more at step {standing.step}; give a lower one"
                )
        standing.step += 1
        self.trainees.step(standing.step)
        standing.sums = tuple(a + b for a, b in zip(standing.sums, (future, teacher, 1.0), strict=True))
        self._windows = windows

    def _gradients(self) -> tuple[float, float, int, float]:
        """Both parts of the loss, the windows of the step, and the norm of the gradient, clipped to 1."""
        task, rng = self.task, self.sampler.rng
        point = task.points[0]
        if len(task.points) > 1:
            last = self.standing.curve[-1]["increase"]
            shares = drawn_shares([last[_label(one)] for one in task.points])
            point = task.points[int(rng.choice(len(task.points), p=shares))]
        context, future = task.data.draw(self.sampler, self.standing.batch)
        objective = task.judge.objective
        batch = objective.batch(task.student, context, future).to(task.judge.device)
        self._optimizer.zero_grad(set_to_none=True)
        # What a model draws at random hangs on the step alone, so that a resumed training draws the same.
        devices = [task.judge.device] if task.judge.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), self._mixed():
            torch.manual_seed(task.recipe.seed * 1_000_003 + self.standing.step)
            with torch.no_grad():
                taught = objective.outputs(task.teacher, batch)
            with merged_inside(task.student, point):
                said = objective.outputs(task.student, batch)
        likely, far = terms(said, taught, batch.future)
        (likely + task.recipe.teacher * far).backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(list(self.trainees.named.values()), _CLIP)
        return float(likely.detach()), float(far.detach()), len(context), float(norm)

    def _validate(self) -> None:
        """Note the increases at every setting, and keep the weights if they are the best so far."""
        task, standing = self.task, self.standing
        with self.trainees.averaged() as values:
            found = [increases(task, point) for point in task.points]
        mean = float(np.mean(found))
        named = {_label(point): value for point, value in zip(task.points, found, strict=True)}
        point = {
            "step": standing.step,
            "seconds": round(standing.seconds, 2),
            "mean": mean,
            "increase": named,
        }
        standing.curve = (*standing.curve, point)
        if standing.sums[2]:
            losses = (standing.sums[0] / standing.sums[2], standing.sums[1] / standing.sums[2])
            standing.losses = (*standing.losses, (standing.step, *losses))
        standing.sums = (0.0, 0.0, 0.0)
        if math.isfinite(mean) and (standing.best is None or mean < standing.best):
            standing.best, standing.best_step, standing.stale = mean, standing.step, 0
            self.trainees.best = values
        else:
            standing.stale += 1

    def _tell(self) -> None:
        """The bar, and under it loss, speed and what time is left."""
        standing, progress = self.standing, self.task.progress
        progress.update(standing.step, standing.steps)
        loss = standing.sums[0] + self.task.recipe.teacher * standing.sums[1]
        shown = "" if not standing.sums[2] else f"loss {loss / standing.sums[2]:.4f}  "
        pace = standing.seconds / standing.step
        left = round(pace * (standing.steps - standing.step))
        best = "" if standing.best is None else f"  validation {standing.best:+.1f} %"
        below(
            progress,
            f"{shown}{self._windows / max(pace, 1e-9):.0f} windows/s  {left // 60}:{left % 60:02d} left{best}",
        )

    def _remember(self) -> None:
        self.standing.rng = self.sampler.rng.bit_generator.state  # type: ignore[assignment]

    def _save(self) -> None:
        if self.task.file is None:
            return
        self._remember()
        trainees, moments = self.trainees, self._optimizer.state
        groups: dict[str, dict[str, Tensor]] = {"now": trainees.copy()}
        for group, values in (("average", trainees.average), ("best", trainees.best)):
            if values is not None:
                groups[group] = values
        for key in ("exp_avg", "exp_avg_sq", "step"):
            groups[key] = {name: moments[w][key] for name, w in trainees.named.items() if w in moments}
        self.task.file.save(self.standing, groups)

    def _take_up(self, standing: Standing, groups: dict[str, dict[str, Tensor]]) -> None:
        """Go on from a state. Raises UsageError where it is none of this model."""
        try:
            self._put_back(standing, groups)
        except (KeyError, TypeError, ValueError, RuntimeError):
            assert self.task.file is not None
            raise UsageError(
                f"--resume: {self.task.file.path} does not fit the model; start again without --resume"
            ) from None

    def _put_back(self, standing: Standing, groups: dict[str, dict[str, Tensor]]) -> None:
        trainees, device = self.trainees, self.task.judge.device
        self.standing = standing
        self.sampler.rng.bit_generator.state = standing.rng
        trainees.load(groups["now"])

        def on_device(group: str) -> dict[str, Tensor] | None:
            found = groups.get(group)
            return None if found is None else {name: value.to(device) for name, value in found.items()}

        trainees.average, trainees.best = on_device("average"), on_device("best")
        for name, weight in trainees.named.items():
            if name in groups.get("step", {}):
                self._optimizer.state[weight] = {
                    "step": groups["step"][name],
                    "exp_avg": groups["exp_avg"][name].to(device),
                    "exp_avg_sq": groups["exp_avg_sq"][name].to(device),
                }


def _label(merge: MergeConfig) -> str:
    """A setting in a history: its ratio where it has one, 0 unmerged."""
    if not merge.active:
        return "0"
    return str(merge.ratio) if merge.takes("ratio") and merge.ratio is not None else merge.describe()
