"""Merge cost: what merging does to the forecasts on data, and to the speed; unmerged against merged artefact."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from tsmerge_export.bundle import verdicts
from tsmerge_export.console.one_line import by_fields
from tsmerge_export.families.base import Arrays, Component, Family, Forecast
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.ops import DOMAIN, schema
from tsmerge_export.typed import finite, written
from tsmerge_export.verify import change, metrics
from tsmerge_export.verify.change import Change
from tsmerge_export.verify.checks import USUAL, Checks
from tsmerge_export.verify.data import Table, Windows, need_rows, rolling_windows
from tsmerge_export.verify.decisions import tap
from tsmerge_export.verify.speed import SpeedReport, interleaved
from tsmerge_export.verify.threads import torch_threads
from tsmerge_export.verify.window_errors import METRICS, Forecasts, median_of, run_named

_NAMED = 3  # columns that a note names


@dataclass(frozen=True)
class ColumnCost:
    """Errors of one column, by metric: MSE and MAE of the median forecast in standard deviations of the column
    (of the rows before the test windows), WQL in its own unit. The naive forecast has no WQL (NaN).

    ``wql_scale``: what one such standard deviation is in the unit of the WQL (deviation / mean absolute target).
    """

    column: str
    unmerged: dict[str, float]
    merged: dict[str, float]
    naive: dict[str, float]
    wql_scale: float = 0.0

    def entry(self) -> verdicts.ColumnErrors:
        """As a bundle has it."""
        return verdicts.ColumnErrors(
            self.column,
            _numbers(self.unmerged),
            _numbers(self.merged),
            _numbers(self.naive),
            finite(self.wql_scale),
        )

    def change_percent(self, metric: str) -> float:
        """Change by merging, see :mod:`~tsmerge_export.verify.change`; NaN where it says nothing."""
        return change.percent(self.unmerged[metric], self.merged[metric], self._least(metric))

    def next_to_nothing(self, metric: str) -> bool:
        """Whether the unmerged error is too small for a change in per cent."""
        return self.unmerged[metric] <= self._least(metric)

    def _least(self, metric: str) -> float:
        return change.least(metric, self.wql_scale)


@dataclass(frozen=True)
class Rival:
    """The model that ``unmerged`` of :func:`measure` is the file of, where that is not the merged one.

    Attributes:
        name: as the user named it. component, model: of the same family. forecast: as in :func:`measure`.
    """

    name: str
    component: Component
    model: nn.Module
    forecast: Forecast | None = None


@dataclass(frozen=True)
class CostReport:
    """Merge cost on one table. ``columns`` in file order; ``windows`` per column.

    ``tokens``: how many the timed batch had, and how many each merging layer left; empty where that follows from the
    length alone. ``original``: name of the unmerged model, where that is another than the merged one. ``comparable``:
    False where its weights are not meant to run unmerged; then no change is told.
    """

    data: str
    windows: int
    context: int
    horizon: int
    season: int
    columns: tuple[ColumnCost, ...]
    speed: SpeedReport
    notes: tuple[str, ...]
    tokens: tuple[int, ...] = ()
    original: str | None = None
    comparable: bool = True

    def __repr__(self) -> str:
        return by_fields(self)

    def overall(self, which: str, metric: str, how: str = "median") -> float:
        """``how`` ("median" or "mean") over columns of a metric of "unmerged", "merged" or "naive"."""
        values = [getattr(column, which)[metric] for column in self.columns]
        return float(np.median(values) if how == "median" else np.mean(values))

    def changes_percent(self, metric: str) -> list[float]:
        """Change of a metric by merging, of each column; NaN where it says nothing."""
        return [column.change_percent(metric) if self.comparable else math.nan for column in self.columns]

    def change(self, metric: str) -> Change:
        """Changes of a metric by merging, over the columns."""
        return change.over_columns(self.changes_percent(metric))

    def change_percent(self, metric: str, how: str = "median") -> float:
        """``how`` ("median" or "mean") over columns of the change of a metric by merging; above 0 per cent is worse.

        NaN where no column compares. It is not the change of :meth:`overall`, see
        :mod:`~tsmerge_export.verify.change`.
        """
        return float(getattr(self.change(metric), how))

    def verdict(self) -> verdicts.Cost:
        """As a bundle has it; what is not a number is None."""
        return verdicts.Cost(
            data=self.data,
            windows=self.windows,
            context=self.context,
            horizon=self.horizon,
            season=self.season,
            columns=tuple(column.entry() for column in self.columns),
            overall={how: self._summary(how) for how in ("median", "mean")},
            changes={metric: self._change(metric) for metric in METRICS},
            speed=self.speed.entry(),
            notes=self.notes,
            tokens=self.tokens,
            original=self.original,
            comparable=self.comparable,
        )

    def to_dict(self) -> dict[str, Any]:
        """:meth:`verdict`, JSON-ready."""
        content: dict[str, Any] = written(self.verdict())
        return content

    def _summary(self, how: str) -> verdicts.Summary:
        unmerged, merged, naive = (
            _numbers({m: self.overall(side, m, how) for m in METRICS})
            for side in ("unmerged", "merged", "naive")
        )
        changes = _numbers({m: self.change_percent(m, how) for m in METRICS})
        return verdicts.Summary(unmerged, merged, naive, changes)

    def _change(self, metric: str) -> verdicts.Change:
        """Median, and the worst column by name with its errors (None where no column compares)."""
        found = self.change(metric)
        worst = None
        if found.worst is not None:
            column = self.columns[found.worst]
            before, after = (finite(side[metric]) for side in (column.unmerged, column.merged))
            worst = verdicts.Worst(column.column, before, after, finite(found.worst_percent))
        left_out = tuple(self.columns[index].column for index in found.left_out)
        return verdicts.Change(finite(found.median), worst, found.compared, left_out)


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: finite(value) for name, value in values.items()}


def measure(
    family: Family,
    component: Component,
    model: nn.Module,
    unmerged: Path,
    merged: Path,
    table: Table,
    checks: Checks = USUAL,
    *,
    context: int | None = None,
    windows: int | None = 8,
    season: int = 24,
    batch: int = 8,
    runs: int = 20,
    with_decisions: Path | None = None,
    forecast: Forecast | None = None,
    rival: Rival | None = None,
    comparable: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> CostReport:
    """Forecast rolling windows with both artefacts (see :func:`~tsmerge_export.verify.data.rolling_windows`).

    Args:
        family, component, model: the original module, for what of a forecast no file does.
        unmerged, merged: .onnx files of the component.
        table: series; errors are taken on its last fifth.
        checks: threads, and the seed of families that sample (the same for both artefacts).
        context: steps before each forecast; None is all that the model reads (or the length that ``checks`` name), or
            what the table has room for.
        windows: at most so many per column; None is all.
        season: of the seasonal naive forecast, in steps.
        batch: series per call when timing (where ``checks`` name none); their length is ``context``.
        runs: timed calls.
        forecast: instead of ``family.forecast``, see :func:`~tsmerge_export.verify.decoded.decoded_by`.
        rival: the model that ``unmerged`` is of, where that is another than ``model``; it has the same horizon, context
            and quantile levels.
        comparable: whether the weights of ``unmerged`` are meant to run unmerged.
        with_decisions: for an artefact whose functions are inlined, the same model with its merge nodes.
        progress: called with (columns done, columns in all).

    Returns:
        The report.

    Raises:
        UsageError: the table is too short.
    """
    horizon = family.horizon(model)
    rows = len(table.values)
    notes = []
    if context is None:
        need_rows(table.name, rows, horizon, horizon)
        wanted = family.context(model) if checks.shape is None else checks.shape.length
        context = min(wanted, rows - horizon)
        if context < wanted:
            notes.append(f"context {context} instead of {wanted}: the data have only {rows} rows")
    batch = batch if checks.shape is None else checks.shape.batch
    cut = rolling_windows(table, context, horizon, limit=windows)
    names = [spec.name for spec in component.outputs]
    sessions = [checks.open(path, timed=True) for path in (unmerged, merged)]
    run_unmerged, run_merged = (partial(run_named, session, names) for session in sessions)
    levels = family.quantile_levels(model)
    own = Rival("", component, model, forecast)
    sides = (rival or own, own)
    forecasts = [
        Forecasts(family, side.model, run, checks.seed, side.forecast)
        for side, run in zip(sides, (run_unmerged, run_merged), strict=True)
    ]

    columns = []
    with torch_threads(checks.threads):
        for c, column in enumerate(cut.columns):
            scores = [_score(each.of_column(cut, c), cut, c, levels) for each in forecasts]
            naive = _point_errors(metrics.seasonal_naive(cut.context[c], horizon, season), cut, c)
            level = float(np.nanmean(np.abs(cut.target[c]))) if not np.isnan(cut.target[c]).all() else 0.0
            scale = float(cut.deviation[c]) / level if level > 0 else 0.0
            columns.append(ColumnCost(column, scores[0], scores[1], naive | {"wql": float("nan")}, scale))
            if progress is not None:
                progress(c + 1, len(cut.columns))

    pool = np.resize(cut.context.reshape(-1, context), (batch, context))
    before, feed = (side.component.from_series(side.model, pool) for side in sides)
    done, unmerged_ms, merged_ms = interleaved(
        lambda: run_unmerged(before), lambda: run_merged(feed), runs=checks.runs(runs)
    )
    speed = SpeedReport(batch, context, checks.threads, done, unmerged_ms, merged_ms)
    count = cut.target.shape[1]
    if count < change.LEAST_WINDOWS:
        notes.append(
            f"{count} window{'s' * (count > 1)} per column: too few to tell how far the changes scatter; give more rows"
        )
    notes += _left_out(columns)
    if speed.note:
        notes.append(speed.note)
    tokens = tokens_left(with_decisions or merged, feed, checks)
    return CostReport(
        table.name, cut.target.shape[1], context, horizon, season, tuple(columns), speed, tuple(notes), tokens,
        None if rival is None else rival.name, comparable,
    )  # fmt: skip


def _left_out(columns: Sequence[ColumnCost]) -> list[str]:
    """A note on the columns whose unmerged error is too small for a change in per cent."""
    found = []
    for column in columns:
        metric = next((m for m in ("mae", "mse", "wql") if column.next_to_nothing(m)), None)
        if metric is not None:
            before, after = (f"{errors[metric]:.2g}" for errors in (column.unmerged, column.merged))
            found.append(f"{column.column[:30]!r} ({metric.upper()} {before} unmerged, {after} merged)")
    if not found:
        return []
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return [
        f"no change in per cent of column {', '.join(found[:_NAMED])}{more}: the unmerged error is next to nothing"
    ]


def tokens_left(artefact: Path, feed: Arrays, checks: Checks) -> tuple[int, ...]:
    """:attr:`CostReport.tokens` of one batch."""
    proto = onnx_weights.read(artefact)
    nodes = [node for node in proto.graph.node if node.domain == DOMAIN]
    if not any(schema(node.op_type).data_dependent for node in nodes):
        return ()
    taps = tap(proto)
    run = run_named(checks.open(proto), [taps[0].target, *(place.kept for place in taps)], feed)
    return tuple(int(value.shape[1]) for value in run.values())


def _point_errors(point: npt.NDArray[np.floating], cut: Windows, column: int) -> dict[str, float]:
    scaled = [
        (x - cut.mean[column]) / cut.deviation[column] for x in (point.astype(np.float64), cut.target[column])
    ]
    return {"mse": metrics.mse(*scaled), "mae": metrics.mae(*scaled)}


def _score(
    quantiles: npt.NDArray[np.float32], cut: Windows, column: int, levels: Sequence[float]
) -> dict[str, float]:
    wql = metrics.weighted_quantile_loss(quantiles, cut.target[column], levels)
    return _point_errors(median_of(quantiles, levels), cut, column) | {"wql": wql}
