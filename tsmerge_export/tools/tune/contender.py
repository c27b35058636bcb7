"""One model in a search: traced once, then merged, scored and timed for every setting that is tried."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.compile.half import halve_files
from tsmerge_export.compile.precision import quantise_files
from tsmerge_export.errors import UsageError
from tsmerge_export.families.base import Arrays, Component, Forecast
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.precision import FP32, Precision
from tsmerge_export.settings.trained import Trained
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.calibration import Calibration, WindowCalibration
from tsmerge_export.verify.change import LEAST_WINDOWS
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.data import (
    SHARE_TESTED,
    Table,
    Windows,
    context_before,
    count_windows,
    enough_rows,
    rolling_windows,
    usable_columns,
)
from tsmerge_export.verify.decoded import decoded_by
from tsmerge_export.verify.quality import Errors
from tsmerge_export.verify.threads import torch_threads
from tsmerge_export.verify.window_errors import Forecasts, next_to_nothing, run_named

Run = Callable[[Arrays], Arrays]
#: The call that everything is held against; its file stays open.
_REFERENCE = (MergeConfig(method="none"), FP32)


@dataclass
class Contender:
    """A traced model with the windows that it is judged on.

    Attributes:
        name: as the user named it. compilation: its files; the first component is what is merged and timed.
        validation: windows that the search looks at. test: windows that it never sees.
        feed: inputs of the timed call. checks: how files are run and sampled. folder: for what is built.
        behind: float32 files of the components behind the first, which merging leaves as they are.
        forecast: where the family generates step by step: its exported decoder around a run of the first component.
        notes: what of the data was left out. data: its name. table: all of its rows, to calibrate on.
    """

    name: str
    source: CheckpointSource
    compilation: Compilation
    validation: Windows
    test: Windows
    feed: Arrays
    checks: Checks
    folder: Path
    behind: tuple[Built, ...] = ()
    forecast: Forecast | None = None
    notes: tuple[str, ...] = ()
    data: str = ""
    table: Table | None = None
    runs: dict[tuple[MergeConfig, str], Run] = field(default_factory=dict, repr=False)
    low_forecasts: dict[str, Forecast | None] = field(default_factory=dict, repr=False)

    @property
    def component(self) -> Component:
        """The one that is merged and timed."""
        return self.source.components[0]

    @property
    def trained(self) -> Trained | None:
        """What its weights were trained for."""
        return self.source.trained

    @property
    def points(self) -> int:
        """Where it can merge."""
        return self.source.of_family.merge_points(self.source.model).count

    def run_of(self, merge: MergeConfig, precision: str = FP32) -> Run:
        """A call of the file merged by ``merge``; the last few are kept open.

        Raises:
            UnsupportedError: the setting cannot be built for this model.
            UsageError: no product of it is large enough for ``precision``.
        """
        key = (merge, precision)
        if key not in self.runs:
            while len(self.runs) > 3:
                del self.runs[next(known for known in self.runs if known != _REFERENCE)]
            with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
                # What was traced lies in the folder of the search: it is needed again.
                self.compilation.plain(self.component, self.folder)
                built = self.compilation.merged(self.component, Path(scratch), merge)
                if precision != FP32:
                    built = self._below(built, precision, Path(scratch))
                names = [spec.name for spec in self.component.outputs]
                session = self.checks.open(built.merged, timed=True)
            self.runs[key] = partial(run_named, session, names)
        return self.runs[key]

    def files(self, merge: MergeConfig, precision: str, folder: Path) -> list[Path]:
        """The files of all components, as a bundle holds them, made anew in an empty folder.

        Raises:
            UnsupportedError, UsageError: as :meth:`run_of`.
        """
        self.compilation.plain(self.component, self.folder)
        built = [self.compilation.merged(self.component, folder, merge), *self.behind]
        if precision != FP32:
            built = self._all_below(built, precision, Path(tempfile.mkdtemp(dir=folder)))
        return [item.merged for item in built]

    def _all_below(self, built: Sequence[Built], precision: str, place: Path) -> list[Built]:
        wanted = Precision(precision)
        if wanted.half:
            return halve_files(self.source, built, wanted, place)[0]
        return quantise_files(built, wanted, place, partial(self._calibration, built))[0]

    def _calibration(self, built: Sequence[Built]) -> Calibration:
        """The windows that an export with the table of the search calibrates on."""
        assert self.table is not None
        return WindowCalibration(self.source.of_family, self.source.model, built, self.table, self.checks)

    def _below(self, built: Built, precision: str, scratch: Path) -> Built:
        """The first component below float32. The others are made so with it, as in a bundle, and opened once."""
        new = precision not in self.low_forecasts
        # What forecasts is open for as long as the search is.
        place = Path(tempfile.mkdtemp(dir=self.folder if new else scratch))
        low = self._all_below([built, *self.behind], precision, place)
        if new:
            self.low_forecasts[precision] = decoded_by(
                self.source.of_family, self.source.model, low, self.checks
            )
        return low[0]

    def errors(self, merge: MergeConfig, windows: Windows, precision: str = FP32) -> dict[str, Errors]:
        """By metric ``[C, W]``, see :func:`~tsmerge_export.verify.window_errors.window_errors`."""
        family, model, run = self.source.of_family, self.source.model, self.run_of(merge, precision)
        forecast = self.forecast if precision == FP32 else self.low_forecasts[precision]
        with torch_threads(self.checks.threads):
            return Forecasts(family, model, run, self.checks.seed, forecast).errors(windows)

    def least(self, metric: str, windows: Windows) -> Errors:
        """``[C]``: an error of one window that counts as next to nothing."""
        return next_to_nothing(metric, windows)

    def at_length(self, length: int) -> Contender:
        """The same model, its open files shared, timed on series of another length, of as many."""
        context = self.validation.context.shape[-1]
        pool = self.validation.context.reshape(-1, context)
        batch = next(iter(self.feed.values())).shape[0]
        # Longer than the windows: a window over and over.
        repeated = np.tile(pool, -(-length // context))[:, -length:]
        return replace(self, feed=self.source.feed(np.resize(repeated, (batch, length))))

    def call(self, merge: MergeConfig, precision: str = FP32) -> Callable[[], object]:
        """The call that is timed."""
        run = self.run_of(merge, precision)
        return lambda: run(self.feed)

    @contextmanager
    def eager(self) -> Iterator[Callable[[], object]]:
        """The same call of the unmerged model in eager PyTorch, with sdpa attention where the model has it."""
        model: Any = self.source.model
        before = getattr(getattr(model, "config", None), "_attn_implementation", None)
        switch = getattr(model, "set_attn_implementation", None)
        tensors = {name: torch.from_numpy(value) for name, value in self.feed.items()}

        def call() -> object:
            with torch.inference_mode():
                return self.component.eager(model, tensors)

        with torch_threads(self.checks.threads):
            try:
                if switch is not None:
                    switch("sdpa")
                yield call
            finally:
                if switch is not None and before is not None:
                    switch(before)


def split(table: Table) -> Table:
    """The table without its last fifth, which the search must not see."""
    return Table(table.name, table.columns, table.values[: _seen(len(table.values))])


def _seen(rows: int) -> int:
    return int(rows * 0.8)


def context_of(name: str, rows: int, longest: int, horizon: int, length: int | None = None) -> int:
    """The context of the windows: the model's own, or ``length``, or what leaves room for enough windows.

    Args:
        name: of the data. rows: of the whole table.

    Raises:
        UsageError: not even the shortest context leaves room for so many validation windows.
    """

    def context(rows: int) -> int:
        return length or context_before(_seen(rows), longest, horizon, SHARE_TESTED)

    def windows(rows: int) -> int:
        return count_windows(_seen(rows), context(rows), horizon)

    if windows(rows) >= LEAST_WINDOWS:
        return context(rows)
    enough = enough_rows(rows, windows, LEAST_WINDOWS)
    raise UsageError(
        f"--data {name}: {rows} rows are too few to promise an increase with 90 % confidence: there is room for "
        f"{max(0, windows(rows))} validation windows of {horizon} steps, and a bound takes at least {LEAST_WINDOWS}; "
        f"give at least {enough} rows" + (", or a shorter --length" if length else "")
    )


def prepare(
    name: str,
    table: Table,
    checks: Checks,
    *,
    folder: Path,
    windows: int | None,
    batch: int,
    length: int | None,
    options: dict[str, Any],
) -> Contender:
    """Load and trace a model, and cut its windows.

    Args:
        name: model as for ``tsmerge-export``. table: all rows; the last 20 % are the test split, the 20 % before
            the end of the rest the validation split. checks: how files are run and sampled.
        windows: at most so many per column and split; None is all.
        batch: series per timed call. length: context in steps; None is the longest that model and data allow.

    Raises:
        UsageError: the table is too short, has no column that varies, or ``length`` is more than the model reads.
    """
    table, notes = usable_columns(table)
    source = CheckpointSource.load(name, **options)
    compilation = Compilation(source, MergeConfig())
    horizon, longest = source.horizon, source.longest
    if length is not None and length > longest:
        raise UsageError(f"--length {length}: {name} reads at most {longest} steps")
    seen = split(table)
    context = context_of(table.name, len(table.values), longest, horizon, length)
    if length is None and context < longest:
        notes.append(f"context {context} instead of {longest}: the data have only {len(table.values)} rows")
    compilation.plain(source.components[0], folder)
    validation = rolling_windows(seen, context, horizon, limit=windows)
    pool = validation.context.reshape(-1, context)
    behind = _behind(source, compilation, folder)
    return Contender(
        name, source, compilation, validation, rolling_windows(table, context, horizon, limit=windows),
        source.feed(np.resize(pool, (batch, context))), checks, folder, behind,
        decoded_by(source.of_family, source.model, behind, checks), tuple(notes), table.name, table,
    )  # fmt: skip


def _behind(source: CheckpointSource, compilation: Compilation, folder: Path) -> tuple[Built, ...]:
    """The components behind the first, where it takes them to forecast; merging leaves them as they are."""
    if source.of_family.generation(source.model) is None:
        return ()
    place, built = Path(tempfile.mkdtemp(dir=folder)), []
    for part in source.components[1:]:
        built.append(compilation.merged(part, place, MergeConfig(method="none")))
        compilation.forget(part)
    return tuple(built)
