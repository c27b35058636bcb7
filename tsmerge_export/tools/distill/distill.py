"""The command's work: from a model and a merge setting to weights that are trained for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from tsmerge_export import families
from tsmerge_export.bundle.json_file import is_bundle
from tsmerge_export.checkpoint import load_model
from tsmerge_export.checkpoint.weights import digest
from tsmerge_export.console.progress import NoProgress, Progress, below
from tsmerge_export.eager.apply import plan_of, refuse_where_nothing_merges
from tsmerge_export.eager.default import settle
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.families.base import Family
from tsmerge_export.families.hf import detached_twin
from tsmerge_export.families.objective import Objective
from tsmerge_export.families.trained import mark, trained_of
from tsmerge_export.graphs.model import is_graph_file
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.precision import FP32
from tsmerge_export.settings.trained import Trained
from tsmerge_export.tools.distill import windows
from tsmerge_export.tools.distill.forecasts import UNMERGED, Judge
from tsmerge_export.tools.distill.losses import cannot
from tsmerge_export.tools.distill.memory import is_out_of_memory
from tsmerge_export.tools.distill.result import Distilled, History
from tsmerge_export.tools.distill.rounding import NOTHING, Rounding, rounding_of
from tsmerge_export.tools.distill.scores import Score, absolute, changes_of
from tsmerge_export.tools.distill.settings import MERGE, Recipe
from tsmerge_export.tools.distill.state import Standing, StateFile
from tsmerge_export.tools.distill.train import Task, Training, increases, references_of
from tsmerge_export.tools.distill.weights import fixed
from tsmerge_export.typed import finite
from tsmerge_export.verify.data import Table, read_table
from tsmerge_export.verify.quality import Errors, require_windows
from tsmerge_export.verify.threads import torch_threads
from tsmerge_export.version import versions

#: Windows that a validation looks at in all, and the fewest of a column.
_VALIDATED, _FEWEST = 256, 5
#: At most so many are tested: of a horizon of one step there are very many.
_TESTED = 4096
#: The same of models that draw step by step, which are slow.
_VALIDATED_STEPWISE, _TESTED_STEPWISE = 96, 64


@dataclass(frozen=True)
class _Subject:
    """The original model: a copy, unmerged, with its family, the config of its file, the names of weights that are
    never trained, and what there is to say of it."""

    family: Family
    teacher: nn.Module
    config: dict[str, Any]
    frozen: frozenset[str]
    notes: tuple[str, ...]


def distill(
    model: str | Path | nn.Module,
    merge: MergeConfig | None = None,
    *,
    data: str | Path | Table | Sequence[str | Path | Table] | None = None,
    recipe: Recipe | None = None,
    family: str | None = None,
    config: str | Path | None = None,
    trust_remote_code: bool = False,
    state: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Distilled:
    """Train the weights of a model for the merging that it is to be used with.

    The student starts as the model itself, merges inside :func:`tsmerge_export.merging`, and follows the future of its
    training windows and the unmerged model, its teacher (:mod:`tsmerge_export.tools.distill.losses`). Validation
    chooses what is kept, the original weights among it; the test windows are looked at once, at the end.

    Args:
        model: folder, hub id, ``.pt`` file, or an eager module, which is not changed.
        merge: setting to train for; None is local merging of half of the tokens in every layer, k = 1.
        data: tables, or their files, each split in time into 60 % training, 20 % validation and 20 % test; None is
            synthetic series alone.
        recipe: how; or its settings as arguments of their own: ``distill(model, merge, budget="15min", seed=1)``.
        family, config, trust_remote_code: see :func:`~tsmerge_export.checkpoint.load_model`.
        state: folder where the training keeps what it takes to go on after a kill; None keeps nothing.
        resume: go on from what is there, to the very weights that an undisturbed run has.
        progress: told about each step.

    Returns:
        The model and what is known of it; :meth:`Distilled.save` writes a checkpoint.

    Raises:
        UsageError: settings that contradict each other, data that cannot be learnt from, a device that is not there, a
            state of another training.
        UnsupportedError: a family that cannot be trained, or a model with no place for merging.
    """
    if recipe is not None and settings:
        raise UsageError(f"give a recipe, or {next(iter(settings))} and what else there is of it, not both")
    recipe = recipe or Recipe(**settings)
    if resume and state is None:
        raise UsageError("--resume needs the folder that the state was kept in")
    device = recipe.torch_device()
    told = progress or NoProgress()
    tables = _tables(data)
    told.step("load")
    subject = _subject(model, family, config, trust_remote_code)
    merge = _setting(merge, subject)
    points = recipe.points(merge)
    judge_of = subject.family.objective(subject.teacher)
    if judge_of is None:
        raise UnsupportedError(cannot(subject.family))
    judge = Judge(subject.family, judge_of, device, recipe.seed)
    for point in points:
        plan_of(subject.family, subject.teacher, point)
    with torch_threads(recipe.threads), _out_of_memory():
        told.step("data")
        prepared = _prepare(subject, judge, tables, recipe)
        rounding, said = rounding_of(recipe.precision, subject.family, subject.teacher, subject.config)
        folder = None if state is None else Path(state)
        identity = _identity(subject, judge_of, merge, tables, recipe)
        run = _Run(subject, judge, prepared, recipe, rounding, folder, identity, resume, told)
        student, standing, task = run.train("train", points, recipe, rounding)
        unmerged = increases(task, UNMERGED) / 100
        control = None
        if recipe.control:
            same = replace(
                recipe, steps=standing.steps, budget=None, batch=standing.batch, elastic=(), precision=FP32
            )
            control = run.train("control", (UNMERGED,), same, NOTHING)
        told.step("test")
        scores = run.test(points, student, None if control is None else control[0])
    rounding.take_off(student)
    trained = Trained(merge, recipe.elastic, finite(unmerged), identity["model"], recipe.precision)
    mark(student, trained)
    return Distilled(
        student,
        subject.family.name,
        trained,
        recipe,
        _history(standing),
        None if control is None else _history(control[1]),
        scores,
        _met(scores, recipe),
        (
            *subject.notes,
            *prepared.notes,
            *([] if said is None else [said]),
            *_notes(standing, scores, recipe),
        ),
        versions(),
        subject.config,
    )


@contextmanager
def _out_of_memory() -> Iterator[None]:
    """One line where there is no memory for what cannot be halved. Raises UsageError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UsageError("out of memory while scoring; use a shorter --context or another --device") from None


