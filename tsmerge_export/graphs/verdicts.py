"""The verdicts of a model without an eager module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, partial
from typing import Any

import numpy as np
import onnx_ir as ir

from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.backends.ratio import value_of
from tsmerge_export.bundle.verdicts import Cost, Parity
from tsmerge_export.errors import VerdictError
from tsmerge_export.families.base import Arrays
from tsmerge_export.graphs.model import FAMILY, GraphModel
from tsmerge_export.graphs.noise import GraphNoise, Unmerged
from tsmerge_export.graphs.reference import Reference, Where
from tsmerge_export.graphs.rows import by_row
from tsmerge_export.graphs.timed import (
    batch_of,
    data_of,
    does_run,
    length_of,
    outputs_moved,
    usual_feeds,
)
from tsmerge_export.inspection.feeds import KINDS, Sizes, kinds_for, make
from tsmerge_export.merge.plan import MergeStep, make_plan
from tsmerge_export.rewrite.dims import dims
from tsmerge_export.rewrite.points import Point, find_points
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.run_time import INPUT
from tsmerge_export.verify import decisions, lengths, ratios, settings, tolerances
from tsmerge_export.verify.artefact import OnnxArtefact
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks, Told
from tsmerge_export.verify.cost import tokens_left
from tsmerge_export.verify.eager import Expected
from tsmerge_export.verify.parity import (
    CaseResult,
    ParityReport,
    compare_row,
    judge_cases,
    unreadable,
)
from tsmerge_export.verify.speed import SpeedReport, interleaved
from tsmerge_export.verify.threads import torch_threads
from tsmerge_export.verify.window_errors import run_named

AGAINST = "the original graph, run operator by operator with the reference merging"


#: How many rows of a batch some inputs are compared as.
Rows = Callable[[Arrays], int]


@dataclass(frozen=True)
class GraphCase:
    """Inputs that a graph is compared on."""

    name: str
    degenerate: bool
    batch: int
    feeds: Arrays
    ratio: Fraction | None = None


def _at_ratios(cases: Sequence[GraphCase], merge: MergeConfig) -> list[GraphCase]:
    """The cases, and where the ratio is chosen at run time one more of each kind of values at another ratio."""
    found = ratios.others(merge.default_ratio) if merge.default_ratio is not None else []
    turns = zip(cases, found * len(cases), strict=False) if found else ()
    return [*cases, *(replace(case, name=f"{case.name} ratio={at}", ratio=at) for case, at in turns)]


def _more_sizes(model: GraphModel, session: Any) -> Iterator[Sizes]:
    """Sizes that the graph was not measured at."""
    base = model.sizes[0]
    if not base:
        return
    for batch, change in ((4, lambda n: n + 3), (1, lambda n: 2 * n + 1), (7, lambda n: max(2, n // 3))):
        sizes = {dim: batch if dim == "batch" else change(size) for dim, size in base.items()}
        if does_run(session, make(model.inputs, sizes)):
            yield sizes


def cases_of(
    model: GraphModel, session: Any, checks: Checks, rows: Rows, only: Sizes | None = None
) -> list[GraphCase]:
    """Every kind of values, and random ones at every size, the shortest included; ``only``: all at that size."""
    sizes = [*_more_sizes(model, session), *model.sizes] if only is None else [only]
    turns = [(KINDS[0], own) for own in ([*sizes, *model.short] if only is None else sizes)]
    kinds = kinds_for(model.inputs)[: 2 if checks.quick else None]
    turns += [(kind, sizes[i % len(sizes)]) for i, kind in enumerate(kinds) if i]
    found = []
    for kind, own in turns:
        feeds = make(model.inputs, own, kind, checks.seed + 1)
        what = " ".join([kind.name, *(f"{dim}={size}" for dim, size in own.items())])
        found.append(GraphCase(what, kind.degenerate, rows(feeds), feeds))
    if model.given is not None and only is None:
        found.append(GraphCase("--inputs", False, rows(model.given), model.given))
    return found


def rows_mix(model: GraphModel, session: Any) -> bool:
    """Whether the outputs of a row depend on the other rows (attention over the series of a batch): seen by running."""
    feeds = model.example(0)
    batch = batch_of(model, feeds)
    own = [name for name, value in feeds.items() if value.ndim and len(value) == batch]
    if batch < 2 or not own:
        return False
    names = [spec.name for spec in model.component.outputs]
    before = run_named(session, names, feeds)
    # The first row again in place of the others: what was there before must not have mattered to it.
    after = run_named(session, names, feeds | {name: np.repeat(feeds[name][:1], batch, 0) for name in own})
    tolerance = tolerances.end_to_end(FAMILY)
    return any(
        value.ndim > 0
        and len(value) == batch
        and compare_row(value[0], after[name][0], tolerance)[0] is not None
        for name, value in before.items()
    )


def reference_of(
    model: GraphModel, merge: MergeConfig, built: Built, threads: int | None, ratio: Fraction | None = None
) -> Reference:
    """The reference for what was built: it takes the places of merges and barriers from it, and nothing else.

    Args:
        ratio: where it is chosen at run time; None is the default.
    """
    points, plan = planned(model, merge)
    plan = plan if ratio is None else {layer: step.at(ratio) for layer, step in plan.items()}
    masked = next((list(item.spec.dims) for item in model.inputs if item.spec.name == model.token_mask), None)
    wheres = [
        Where(
            str(point.value.name),
            plan[point.layer],
            _name(point.keys) if merge.metric == "key" else None,
            point.axis,
            (dims(point.value) or [])[:2][:: 1 if point.axis == 1 else -1] == masked,
        )
        for point in points
        if point.layer in plan
    ]
    barriers = [barrier.node for barrier in built.report.barriers]
    return Reference(
        model.plain, wheres, barriers, token_mask=model.token_mask, prop_attn=merge.prop_attn, threads=threads
    )


def planned(model: GraphModel, merge: MergeConfig) -> tuple[list[Point], dict[int, MergeStep]]:
    """The places of a graph, and the steps at those that merge."""
    points, _ = find_points(model.measured.graph)
    hints = model.component.hints
    plan = make_plan(merge, len(points), protect_first=hints.protect_first, protect_last=hints.protect_last)
    return points, plan


def _telling_cases(
    model: GraphModel,
    merge: MergeConfig,
    session: Any,
    results: Sequence[CaseResult],
    seed: int,
    rows: Rows,
) -> list[GraphCase]:
    """Random values at numbers of tokens that tell the settings from those beside them, see :mod:`.lengths`."""
    points, plan = planned(model, merge)
    seen = [result.tokens for result in results if result.tokens]
    dim = (dims(points[0].value) or [None] * 2)[points[0].axis] if points else None
    if model.given is not None or not seen or not isinstance(dim, str) or dim not in model.sizes[0]:
        return []
    found = []
    for tokens in lengths.more_tokens(plan, seen, max(counts[0] for counts in seen)):
        sizes = {**model.sizes[0], dim: tokens}
        feeds = make(model.inputs, sizes, KINDS[0], seed + 1)
        if does_run(session, feeds):
            what = " ".join([KINDS[0].name, *(f"{name}={size}" for name, size in sizes.items())])
            found.append(GraphCase(what, KINDS[0].degenerate, rows(feeds), feeds))
    return found


def _name(value: ir.Value | None) -> str | None:
    return None if value is None else value.name


def parity(
    model: GraphModel,
    merge: MergeConfig,
    built: Built,
    checks: Checks,
    *,
    faults: Sequence[str] = (),
    values_from: Callable[..., Arrays] | None = None,
    only: Sizes | None = None,
    progress: Told | None = None,
) -> Parity:
    """The artefact against the reference merging simulated in the original graph.

    Args:
        values_from: runs it elsewhere, see :class:`~tsmerge_export.verify.artefact.OnnxArtefact`.
        only: the one size that the artefact takes; None is any.

    Raises:
        VerdictError: without merging, the reference itself differs from the original.
    """
    names = [spec.name for spec in model.component.outputs]
    tolerance = checks.tolerance(FAMILY)
    reference = cache(partial(reference_of, model, merge, built, checks.threads))
    original = open_session(
        model.original, checks.threads
    )  # the reference: on the CPU wherever the file runs
    with torch_threads(checks.threads):
        _prove_reference(model, original, checks)
        report = ParityReport(built.component.name, tolerance)
        try:
            artefact = OnnxArtefact(built.merged, names, checks, built.decisions, values_from)
        except Exception as error:  # ONNX Runtime raises its own types, one per status code
            return unreadable(built.component.name, built.merged, tolerance, error).verdict()
        if built.decisions is None and merge.active:
            report.faults += settings.faults(built.merged, planned(model, merge)[1])
        report.faults += faults
        # Where rows mix, a decision that flips in one row changes the others: all are compared as one.
        mixed = rows_mix(model, original)

        def rows(feeds: Arrays) -> int:
            return 1 if mixed else batch_of(model, feeds)

        removed = 0
        noises: dict[Fraction | None, GraphNoise] = {}

        def expected(case: GraphCase) -> Expected:
            nonlocal removed
            noise = noises.setdefault(case.ratio, GraphNoise(reference(case.ratio)))
            want, steps = reference(case.ratio).traced(case.feeds)
            removed += sum(step.removed for step in steps)
            chosen = {} if case.ratio is None else {INPUT: value_of(case.ratio)}
            measured = cache(partial(noise.measure, case.feeds, want, steps, case.batch))
            return Expected(
                case.feeds | chosen,
                by_row(want, case.batch),
                decisions.from_steps(steps),
                measured if checks.noisy() else None,
            )

        by_rows = ByRow(artefact, rows)
        cases = _at_ratios(cases_of(model, original, checks, rows, only), merge)
        judge_cases(report, expected, by_rows, cases, progress)
        if merge.active and checks.whole and only is None:
            own = [result for case, result in zip(cases, report.cases, strict=True) if case.ratio is None]
            more = _telling_cases(model, merge, original, own, checks.seed, rows)
            judge_cases(report, expected, by_rows, more)
    report.faults += [noise.fault for noise in noises.values() if noise.fault]
    if merge.active and not removed:
        model.notes.append(
            "no token was removed in any case that was compared: there are too few, or all are protected"
        )
    return replace(report.verdict(), against=AGAINST)


class ByRow:
    """An artefact whose outputs all have a batch."""

    def __init__(self, artefact: OnnxArtefact, rows: Rows) -> None:
        self._artefact, self._rows = artefact, rows
        self.taps = artefact.taps

    def run(self, inputs: Arrays) -> Arrays:
        return by_row(self._artefact.run(inputs), self._rows(inputs))

    def tapped(self, inputs: Arrays) -> Arrays:
        found = self._artefact.tapped(inputs)
        decisions = {name for tap in self.taps for name in (tap.kept, tap.target)}
        plain = by_row({k: v for k, v in found.items() if k not in decisions}, self._rows(inputs))
        return plain | {name: found[name] for name in decisions}


def _prove_reference(model: GraphModel, original: Any, checks: Checks) -> None:
    """Operator by operator, without merging, the reference must be the original."""
    feeds, alone = model.example(0), Reference(model.plain, [], [], threads=checks.threads)
    want, _ = alone.run(feeds)
    unmerged = Unmerged(alone, feeds, checks.tolerance(FAMILY), noisy=checks.noisy())
    for name, value in run_named(original, list(want), feeds).items():
        fault = unmerged.fault(name, value, want[name])
        if fault:
            raise VerdictError(
                f"{model.source}: run operator by operator, output {name!r} is not what the file computes ({fault}); "
                "nothing can be proved with such a reference"
            )


def cost(
    model: GraphModel,
    built: Built,
    checks: Checks,
    *,
    runs: int = 20,
) -> Cost:
    """How far merging moves the outputs, and what it brings in speed.

    The unmerged rival is the original file, fused operators included.
    """
    names = [spec.name for spec in model.component.outputs]
    before = checks.open(model.original, timed=True)
    after = checks.open(built.merged, timed=True)
    timed, feeds = usual_feeds(model, before, checks)
    done, unmerged_ms, merged_ms = interleaved(
        lambda: before.run(names, feeds[0]), lambda: after.run(names, feeds[0]), runs=checks.runs(runs)
    )
    length = length_of(model, timed, feeds[0])
    speed = SpeedReport(batch_of(model, feeds[0]), length, checks.threads, done, unmerged_ms, merged_ms)
    notes = [
        "what the outputs mean is not known, so that no forecast error can be given: how far they move is",
        *model.notes,
        *([speed.note] if speed.note else []),
    ]
    return Cost(
        data=data_of(model, checks),
        outputs=outputs_moved(names, before, after, feeds),
        speed=speed.entry(),
        notes=tuple(notes),
        tokens=tokens_left(built.decisions or built.merged, feeds[0], checks),
    )
