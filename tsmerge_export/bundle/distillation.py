"""``distillation.json``, typed: how weights were trained for merging, and what that was worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tsmerge_export import typed
from tsmerge_export.console.one_line import short
from tsmerge_export.errors import UsageError
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.precision import FP32
from tsmerge_export.settings.trained import Trained, Written

RECORD = "distillation.json"
FORMAT, FORMAT_VERSION = "tsmerge-distillation", 1
REMEDY = "distill again, or remove that file to go without it"


@dataclass(frozen=True)
class Moved:
    """By how much an error is above that of the original model unmerged, per cent: value, interval, worst column."""

    percent: float | None = None
    low: float | None = None
    high: float | None = None
    worst: float | None = None
    column: str | None = None


@dataclass(frozen=True)
class Scored:
    """The test windows of one table at one setting, see :class:`tsmerge_export.tools.distill.scores.Score`."""

    data: str
    merge: dict[str, Any]
    windows: int
    before: dict[str, Moved]
    after: dict[str, Moved]
    control: dict[str, Moved] | None = None
    absolute: dict[str, dict[str, float | None]] = field(default_factory=dict)

    @property
    def setting(self) -> MergeConfig:
        """Raises UsageError for settings that this version does not know."""
        return MergeConfig.from_dict(self.merge)


@dataclass(frozen=True)
class Looked:
    """A validation: ``mean`` increase over the settings, and that of each by its ratio, per cent."""

    step: float
    seconds: float = 0.0
    mean: float | None = None
    increase: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Course:
    """One training. ``losses``: step, likelihood of the future, distance to the teacher.

    Steps that are drawn are numbers that a float holds.
    """

    steps: int
    batch: int
    seconds: float
    best_step: float
    losses: tuple[tuple[float | None, ...], ...] = ()
    curve: tuple[Looked, ...] = ()


@dataclass(frozen=True)
class RecipeEntry:
    """What a distillation was asked to do, see :class:`tsmerge_export.tools.distill.settings.Recipe`."""

    elastic: tuple[str, ...] = ()
    trainable: str = "all"
    budget: float | None = None
    steps: int | None = None
    batch: int | str = "auto"
    lr: float | None = None
    seed: int = 0
    device: str = "auto"
    max_increase: float = 0.03
    control: bool = False
    context: int | None = None
    windows: int | None = None
    threads: int | None = None
    precision: str = FP32


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """What :data:`RECORD` holds."""

    family: str
    trained: Written
    recipe: RecipeEntry
    history: Course
    control: Course | None = None
    scores: tuple[Scored, ...] = ()
    met: bool = False
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def trained_for(self) -> Trained:
        """What the weights were trained for. Raises UsageError for settings that this version does not know."""
        return Trained.of(self.trained, RECORD, "trained")

    def checked(self) -> Distillation:
        """The same, once every setting in it is known to be one. Raises UsageError."""
        _ = self.trained_for, [score.setting for score in self.scores]
        return self


@dataclass(frozen=True)
class Timed:
    """Speed-up of a merged ONNX file over the unmerged one of the same weights, between ``low`` and ``high``."""

    merge: dict[str, Any]
    length: int
    batch: int
    value: float
    low: float
    high: float
    runs: int = 0
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class DistillReport(Distillation):
    """``report.json`` of a distilled checkpoint: its record, and what the command measured beside it.

    Attributes:
        source: the model, as it was named. data: the tables. table: flags that say how they are read.
        output: name of the folder. speeds: by setting. created: date and time, ISO 8601.
    """

    source: str
    data: tuple[str, ...] = ()
    table: tuple[str, ...] = ()
    output: str | None = None
    speeds: tuple[Timed, ...] = ()
    created: str | None = None


def distillation_of(content: Mapping[str, Any], file: object = RECORD) -> Distillation:
    """The record that a file holds.

    Raises:
        UsageError: of another format version, or a field is missing or of another type; one line.
    """
    if content.get("format_version") != FORMAT_VERSION:
        raise UsageError(
            f"{file}: distillation format {short(content.get('format_version'))}, this version reads "
            f"{FORMAT_VERSION}; {REMEDY}"
        )
    return typed.read(Distillation, _there(content), file, remedy=REMEDY)


def report_of_distillation(content: Mapping[str, Any], file: object = "report.json") -> DistillReport:
    """The report beside a distilled checkpoint. Raises UsageError as :func:`distillation_of`."""
    return typed.read(DistillReport, _there(content), file, remedy=REMEDY)


def _there(content: Mapping[str, Any]) -> dict[str, Any]:
    # Null is as good as nothing.
    return {name: value for name, value in content.items() if value is not None}