class _Run:
    """The trainings of one call, and their test."""

    def __init__(
        self,
        subject: _Subject,
        judge: Judge,
        data: windows.Data,
        recipe: Recipe,
        rounding: Rounding,
        folder: Path | None,
        identity: dict[str, Any],
        resume: bool,
        progress: Progress,
    ) -> None:
        self._subject, self._judge, self._data, self._recipe = subject, judge, data, recipe
        self._rounding = rounding
        self._folder, self._identity, self._resume, self._progress = folder, identity, resume, progress
        subject.teacher.to(judge.device)
        self._references = references_of(judge, subject.teacher, data.scored)
        if not judge.stepwise(subject.teacher):
            for one, errors in zip(data.scored, self._references, strict=True):
                require_windows(one.name, errors["mse"])

    def train(
        self, name: str, points: Sequence[MergeConfig], recipe: Recipe, rounding: Rounding
    ) -> tuple[nn.Module, Standing, Task]:
        """A student of the teacher, trained for settings; it goes on rounding."""
        student = detached_twin(self._subject.teacher, share=False).to(self._judge.device)
        rounding.put_on(student)
        file = None
        if self._folder is not None:
            file = StateFile(self._folder / f"{name}.safetensors", {**self._identity, "part": name})
        task = Task(
            student, self._subject.teacher, self._judge, self._data, points, recipe, self._references,
            self._subject.frozen, file, self._progress, name,
        )  # fmt: skip
        return student, Training(task).run(self._resume), task

    def test(
        self, points: Sequence[MergeConfig], student: nn.Module, control: nn.Module | None
    ) -> tuple[Score, ...]:
        """Scores of every table at every setting and unmerged."""
        teacher, judge = self._subject.teacher, self._judge
        for model in (teacher, student, control):
            if model is not None:
                model.to("cpu")
        settings = list(dict.fromkeys((*points, UNMERGED)))
        below(self._progress, "")
        total = len(self._data.scored) * (2 * len(settings) - 1 + (control is not None))
        passes = 0

        scores: list[Score] = []
        for one in self._data.scored:

            def errors(model: nn.Module, merge: MergeConfig) -> dict[str, Errors]:
                nonlocal passes

                def told(done: int, of: int) -> None:
                    self._progress.update(passes * of + done, total * of)

                found = judge.errors(model, merge, one.test, told)  # noqa: B023
                passes += 1
                return found

            reference = errors(teacher, UNMERGED)
            fine_tuned = None if control is None else errors(control, UNMERGED)
            for merge in settings:
                before = reference
                if merge.active:
                    with self._rounding.on(teacher):
                        before = errors(teacher, merge)
                after = errors(student, merge)
                sides = {"unmerged": reference, "before": before, "after": after}
                sides |= {} if fine_tuned is None else {"control": fine_tuned}
                compared = {
                    side: changes_of(found, reference, one.test, judge.seed) for side, found in sides.items()
                }
                absolutes = {side: absolute(found) for side, found in sides.items()}
                windows = one.test.target.shape[1]
                three = (compared["before"], compared["after"], compared.get("control"))
                scores.append(Score(one.name, merge, windows, *three, absolutes))
        return tuple(scores)


