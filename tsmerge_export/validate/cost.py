"""Merge cost: what merging does to the forecasts on data, and to the speed; unmerged against merged artefact."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from tsmerge_export import onnx_weights
from tsmerge_export.families.base import Arrays, Component, Family, Forecast, Run
from tsmerge_export.ops import DOMAIN, schema
from tsmerge_export.validate import metrics
from tsmerge_export.validate.data import Table, Windows, need_rows, rolling_windows
from tsmerge_export.validate.decisions import tap
from tsmerge_export.validate.sessions import open_session
from tsmerge_export.validate.speed import SpeedReport, interleaved
from tsmerge_export.validate.threads import torch_threads

METRICS = ("mse", "mae", "wql")
_CHUNK = 32  # series per forward, to bound memory


@dataclass(frozen=True)
class ColumnCost:
    """Errors of one column, by metric: MSE and MAE of the median forecast in standard deviations of the column
    (of the rows before the test windows), WQL in its own unit. The naive forecast has no WQL (NaN)."""

    column: str
    unmerged: dict[str, float]
    merged: dict[str, float]
    naive: dict[str, float]


@dataclass(frozen=True)
class CostReport:
    """Merge cost on one table. ``columns`` in file order; ``windows`` per column.

    ``tokens``: how many the timed batch had, and how many each merging layer left; empty where that follows from the
    length alone.
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

    def overall(self, which: str, metric: str, how: str = "median") -> float:
        """``how`` ("median" or "mean") over columns of a metric of "unmerged", "merged" or "naive"."""
        values = [getattr(column, which)[metric] for column in self.columns]
        return float(np.median(values) if how == "median" else np.mean(values))

    def change_percent(self, metric: str, how: str = "median") -> float:
        """Change of the overall metric by merging, in per cent; above 0 is worse, NaN where nothing compares."""
        before = self.overall("unmerged", metric, how)
        return 100 * (self.overall("merged", metric, how) / before - 1) if before > 0 else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; what is not a number is None."""
        sides = ("unmerged", "merged", "naive")
        overall = {
            how: {side: {m: self.overall(side, m, how) for m in METRICS} for side in sides}
            | {"change_percent": {m: self.change_percent(m, how) for m in METRICS}}
            for how in ("median", "mean")
        }
        out: dict[str, Any] = {
            name: getattr(self, name) for name in ("data", "windows", "context", "horizon", "season")
        }
        out |= {"columns": [vars(column) for column in self.columns], "overall": overall}
        out |= {"speed": self.speed.to_dict(), "notes": list(self.notes), "tokens": list(self.tokens)}
        cleaned: dict[str, Any] = _json(out)
        return cleaned


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def measure(
    family: Family,
    component: Component,
    model: nn.Module,
    unmerged: Path,
    merged: Path,
    table: Table,
    *,
    context: int | None = None,
    windows: int | None = 8,
    season: int = 24,
    threads: int | None = None,
    batch: int = 8,
    runs: int = 20,
    seed: int = 0,
    with_decisions: Path | None = None,
    forecast: Forecast | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CostReport:
    """Forecast rolling windows with both artefacts (see :func:`~tsmerge_export.validate.data.rolling_windows`).

    Args:
        family, component, model: the original module, for what of a forecast no file does.
        unmerged, merged: .onnx files of the component.
        table: series; errors are taken on its last fifth.
        context: steps before each forecast; None is all that the model reads, or what the table has room for.
        windows: at most so many per column; None is all.
        season: of the seasonal naive forecast, in steps.
        threads: for ONNX Runtime and PyTorch; None is what suits the machine.
        batch: series per call when timing; their length is ``context``.
        runs: timed calls.
        seed: for families that sample; the same for both artefacts.
        forecast: instead of ``family.forecast``, see :func:`~tsmerge_export.validate.decoded.decoded_by`.
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
        context = min(family.context(model), rows - horizon)
        if context < family.context(model):
            notes.append(
                f"context {context} instead of {family.context(model)}: the data have only {rows} rows"
            )
    cut = rolling_windows(table, context, horizon, limit=windows)
    names = [spec.name for spec in component.outputs]
    sessions = [open_session(path, threads, timed=True) for path in (unmerged, merged)]
    run_unmerged, run_merged = (partial(run_named, session, names) for session in sessions)
    levels = family.quantile_levels(model)
    forecast = forecast or _own_forecast(family, model)

    columns = []
    with torch_threads(threads):
        for c, column in enumerate(cut.columns):
            scores = [
                _score(_in_chunks(forecast, run, cut.context[c], seed), cut, c, levels)
                for run in (run_unmerged, run_merged)
            ]
            naive = _point_errors(metrics.seasonal_naive(cut.context[c], horizon, season), cut, c)
            columns.append(ColumnCost(column, scores[0], scores[1], naive | {"wql": float("nan")}))
            if progress is not None:
                progress(c + 1, len(cut.columns))

    pool = cut.context.reshape(-1, context)
    feed = component.from_series(model, np.resize(pool, (batch, context)))
    done, unmerged_ms, merged_ms = interleaved(
        lambda: run_unmerged(feed), lambda: run_merged(feed), runs=runs
    )
    speed = SpeedReport(batch, context, threads, done, unmerged_ms, merged_ms)
    if speed.note:
        notes.append(speed.note)
    tokens = tokens_left(with_decisions or merged, feed, threads)
    return CostReport(
        table.name, cut.target.shape[1], context, horizon, season, tuple(columns), speed, tuple(notes), tokens
    )


