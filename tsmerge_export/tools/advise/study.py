"""Gathers the figures of ``tsmerge advise`` from a model and a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx import inliner

from tsmerge_export.backends.onnxruntime.place import HERE, Place
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.console.progress import NoProgress, Progress
from tsmerge_export.eager.count import tokens_at
from tsmerge_export.errors import UsageError
from tsmerge_export.families.base import Arrays, Component, Family, MergePoints
from tsmerge_export.inspection.flops import count, feeds, shrinking_share
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.settings.config import MergeConfig, tokens_removed
from tsmerge_export.tools.advise.advice import RATIOS, Column, Figures, Speed, candidates, score
from tsmerge_export.tools.advise.cost_model import CostModel, Work, fit, time_of, work_of
from tsmerge_export.tools.advise.redundancy import Redundancy, measure
from tsmerge_export.tools.advise.spectrum import LEAST_STEPS, Spectrum, require_scipy, spectrum_of
from tsmerge_export.verify.checks import Checks, Told
from tsmerge_export.verify.data import Table, need_rows, rolling_windows, usable_columns

_SHORTEST = 16  # steps of the shortest length that is looked at
_NONE = MergeConfig(method="none")


@dataclass(frozen=True)
class Study:
    """What was found: the figures, each column's spectrum, and notes on what was left out."""

    figures: Figures
    spectra: dict[str, Spectrum]
    notes: tuple[str, ...]


def columns_of(
    family: Family,
    component: Component,
    model: Any,
    windows: npt.NDArray[np.float32],
    names: Sequence[str],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Column], dict[str, Spectrum], list[Redundancy]]:
    """Spectrum, redundancy and score of every column, and the redundancy over all of them.

    Args:
        windows: ``[C, W, L]`` float32, NaN is missing. names: C of them.

    Returns:
        Columns whose windows vary (the others are left out), their spectra, and the layers.
    """
    columns: list[Column] = []
    spectra: dict[str, Spectrum] = {}
    layers: list[list[Redundancy]] = []
    for index, name in enumerate(names):
        spectrum = spectrum_of(windows[index])
        if spectrum is not None:
            found = measure(family, component, model, windows[index])
            if found:
                alike = float(np.mean([layer.neighbours for layer in found]))
                figures = spectrum.entropy, spectrum.distortion, alike
                columns.append(Column(name, *figures, score(*figures)))
                spectra[name] = spectrum
                layers.append(found)
        if progress is not None:
            progress(index + 1, len(names))
    means = [
        Redundancy(
            same[0].layer, same[0].tokens, *(float(np.mean([getattr(s, a) for s in same])) for a in _AVERAGED)
        )
        for same in zip(*layers, strict=True)
    ]
    return columns, spectra, means


_AVERAGED = ("neighbours", "best", "alike")


def lengths_of(context: int, length: int) -> list[int]:
    """16, 32, 64, ... up to the model's context, which is one of them, and the length asked about."""
    powers = [2**n for n in range(int(math.log2(_SHORTEST)), 30) if 2**n < context]
    return sorted({*powers, context, length})


class _Files:
    """The plain graph and its merged forms, and what they do at a size."""

    def __init__(self, compilation: Compilation, folder: Path, settings: Mapping[str, MergeConfig]) -> None:
        component = compilation.source.components[0]
        compilation.plain(component, folder)
        self.paths: dict[str | None, Path] = {}
        for name, merge in ((None, _NONE), *settings.items()):
            place = folder / str(len(self.paths))
            place.mkdir()
            self.paths[name] = compilation.merged(component, place, merge).merged
        self.flat = {
            ratio: inliner.inline_local_functions(onnx_weights.read(path))
            for ratio, path in self.paths.items()
        }

    def calibrate(
        self,
        feed: Callable[[int], Arrays],
        lengths: Sequence[int],
        checks: Checks,
        told: Told,
    ) -> tuple[CostModel, dict[tuple[str | None, int], Work]]:
        """The cost model of the unmerged file, and the work of every file at every length."""
        session = checks.open(self.paths[None], timed=True)
        works: dict[tuple[str | None, int], Work] = {}
        times = []
        for number, length in enumerate(lengths):
            inputs = feed(length)
            works |= {(ratio, length): work_of(graph, inputs) for ratio, graph in self.flat.items()}
            times.append(time_of(lambda inputs=inputs: session.run(None, inputs)))  # type: ignore[misc]
            told(number + 1, len(lengths))
        return fit([works[None, length] for length in lengths], times), works


