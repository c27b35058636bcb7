"""Precision cost: what weights below float32 do to the forecasts on data, and to the speed.

The quantised files are held against the float32 files that they were made from, never against the model or the unmerged
file: those are parity and merge cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from tsmerge_export.bundle.precision import PrecisionChange, PrecisionCost, PrecisionSpeed
from tsmerge_export.families.base import Arrays, Family
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.typed import finite
from tsmerge_export.verify import change
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import USUAL, Checks
from tsmerge_export.verify.data import Table, Windows, need_rows, rolling_windows
from tsmerge_export.verify.decisions import Tap, moved_away, tap
from tsmerge_export.verify.decoded import decoded_by
from tsmerge_export.verify.quality import Errors, increase, spread
from tsmerge_export.verify.speed import interleaved
from tsmerge_export.verify.threads import torch_threads
from tsmerge_export.verify.window_errors import METRICS, Forecasts, next_to_nothing, run_named

#: Of a file whose functions are inlined.
NO_DECISIONS = "the functions are inlined, so that no merge decision can be compared"
_CHUNK = 32  # series per forward, to bound memory


def measure(
    family: Family,
    model: nn.Module,
    twins: Sequence[Built],
    quantised: Sequence[Built],
    table: Table,
    checks: Checks = USUAL,
    *,
    windows: int | None = 16,
    batch: int = 8,
    runs: int = 20,
    timed: Path | None,
    progress: Callable[[int, int], None] | None = None,
) -> PrecisionCost:
    """Forecast rolling windows with both sides (see :func:`~tsmerge_export.verify.data.rolling_windows`).

    Args:
        family, model: for what of a forecast no file does.
        twins, quantised: all components, in float32 and below.
        table: series; errors are taken on its last fifth. windows: at most so many per column; None is all.
        batch: series per call when timing; it is the first component that is timed. runs: timed calls.
        timed: its file below float32, which may be another form than what is measured; None: it does not run here.
        progress: called with (forecasts done, forecasts in all).

    Returns:
        The figures; whether they pass is not looked at.

    Raises:
        UsageError: the table is too short.
    """
    horizon, rows = family.horizon(model), len(table.values)
    need_rows(table.name, rows, horizon, horizon)
    context = min(family.context(model), rows - horizon)
    cut = rolling_windows(table, context, horizon, limit=windows)
    component = twins[0].component
    names = [spec.name for spec in component.outputs]
    sessions = [checks.open(side[0].merged, timed=True) for side in (twins, quantised)]
    calls = [partial(run_named, session, names) for session in sessions]
    found: list[dict[str, Errors]] = []
    with torch_threads(checks.threads):
        for number, (side, call) in enumerate(zip((twins, quantised), calls, strict=True)):
            forecast = decoded_by(family, model, side, checks)

            def told(done: int, before: int = number * len(cut.columns)) -> None:
                if progress is not None:
                    progress(before + done, 2 * len(cut.columns))

            found.append(Forecasts(family, model, call, checks.seed, forecast).errors(cut, told))
    pool = cut.context.reshape(-1, context)
    feed = component.from_series(model, np.resize(pool, (batch, context)))
    speed = None
    if timed is not None:
        faster = calls[1]
        if timed != quantised[0].merged:
            faster = partial(run_named, checks.open(timed, timed=True), names)
        done, before, after = interleaved(
            lambda: calls[0](feed), lambda: faster(feed), runs=checks.runs(runs)
        )
        speed = PrecisionSpeed(
            batch=batch, length=context, threads=checks.threads, runs=done, float32_ms=before, quantised_ms=after,
            ratio=before / after,
        )  # fmt: skip
    feeds = (component.from_series(model, pool[i : i + _CHUNK]) for i in range(0, len(pool), _CHUNK))
    moved, notes = decisions_moved(twins[0].with_nodes, quantised[0].merged, feeds, checks)
    if cut.target.shape[1] < change.LEAST_WINDOWS:
        notes.append(
            f"{cut.target.shape[1]} windows per column: too few to tell how far the changes scatter; give more rows"
        )
    return PrecisionCost(
        passed=True,
        data=table.name,
        windows=cut.target.shape[1],
        context=context,
        horizon=horizon,
        columns=len(cut.columns),
        changes={
            metric: _change(metric, found[0][metric], found[1][metric], cut, checks.seed)
            for metric in METRICS
        },
        decisions_moved_percent=moved,
        speed=speed,
        notes=tuple(notes),
    )


def _change(metric: str, float32: Errors, quantised: Errors, cut: Windows, seed: int) -> PrecisionChange:
    smallest = next_to_nothing(metric, cut)
    found = increase(quantised, float32, smallest, seed)
    low, high = spread(quantised, float32, smallest, seed)
    worst = None if found.worst is None else cut.columns[found.worst]
    before, after = (float(np.median(_level(metric, errors, cut))) for errors in (float32, quantised))
    return PrecisionChange(
        float32=finite(before),
        quantised=finite(after),
        median_percent=finite(found.median),
        low_percent=finite(low),
        high_percent=finite(high),
        upper_percent=finite(found.upper),
        worst_column=worst,
        worst_percent=finite(found.worst_percent),
    )


def _level(metric: str, errors: Errors, cut: Windows) -> npt.NDArray[np.float64]:
    """``[C]``: the error of every column, in the unit of the merge cost."""
    if metric != "wql":
        return np.asarray(np.nanmean(errors, axis=1))
    weight = np.nansum(np.abs(cut.target), axis=(1, 2))
    return np.asarray(2 * np.nansum(errors, axis=1) / np.where(weight > 0, weight, np.nan))


def decisions_moved(
    twin: Path, quantised: Path, feeds: Iterable[Arrays], checks: Checks
) -> tuple[tuple[float | None, ...], list[str]]:
    """By merging layer, of the tokens that the float32 file has merged away behind it, the share that the quantised
    one still has, per cent; and a note where that cannot be told.

    Args:
        twin: with its merge nodes. quantised: of the same model. feeds: inputs of both.
    """
    sides = []
    for file in (twin, quantised):
        proto = onnx_weights.read(file)
        taps = tap(proto)
        sides.append((checks.open(proto) if taps else None, taps))
    (first, taps), (second, others) = sides
    if len(taps) != len(others):
        return (), [NO_DECISIONS]
    if not taps:
        return (), []
    gone, still = np.zeros(len(taps)), np.zeros(len(taps))
    for feed in feeds:
        counts = moved_away(_decided(first, taps, feed), _decided(second, others, feed))
        gone += [count[0] for count in counts]
        still += [count[1] for count in counts]
    shares = (100 * s / g if g else None for s, g in zip(still, gone, strict=True))
    return tuple(None if share is None else float(share) for share in shares), []


def _decided(session: Any, taps: Sequence[Tap], feed: Arrays) -> list[tuple[Any, Any]]:
    values = run_named(session, [name for one in taps for name in (one.kept, one.target)], feed)
    return [(values[one.kept], values[one.target]) for one in taps]
