"""The command's work: from a model and an error budget to weights that are pruned, clustered and quantised."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tsmerge_export.bundle.compression import (
    CLUSTER,
    ORIGINAL,
    PRUNE,
    QUANTISE,
    STEPS,
    StepEntry,
    TriedDegree,
)
from tsmerge_export.checkpoint.model_folder import write_model_folder
from tsmerge_export.console.progress import Progress
from tsmerge_export.errors import UsageError
from tsmerge_export.families.hf import detached_twin
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.precision import FP32, INT4_WEIGHTS, INT8, INT8_STATIC, INT8_WEIGHTS, QUANTISED
from tsmerge_export.tools.compress.weights import cluster, prunable, prune_smallest
from tsmerge_export.tools.distill.forecasts import merged_run
from tsmerge_export.tools.tune.contender import Contender
from tsmerge_export.typed import finite
from tsmerge_export.verify.quality import Errors, Increase, increase, require_windows, spread
from tsmerge_export.verify.speed import in_turns, speedup_of
from tsmerge_export.verify.threads import torch_threads
from tsmerge_export.verify.window_errors import Forecasts

#: From mild to strong. Of 8 bits the kind comes later that is faster on most machines; 4 bits are the smallest file.
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
VALUES = (256, 128, 64, 32, 16, 8, 4)
KINDS = (INT8_WEIGHTS, INT8, INT4_WEIGHTS)
_ORDER = (INT8_WEIGHTS, INT8_STATIC, INT8, INT4_WEIGHTS)
_RUNS, _SECONDS = 30, 8.0
_CHUNK = 1 << 20
Degree = TypeVar("Degree")


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Attributes:
        steps: of :data:`~tsmerge_export.bundle.compression.STEPS`, in any order; they are done in theirs.
        max_increase: by how many per cent the error may rise, held against the bound of 90 % confidence. Each of n
            steps may bring it to its share: 1/n, 2/n, .. of it.
        metric: ``mse`` or ``wql``. kinds: precisions to choose from.

    Raises:
        UsageError: an unknown step or precision, or none.
    """

    steps: tuple[str, ...] = STEPS
    max_increase: float = 3.0
    metric: str = "wql"
    kinds: tuple[str, ...] = KINDS

    def __post_init__(self) -> None:
        for step in self.steps:
            if step not in STEPS:
                raise UsageError(f"--steps {step}: choose from {', '.join(STEPS)}")
        if not self.steps:
            raise UsageError(f"--steps names none; choose from {', '.join(STEPS)}")
        for kind in self.kinds:
            if kind not in QUANTISED:
                raise UsageError(
                    f"--precision {kind}: weights are quantised to {', '.join(QUANTISED)}; choose of these"
                )
        ordered = sorted(set(self.kinds), key=_ORDER.index)
        object.__setattr__(self, "steps", tuple(step for step in STEPS if step in self.steps))
        object.__setattr__(self, "kinds", tuple(ordered))


@dataclass(frozen=True)
class Compressed:
    """What came out.

    Attributes:
        model: with the weights before rounding, on the CPU. precision: of its files. steps: the original's row first.
    """

    model: nn.Module
    precision: str
    steps: tuple[StepEntry, ...]
    tried: tuple[TriedDegree, ...]

    @property
    def smaller(self) -> bool:
        """Whether any step was within the budget."""
        return any(step.degree is not None for step in self.steps)


def strongest(degrees: Sequence[Degree], within: Callable[[Degree], bool]) -> Degree | None:
    """The last of degrees, from mild to strong, that is within the budget; None where the first is not.

    Found by halving, as if the error rose with the degree.
    """
    good, bad = -1, len(degrees)
    while bad - good > 1:
        half = (good + bad) // 2
        if within(degrees[half]):
            good = half
        else:
            bad = half
    return None if good < 0 else degrees[good]


def compress(
    base: Contender,
    merge: MergeConfig,
    wanted: Wanted,
    prepared: Callable[[Path], Contender],
    progress: Progress,
) -> Compressed:
    """Take every step as far as its share of the budget allows on validation; then look at the test part, once.

    Pruned and clustered weights are judged by the eager model, quantised ones by their files, test, size and speed by
    the files of every step.

    Args:
        base: the model as it is, with its windows. merge: how it merges throughout, so that the error is that of
            compression alone. prepared: makes a contender of a checkpoint, with the same windows.

    Raises:
        UsageError: the windows cannot bear a bound. UnsupportedError: no layer is large enough.
        MissingDependencyError: SciPy is not installed.
    """
    run = _Run(base, merge, wanted, prepared)
    for number, step in enumerate(wanted.steps):
        progress.step(step)
        run.take(step, wanted.max_increase * (number + 1) / len(wanted.steps))
    progress.step("test")
    rows = []
    for number, (row, stage) in enumerate(run.stages):
        rows.append(row if stage is None else _measured(row, base, stage, merge, wanted.metric))
        progress.update(number + 1, len(run.stages))
    return Compressed(run.model, run.now.kind, tuple(rows), tuple(run.tried))


@dataclass(frozen=True)
class _Stage:
    """What files are made of: weights, and a precision."""

    contender: Contender
    kind: str = FP32