def _tables(data: str | Path | Table | Sequence[str | Path | Table] | None) -> tuple[Table, ...]:
    if data is None:
        return ()
    given = [data] if isinstance(data, str | Path | Table) else list(data)
    return tuple(one if isinstance(one, Table) else read_table(one) for one in given)


def check_model(model: str | Path) -> None:
    """Refuse what is no checkpoint, before it is read. Raises UsageError, UnsupportedError."""
    if is_graph_file(model):
        raise UnsupportedError(
            f"{model}: a graph has no weights that could be trained; give the checkpoint that it was made from"
        )
    if is_bundle(Path(model)):
        raise UsageError(f"{model}: is a bundle; give the model that it was made from")


def _subject(
    model: str | Path | nn.Module, family: str | None, config: str | Path | None, trust_remote_code: bool
) -> _Subject:
    """A copy of what the user gave. Raises UsageError, UnsupportedError."""
    if isinstance(model, str | Path):
        check_model(model)
        loaded = load_model(model, family=family, config=config, trust_remote_code=trust_remote_code)
        found = families.get(loaded.family)
        teacher, settings = loaded.model, loaded.config
    else:
        found, core = families.for_model(model)
        if family is not None and family != found.name:
            raise UsageError(f"the model is a {found.name}, not a {family}")
        if any(w.is_floating_point() and str(w.dtype) != "torch.float32" for w in core.parameters()):
            raise UsageError("the model is not float32; give model.float()")
        teacher, settings = core, found.config_of(core)
    twin = detached_twin(teacher, share=False).to("cpu").requires_grad_(False)
    return _Subject(found, twin, dict(settings), fixed(teacher), _taught_by(trained_of(found, twin)))


def _taught_by(trained: Trained | None) -> tuple[str, ...]:
    """A warning where the teacher has been trained for merging and is worse without."""
    if trained is None or not trained.needs_merging:
        return ()
    cost = "" if trained.unmerged is None else f", where they lose {100 * trained.unmerged:.1f} %"
    return (
        f"the teacher's weights were trained for {trained.merge.describe()}, and teach unmerged{cost}: give the "
        "original model instead",
    )


def _setting(merge: MergeConfig | None, subject: _Subject) -> MergeConfig:
    merge = MERGE if merge is None else merge
    refuse_where_nothing_merges(subject.family, subject.teacher, merge)
    return settle(merge, subject.family, subject.teacher).merge


def _prepare(subject: _Subject, judge: Judge, tables: Sequence[Table], recipe: Recipe) -> windows.Data:
    family, teacher = subject.family, subject.teacher
    columns = sum(len(table.columns) for table in tables) or 1
    stepwise = judge.stepwise(teacher)
    return windows.prepare(
        tables,
        horizon=judge.objective.horizon,
        longest=family.context(teacher),
        context=recipe.context,
        any_length=judge.objective.any_length,
        limit=max(_FEWEST, (_VALIDATED_STEPWISE if stepwise else _VALIDATED) // columns),
        test_limit=recipe.windows or max(_FEWEST, (_TESTED_STEPWISE if stepwise else _TESTED) // columns),
        seed=recipe.seed,
    )


def _identity(
    subject: _Subject, objective: Objective, merge: MergeConfig, tables: Sequence[Table], recipe: Recipe
) -> dict[str, Any]:
    """What a training depends on; not what only its test does."""
    settings = recipe.to_dict()
    for name in ("max_increase", "control", "threads", "windows"):
        del settings[name]
    if recipe.precision == FP32:  # as before there were others
        del settings["precision"]
    return {
        "family": subject.family.name,
        "model": digest(subject.teacher),
        "merge": merge.to_dict(),
        "data": [hashlib.sha256(table.values.tobytes()).hexdigest() for table in tables],
        **settings,
        "lr": recipe.highest_rate(subject.teacher, objective),
    }


def _history(standing: Standing) -> History:
    return History(
        standing.step,
        standing.batch,
        round(standing.seconds, 2),
        standing.best_step,
        standing.losses,
        standing.curve,
    )


def _met(scores: Sequence[Score], recipe: Recipe) -> bool:
    goal = 100 * recipe.max_increase
    return all(
        change.percent <= goal for score in scores if score.merge.active for change in score.after.values()
    )


def _notes(standing: Standing, scores: Sequence[Score], recipe: Recipe) -> list[str]:
    notes = list(standing.notes)
    if standing.step < standing.steps:
        notes.append(
            f"stopped after {standing.step} of {standing.steps} steps: validation found nothing better"
        )
    if standing.best_step == 0:
        notes.append("no training step was better on validation: the weights are the original ones")
    return notes