def _first_share(source: CheckpointSource, first: int, batch: int, length: int) -> float:
    """Share of the first component in the FLOPs of one forecast, where the rest generates step by step."""
    if source.of_family.generation(source.model) is None:
        return 1.0
    settings, compilation = source.of_family.pipeline(source.model), Compilation(source, _NONE)
    rest = 0
    for component in source.components[1:]:
        with TemporaryDirectory(prefix="tsmerge-advise-") as folder:
            proto = ir.to_proto(compilation.plain(component, Path(folder)))
            times = int(settings["prediction_length"]) if component.name == "decoder" else 1
            rest += times * count(proto, feeds(proto, batch, length)).total
        compilation.forget(component)
    return first / (first + rest)


def study(
    source: CheckpointSource,
    table: Table,
    *,
    length: int | None = None,
    batch: int = 8,
    windows: int | None = 16,
    threads: int | None = None,
    place: Place = HERE,
    progress: Progress | None = None,
) -> Study:
    """Look at a model and a table; no forecast is made and nothing is searched.

    Args:
        table: series; the windows are the contexts of its last fifth.
        length: context in steps; None is the longest that model and data allow.
        batch: series per call, for the foretold speed. windows: at most so many per column; None is all.
        threads: of ONNX Runtime when the unmerged file is timed. place: where it is.
        progress: told about each step.

    Raises:
        UsageError: the table is too short or has no column that varies, or ``length`` is more than the model reads.
        UnsupportedError: the model cannot be merged. MissingDependencyError: SciPy is not installed.
    """
    require_scipy()
    progress = progress or NoProgress()
    family, component = source.of_family, source.components[0]
    horizon, longest = source.horizon, source.longest
    if length is not None and not LEAST_STEPS <= length <= longest:
        raise UsageError(
            f"--length {length}: give {LEAST_STEPS} (fewer have no spectrum) to {longest} steps (what the model reads)"
        )
    table, notes = usable_columns(table)
    need_rows(table.name, len(table.values), length or LEAST_STEPS, horizon)
    context = length or min(longest, len(table.values) - horizon)
    if context < longest and length is None:
        notes.append(f"context {context} instead of {longest}: the data have only {len(table.values)} rows")
    cut = rolling_windows(table, context, horizon, limit=windows)
    progress.step("data")
    columns, spectra, layers = columns_of(
        family, component, source.model, cut.context, cut.columns, progress.update
    )
    left_out = [name for name in cut.columns if name not in spectra]
    notes += [
        f"column {name!r} does not vary within its windows of {context} steps: left out" for name in left_out
    ]
    if not columns:
        raise UsageError(
            f"--data {table.name}: no column varies within its last windows of {context} steps; give other series "
            "or another --length"
        )

    pool = cut.context[[cut.columns.index(column.name) for column in columns]].reshape(-1, context)

    def feed(steps: int) -> Arrays:
        # Longer than the windows: a window over and over; what merges depends on the length alone.
        repeated = np.tile(pool, -(-steps // context))[:, -steps:]
        return source.feed(np.resize(repeated, (batch, steps)))

    with TemporaryDirectory(prefix="tsmerge-advise-") as folder:
        settings = candidates(source.trained)
        files = _Files(Compilation(source, _NONE, progress=progress), Path(folder), settings)
        progress.step("speed")
        lengths = lengths_of(longest, context)
        model, works = files.calibrate(feed, lengths, Checks(threads=threads, place=place), progress.update)
        shrinking = shrinking_share(onnx_weights.read(files.paths[RATIOS[-1]]), feed(context))
    points = family.merge_points(source.model)
    speeds = []
    for steps in lengths:
        base = works[None, steps]
        one = {name: value[:1] for name, value in feed(steps).items()}
        tokens = tokens_at(family, component, source.model, one)
        for name, merge in settings.items():
            work = works[name, steps]
            expected = model.seconds(base) / model.seconds(work)
            left = _left(merge, tokens, points)
            speeds.append(Speed(name, steps, tokens, left, base.flops / work.flops, expected))
    share = _first_share(source, works[None, context].flops, batch, context)
    figures = Figures(
        context, batch, tuple(columns), tuple(layers), tuple(speeds), shrinking, share, source.trained
    )
    return Study(figures, spectra, tuple(notes))


def _left(merge: MergeConfig, tokens: int, points: MergePoints) -> int | None:
    """Tokens behind the last merge point; None where the data decide."""
    if not merge.takes("ratio"):
        return None
    turns = len(merge.select_layers(points.count))
    for turn in range(turns):
        r, share = merge.amount(turn, turns)
        protected = points.protect_first + points.protect_last + merge.protect_newest
        tokens -= tokens_removed(
            tokens, r=r, ratio=share or None, min_tokens=merge.min_tokens, protected=protected
        )
    return tokens
