"""One checkpoint in a search: exported once, then merged, scored and timed for every setting that is tried."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from tsmerge_export import families
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.checkpoint import LoadedModel, load_model
from tsmerge_export.compile.build import merge_and_lower
from tsmerge_export.compile.onnx_export import DEFAULT_OPSET, export_component, prove_dynamic
from tsmerge_export.errors import UsageError
from tsmerge_export.families.base import Arrays, Component, Family, Forecast
from tsmerge_export.merge.apply import refuse_where_nothing_merges
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.tune.quality import Errors
from tsmerge_export.verify.change import LEAST_WINDOWS
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.cost import next_to_nothing, run_named, window_errors
from tsmerge_export.verify.data import (
    Table,
    Windows,
    count_windows,
    rolling_windows,
    tested_rows,
    usable_columns,
)
from tsmerge_export.verify.decoded import decoded_by
from tsmerge_export.verify.threads import torch_threads

Run = Callable[[Arrays], Arrays]


@dataclass
class Subject:
    """A loaded and exported model with the windows that it is judged on.

    Attributes:
        source: as the user named it. plain: its first component without merging.
        validation: windows that the search looks at. test: windows that it never sees.
        feed: inputs of the timed call. threads: of ONNX Runtime.
        forecast: where the family generates step by step: its exported decoder around a run of the first component.
        notes: what of the data was left out. data: its name.
    """

    source: str
    loaded: LoadedModel
    family: Family
    component: Component
    plain: ir.Model
    points: int
    validation: Windows
    test: Windows
    feed: Arrays
    threads: int | None
    folder: Path
    seed: int = 0
    forecast: Forecast | None = None
    notes: tuple[str, ...] = ()
    data: str = ""
    runs: dict[MergeConfig, Run] = field(default_factory=dict, repr=False)

    def run_of(self, merge: MergeConfig) -> Run:
        """A call of the file merged by ``merge``; the last few are kept open.

        Raises:
            UnsupportedError: the setting cannot be built for this model.
        """
        if merge not in self.runs:
            while len(self.runs) > 3:
                del self.runs[next(key for key in self.runs if key.active)]
            with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
                built = merge_and_lower(
                    self.component,
                    self.plain,
                    merge,
                    inline=False,
                    folder=Path(scratch),
                    scratch=Path(scratch),
                )
                names = [spec.name for spec in self.component.outputs]
                session = open_session(built.merged, self.threads, timed=True)
            self.runs[merge] = partial(run_named, session, names)
        return self.runs[merge]

    def errors(self, merge: MergeConfig, windows: Windows) -> dict[str, Errors]:
        """By metric ``[C, W]``: the error of every window, see :func:`~tsmerge_export.verify.cost.window_errors`."""
        run = self.run_of(merge)
        with torch_threads(self.threads):
            columns = [
                window_errors(self.family, self.loaded.model, run, windows, c, self.seed, self.forecast)
                for c in range(len(windows.columns))
            ]
        return {name: np.stack([column[name] for column in columns]) for name in columns[0]}

    def least(self, metric: str, windows: Windows) -> Errors:
        """``[C]``: an error of one window that counts as next to nothing."""
        return next_to_nothing(metric, windows)

    def at_length(self, length: int) -> Subject:
        """The same model, its open files shared, timed on series of another length, of as many."""
        context = self.validation.context.shape[-1]
        pool = self.validation.context.reshape(-1, context)
        batch = next(iter(self.feed.values())).shape[0]
        # Longer than the windows: a window over and over.
        repeated = np.tile(pool, -(-length // context))[:, -length:]
        return replace(
            self, feed=self.component.from_series(self.loaded.model, np.resize(repeated, (batch, length)))
        )

    def call(self, merge: MergeConfig) -> Callable[[], object]:
        """The call that is timed."""
        run = self.run_of(merge)
        return lambda: run(self.feed)

    @contextmanager
    def eager(self) -> Iterator[Callable[[], object]]:
        """The same call of the unmerged model in eager PyTorch, with sdpa attention where the model has it."""
        model: Any = self.loaded.model
        before = getattr(getattr(model, "config", None), "_attn_implementation", None)
        switch = getattr(model, "set_attn_implementation", None)
        tensors = {name: torch.from_numpy(value) for name, value in self.feed.items()}

        def call() -> object:
            with torch.inference_mode():
                return self.component.eager(model, tensors)

        with torch_threads(self.threads):
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
        # What lies before the first target of as many windows as there can be.
        return length or min(longest, max(horizon, _seen(rows) - tested_rows(_seen(rows), horizon)))

    def windows(rows: int) -> int:
        return count_windows(_seen(rows), context(rows), horizon)

    if windows(rows) >= LEAST_WINDOWS:
        return context(rows)
    enough = rows
    while windows(enough) < LEAST_WINDOWS:
        enough += 1
    raise UsageError(
        f"--data {name}: {rows} rows are too few to promise an increase with 90 % confidence: there is room for "
        f"{max(0, windows(rows))} validation windows of {horizon} steps, and a bound takes at least {LEAST_WINDOWS}; "
        f"give at least {enough} rows" + (", or a shorter --length" if length else "")
    )


def prepare(
    source: str,
    table: Table,
    *,
    folder: Path,
    windows: int | None,
    batch: int,
    length: int | None,
    threads: int | None,
    seed: int,
    options: dict[str, Any],
) -> Subject:
    """Load and export a model, and cut its windows.

    Args:
        source: model as for ``tsmerge-export``. table: all rows; the last 20 % are the test split, the 20 % before
            the end of the rest the validation split.
        windows: at most so many per column and split; None is all.
        batch: series per timed call. length: context in steps; None is the longest that model and data allow.

    Raises:
        UsageError: the table is too short, has no column that varies, or ``length`` is more than the model reads.
    """
    table, notes = usable_columns(table)
    loaded = load_model(source, **options)
    family = families.get(loaded.family)
    refuse_where_nothing_merges(family, loaded.model, MergeConfig())
    component = family.components(loaded.model)[0]
    horizon, longest = family.horizon(loaded.model), family.context(loaded.model)
    if length is not None and length > longest:
        raise UsageError(f"--length {length}: {source} reads at most {longest} steps")
    seen = split(table)
    context = context_of(table.name, len(table.values), longest, horizon, length)
    if length is None and context < longest:
        notes.append(f"context {context} instead of {longest}: the data have only {len(table.values)} rows")
    plain = export_component(component, loaded.model, opset=DEFAULT_OPSET, folder=folder)
    prove_dynamic(component, loaded.model, plain)
    validation = rolling_windows(seen, context, horizon, limit=windows)
    pool = validation.context.reshape(-1, context)
    feed = component.from_series(loaded.model, np.resize(pool, (batch, context)))
    return Subject(
        source, loaded, family, component, plain, family.merge_points(loaded.model).count, validation,
        rolling_windows(table, context, horizon, limit=windows), feed, threads, folder, seed,
        _decoded(family, loaded, folder, threads), tuple(notes), table.name,
    )  # fmt: skip


def _decoded(family: Family, loaded: LoadedModel, folder: Path, threads: int | None) -> Forecast | None:
    """The components behind the first, where there are any; merging leaves them as they are."""
    if family.generation(loaded.model) is None:
        return None
    place = Path(tempfile.mkdtemp(dir=folder))
    built = [
        merge_and_lower(
            part, export_component(part, loaded.model, opset=DEFAULT_OPSET, folder=place), MergeConfig(method="none"),
            inline=False, folder=place, scratch=place,
        )
        for part in family.components(loaded.model)[1:]
    ]  # fmt: skip
    return decoded_by(family, loaded.model, built, Checks(threads=threads))