def window_errors(
    family: Family,
    model: nn.Module,
    run: Callable[[Arrays], Arrays],
    cut: Windows,
    column: int,
    seed: int = 0,
    forecast: Forecast | None = None,
) -> dict[str, npt.NDArray[np.float64]]:
    """Errors of the forecasts of one column, window by window; for comparisons of two models on the same windows.

    Args:
        run: as in ``Family.forecast``. cut, column: the windows. seed: for families that sample.
        forecast: as in :func:`measure`.

    Returns:
        ``mse`` and ``wql``, each ``[W]``: the MSE of the median forecast in standard deviations squared, and the
        pinball loss summed over steps, mean over the levels, in the unit of the data (the numerator of the weighted
        quantile loss: in a ratio of two losses the denominator cancels). NaN where a window has no observed target.
    """
    levels = family.quantile_levels(model)
    quantiles = _in_chunks(forecast or _own_forecast(family, model), run, cut.context[column], seed)
    median = _median(quantiles, levels)
    target = cut.target[column]
    found: dict[str, list[float]] = {"mse": [], "wql": []}
    for w in range(len(target)):
        observed = not np.isnan(target[w]).all()
        scaled = [
            (x[w] - cut.mean[column]) / cut.deviation[column] for x in (median.astype(np.float64), target)
        ]
        losses = [metrics.pinball(quantiles[w, i], target[w], q) for i, q in enumerate(levels)]
        found["mse"].append(metrics.mse(*scaled))
        found["wql"].append(float(np.mean(losses)) if observed else float("nan"))
    return {name: np.asarray(values) for name, values in found.items()}


def tokens_left(artefact: Path, feed: Arrays, threads: int | None) -> tuple[int, ...]:
    """:attr:`CostReport.tokens` of one batch."""
    proto = onnx_weights.read(artefact)
    nodes = [node for node in proto.graph.node if node.domain == DOMAIN]
    if not any(schema(node.op_type).data_dependent for node in nodes):
        return ()
    taps = tap(proto)
    run = run_named(open_session(proto, threads), [taps[0].target, *(place.kept for place in taps)], feed)
    return tuple(int(value.shape[1]) for value in run.values())


def run_named(session: Any, names: Sequence[str], inputs: Arrays) -> Arrays:
    """Outputs by name of an ONNX Runtime session."""
    return dict(zip(names, session.run(list(names), inputs), strict=True))


def _own_forecast(family: Family, model: nn.Module) -> Forecast:
    return lambda run, series, seed: family.forecast(model, run, series, seed)


def _in_chunks(
    forecast: Forecast, run: Run, series: npt.NDArray[np.float32], seed: int
) -> npt.NDArray[np.float32]:
    return np.concatenate(
        [forecast(run, series[i : i + _CHUNK], seed) for i in range(0, len(series), _CHUNK)]
    )


def _point_errors(point: npt.NDArray[np.floating], cut: Windows, column: int) -> dict[str, float]:
    scaled = [
        (x - cut.mean[column]) / cut.deviation[column] for x in (point.astype(np.float64), cut.target[column])
    ]
    return {"mse": metrics.mse(*scaled), "mae": metrics.mae(*scaled)}


def _score(
    quantiles: npt.NDArray[np.float32], cut: Windows, column: int, levels: Sequence[float]
) -> dict[str, float]:
    wql = metrics.weighted_quantile_loss(quantiles, cut.target[column], levels)
    return _point_errors(_median(quantiles, levels), cut, column) | {"wql": wql}


def _median(quantiles: npt.NDArray[np.float32], levels: Sequence[float]) -> npt.NDArray[np.float32]:
    """``[W, H]``; a model without the level 0.5 has two nearest ones: their mean."""
    off = np.abs(np.asarray(levels) - 0.5)
    median: npt.NDArray[np.float32] = quantiles[:, np.isclose(off, off.min())].mean(axis=1)
    return median
