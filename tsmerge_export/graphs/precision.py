"""Precision cost of a model without an eager module."""

from __future__ import annotations

from pathlib import Path

from tsmerge_export.bundle.precision import PrecisionCost, PrecisionSpeed
from tsmerge_export.graphs.model import GraphModel
from tsmerge_export.graphs.timed import batch_of, data_of, length_of, outputs_moved, usual_feeds
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.precision import decisions_moved
from tsmerge_export.verify.speed import interleaved


def precision_cost(
    model: GraphModel, twin: Built, quantised: Built, checks: Checks, *, timed: Path | None, runs: int = 20
) -> PrecisionCost:
    """How far a precision below float32 moves the outputs, and what it brings in speed.

    Whether that passes is not looked at.

    Args:
        timed: see :func:`tsmerge_export.verify.precision.measure`.
    """
    names = [spec.name for spec in model.component.outputs]
    before, after = (checks.open(one.merged, timed=True) for one in (twin, quantised))
    sizes, feeds = usual_feeds(model, before, checks)
    speed = None
    if timed is not None:
        faster = after if timed == quantised.merged else checks.open(timed, timed=True)
        done, float32_ms, quantised_ms = interleaved(
            lambda: before.run(names, feeds[0]), lambda: faster.run(names, feeds[0]), runs=checks.runs(runs)
        )
        speed = PrecisionSpeed(
            batch=batch_of(model, feeds[0]),
            length=length_of(model, sizes, feeds[0]),
            threads=checks.threads,
            runs=done,
            float32_ms=float32_ms,
            quantised_ms=quantised_ms,
            ratio=float32_ms / quantised_ms,
        )
    shares, notes = decisions_moved(twin.with_nodes, quantised.merged, feeds, checks)
    return PrecisionCost(
        passed=True,
        data=data_of(model, checks),
        outputs=outputs_moved(names, before, after, feeds),
        decisions_moved_percent=shares,
        speed=speed,
        notes=tuple(notes),
    )