class _Run:
    """A model on its way.

    Attributes:
        model: its weights as they are. now: the last stage that is within the budget. stages: a row for every step,
            with None where the step was left out. tried: every degree that was looked at.
    """

    def __init__(
        self, base: Contender, merge: MergeConfig, wanted: Wanted, prepared: Callable[[Path], Contender]
    ) -> None:
        self._base, self._merge, self._wanted, self._prepared = base, merge, wanted, prepared
        self._folder = Path(tempfile.mkdtemp(dir=base.folder))
        self.model = detached_twin(base.source.model, share=False)
        self._weights: Sequence[Tensor] = prunable(self.model) if {PRUNE, CLUSTER} & {*wanted.steps} else ()
        self._least = base.least(wanted.metric, base.validation)
        self._eager = self._errors() if self._weights else None
        self._files = self._of_files(base, FP32) if QUANTISE in wanted.steps else None
        for reference in (self._eager, self._files):
            if reference is not None:
                require_windows(base.data, reference, self._least)
        self.now = _Stage(base)
        self.stages: list[tuple[StepEntry, _Stage | None]] = [(StepEntry(ORIGINAL), self.now)]
        self.tried: list[TriedDegree] = []

    def take(self, step: str, most: float) -> None:
        """One step, until the bound of the error is ``most`` per cent."""
        known: dict[Any, Increase] = {}
        start = [weight.detach().clone() for weight in self._weights]

        def within(degree: Any) -> bool:
            if step == QUANTISE:
                errors, reference = self._of_files(self.now.contender, degree), self._files
            else:
                self._put(step, degree, start)
                errors, reference = self._errors(), self._eager
            assert reference is not None
            known[degree] = increase(errors, reference, self._least)
            self.tried.append(TriedDegree(step, words_of(step, degree), finite(known[degree].upper)))
            return known[degree].upper <= most

        degrees: Sequence[Any] = {PRUNE: SHARES, CLUSTER: VALUES, QUANTISE: self._wanted.kinds}[step]
        chosen = strongest(degrees, within)
        if step != QUANTISE:
            self._put(step, chosen, start)
        if chosen is None:
            self.stages.append((StepEntry(step), None))
            return
        if step == QUANTISE:
            self.now = replace(self.now, kind=chosen)
        else:
            place = self._folder / step
            place.mkdir()
            write_model_folder(self.model, self._base.source.loaded.config, place)
            self.now = _Stage(self._prepared(place))
        found = known[chosen]
        row = StepEntry(
            step,
            words_of(step, chosen),
            increase_percent=finite(found.median),
            upper_percent=finite(found.upper),
        )
        self.stages.append((row, self.now))

    def _put(self, step: str, degree: Any, start: Sequence[Tensor]) -> None:
        """The weights as they were before the step, and the step done to them; None is not done."""
        with torch.no_grad():
            for weight, value in zip(self._weights, start, strict=True):
                weight.copy_(value)
        if degree is not None:
            (prune_smallest if step == PRUNE else cluster)(self._weights, degree)

    def _errors(self) -> Errors:
        """``[C, W]`` on validation, of the eager model."""
        base = self._base
        run = merged_run(base.component, self.model, self._merge)
        with torch_threads(base.checks.threads):
            forecasts = Forecasts(base.source.of_family, self.model, run, base.checks.seed)
            return forecasts.errors(base.validation)[self._wanted.metric]

    def _of_files(self, contender: Contender, kind: str) -> Errors:
        """The same of files."""
        return contender.errors(self._merge, self._base.validation, kind)[self._wanted.metric]


def words_of(step: str, degree: Any) -> str:
    """A degree of a step: ``50 % zeros``, ``32 values per matrix``, ``int8``."""
    if step == QUANTISE:
        return str(degree)
    return f"{100 * degree:.0f} % zeros" if step == PRUNE else f"{degree} values per matrix"


def _measured(row: StepEntry, base: Contender, stage: _Stage, merge: MergeConfig, metric: str) -> StepEntry:
    """The row with sizes; of a step with its errors on the test part and its speed in turns with the original, too."""
    contender, kind = stage.contender, stage.kind
    with tempfile.TemporaryDirectory(dir=base.folder) as folder:
        files = contender.files(merge, kind, Path(folder))
        size, packed = sizes(files)
    row = replace(row, bytes=size, gzip_bytes=packed)
    if row.step == ORIGINAL:
        return replace(row, speedup=1.0)
    least = base.least(metric, base.test)
    errors = contender.errors(merge, base.test, kind)[metric]
    reference = base.errors(merge, base.test)[metric]
    worse = increase(errors, reference, least)
    low, high = spread(errors, reference, least)
    calls = base.call(merge), contender.call(merge, kind)
    speed = speedup_of(*in_turns(*calls, runs=_RUNS, seconds=_SECONDS))
    return replace(
        row, speedup=speed.value, speedup_low=speed.low, speedup_high=speed.high, test_percent=finite(worse.median),
        test_low_percent=finite(low), test_high_percent=finite(high),
        worst_column=None if worse.worst is None else base.test.columns[worse.worst],
        worst_percent=finite(worse.worst_percent),
    )  # fmt: skip


def sizes(files: Iterable[Path]) -> tuple[int, int]:
    """Bytes of files, and those that gzip (level 9) makes of each."""
    size = packed = 0
    for file in files:
        squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
        with file.open("rb") as content:
            while part := content.read(_CHUNK):
                size += len(part)
                packed += len(squeeze.compress(part))
        packed += len(squeeze.flush())
    return size, packed
