"""What a distillation gives: a model that merges well, how it came to be, and what it is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from tsmerge_export import typed
from tsmerge_export.bundle.distillation import FORMAT, FORMAT_VERSION, RECORD
from tsmerge_export.checkpoint.recorded_folder import RecordedFolder
from tsmerge_export.console.one_line import by_fields
from tsmerge_export.settings.trained import KEY, Trained
from tsmerge_export.tools.distill.scores import Score
from tsmerge_export.tools.distill.settings import Recipe

#: Of the folder, what people read of it.
REPORTS = ("report.json", "report.html")
#: The folder that holds all of it.
FOLDER = RecordedFolder(RECORD, "distillation", REPORTS)


@dataclass(frozen=True)
class History:
    """The course of one training.

    Attributes:
        steps: done. batch: windows per step, of the longest context half of them. seconds: of training, without
            validation. best_step: of the weights that were kept, 0 for the original ones.
        losses: ``(step, likelihood of the future, distance to the teacher)``, means since the line before.
        curve: of every validation ``{"step", "seconds", "mean", "increase": {ratio: per cent}}``.
    """

    steps: int
    batch: int
    seconds: float
    best_step: int
    losses: Sequence[Sequence[float]]
    curve: Sequence[Mapping[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            name: list(value) if name in ("losses", "curve") else value for name, value in vars(self).items()
        }


@dataclass(frozen=True)
class Distilled:
    """A distilled model.

    Attributes:
        model: the family's module, on the CPU, in eval mode, with no merging applied; its config says what it was
            trained for. family: its name.
        trained: what for. recipe: how.
        history: of the training, and control: of the one without merging, None where there was none.
        scores: of the test windows: for each table and setting, the unmerged one among them.
        met: whether MSE and WQL of every table, at the setting that it was trained for (of an elastic one at each), are
            at most ``recipe.max_increase`` above the original unmerged model's, on the test windows.
        notes: sentences for the user. versions: of what was used. config: of config.json, without the key.
    """

    model: nn.Module
    family: str
    trained: Trained
    recipe: Recipe
    history: History
    control: History | None
    scores: tuple[Score, ...]
    met: bool
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    config: Mapping[str, Any] = field(repr=False)

    def __repr__(self) -> str:
        return by_fields(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the weights, JSON-ready: what :data:`RECORD` holds."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "family": self.family,
            "trained": self.trained.to_dict(),
            "recipe": self.recipe.to_dict(),
            "history": self.history.to_dict(),
            "control": None if self.control is None else self.control.to_dict(),
            "scores": [score.to_dict() for score in self.scores],
            "met": self.met,
            "notes": list(self.notes),
            "versions": dict(self.versions),
        }

    def record(self) -> dict[str, Any]:
        """:meth:`to_dict` with None in the place of what is no number, as JSON files have it."""
        found: dict[str, Any] = finite(self.to_dict())
        return found

    def save(
        self,
        directory: str | Path,
        force: bool = False,
        *,
        beside: Callable[[Path], object] | None = None,
    ) -> Path:
        """Write a checkpoint in the family's own format, with :data:`RECORD` beside: all of it or nothing.

        ``config.json`` says under ``tsmerge`` what the weights were trained for.

        Args:
            directory: folder to make. force: replace a folder that was written by this, or an empty one.
            beside: writes :data:`REPORTS` into the same folder.

        Returns:
            The folder.

        Raises:
            UsageError: something stands there, or it cannot be written; what stands there stays.
        """
        return FOLDER.write(
            directory, self.model, {**self.config, KEY: self.trained.to_dict()}, self.record(), force, beside
        )


def finite(value: Any) -> Any:
    """JSON-ready data with None in the place of what is no number."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return typed.finite(value) if isinstance(value, float) else value


def check_folder(directory: str | Path, force: bool = False) -> Path:
    """See :meth:`~tsmerge_export.checkpoint.recorded_folder.RecordedFolder.check`."""
    return FOLDER.check(directory, force)
