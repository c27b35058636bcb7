"""Components below float32: their files made from proved ones, and the verdict on them.

Files in half are in :mod:`.half`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from tsmerge_export.bundle.precision import PrecisionCost, PrecisionEntry, QuantisedPart
from tsmerge_export.compile.calibrate import entry_of, ranges_on
from tsmerge_export.compile.sensitivity import Part, find_sensitive
from tsmerge_export.compile.source import Source
from tsmerge_export.console.figures import change
from tsmerge_export.errors import UsageError
from tsmerge_export.merge.plan import MergeStep
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.precision import read_back, read_back_static
from tsmerge_export.precision.products import kept, products, tables
from tsmerge_export.precision.quantise import as_products, quantised, twin_of
from tsmerge_export.precision.ranges import read_by
from tsmerge_export.precision.tables import stored_twice
from tsmerge_export.settings.precision import Precision
from tsmerge_export.verify import settings
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.calibration import Calibration
from tsmerge_export.verify.checks import Checks, Told
from tsmerge_export.version import versions


def quantise_files(
    twins: Sequence[Built],
    precision: Precision,
    folder: Path,
    calibrate: Callable[[], Calibration] | None = None,
    *,
    scratch: Path | None = None,
    told: Told = lambda done, total: None,
) -> tuple[list[Built], PrecisionEntry]:
    """Write a quantised file for every component.

    Args:
        twins: their float32 files, which stay as they are. folder: where the files go, under the same names.
        calibrate: what to find the products by that stay float32, and ranges of activations, where that is asked for.
        scratch: for files of choices; None is ``folder``.

    Raises:
        UsageError: ``keep`` names what is not there, or leaves nothing to quantise.
        UnsupportedError, MissingDependencyError: see :func:`~tsmerge_export.precision.quantise.quantised`.
    """
    models = [twin_of(onnx_weights.read(twin.merged)) for twin in twins]
    found = [[*products(model), *tables(model)] for model in models]
    names = kept(found, precision.named)
    left = [
        tuple(product for product in each if product.node not in own)
        for each, own in zip(found, names, strict=True)
    ]
    if not any(left):
        raise UsageError(
            f"--precision {precision.kind}: no product with a weight is left to quantise; leave it out"
            if any(names)
            else f"--precision {precision.kind}: the model has no product with a large enough weight; leave it out"
        )
    series = cache(_no_series if calibrate is None else calibrate)
    ranges, calibration = [dict[str, tuple[float, float]]() for _ in twins], None
    if precision.calibrated:
        wanted = [[product.node for product in each] for each in left]
        ranges = ranges_on(series(), twins, models, wanted, scratch or folder)
        calibration = entry_of(series())
    sensitivity, hurt = None, [set[str]() for _ in twins]
    if precision.auto:
        parts = [Part(*each) for each in zip(twins, models, left, ranges, strict=True)]
        hurt, sensitivity = find_sensitive(parts, precision, series(), scratch or folder, told)
    out, said = [], {}
    for twin, model, own, rest, more, spans in zip(twins, models, found, left, hurt, ranges, strict=True):
        nodes = [product.node for product in rest if product.node not in more]
        before = model.ByteSize() - sum(tensor.ByteSize() for tensor in stored_twice(model))
        made = quantised(model, precision, nodes, spans)
        if precision.raised is not None and more:
            made = quantised(made, precision.raised, more)
            nodes += more
        file = folder / twin.merged.name
        onnx_weights.write_model(made, file)
        out.append(replace(twin, merged=file))
        said[twin.component.name] = QuantisedPart(
            quantised=len(nodes),
            tables=sum(product.table and product.node in nodes for product in own),
            kept=tuple(product.node for product in own if product.node not in nodes),
            raised=tuple(product.node for product in own if product.node in more and product.node in nodes),
            ranges={name: spans[name] for name in read_by(model, nodes) if name in spans},
            float32_bytes=before,
            bytes=made.ByteSize(),
        )
    quantiser = f"onnxruntime.quantization {versions()['onnxruntime']}"
    return out, PrecisionEntry(
        kind=precision.kind,
        keep=precision.keep,
        max_increase=precision.max_increase,
        quantiser=quantiser,
        components=said,
        sensitivity=sensitivity,
        calibration=calibration,
    )


def _no_series() -> Calibration:
    raise UsageError("--keep-precise auto, --precision int8-static: there are no series to calibrate on")


def judge(
    source: Source,
    twins: Sequence[Built],
    low: Sequence[Built],
    entry: PrecisionEntry,
    checks: Checks,
    told: Told,
    plan: Mapping[int, MergeStep],
    again: Path | None = None,
) -> PrecisionCost:
    """The third verdict.

    It fails where a weight or the scale of an activation is not what the quantiser's formula gives, where the merge
    nodes are not those of ``plan``, and where the weighted quantile loss may rise by more than the limit of ``entry``.

    Args:
        entry: what the files are said to be. again: a folder, to calibrate once more for ranges that were calibrated
            on these series; None leaves that out.
    """
    count, failures, notes = 0, [], list[str]()
    for twin, item in zip(twins, low, strict=True):
        model, made = as_products(onnx_weights.read(twin.merged)), onnx_weights.read(item.merged)
        number, faults = read_back.faults(model, made)
        count += number
        if entry.calibration is not None:
            faults += read_back_static.faults(made, _ranges_of(entry, item))
        if item.component.mergeable and item.decisions is None:
            faults += settings.faults(item.merged, plan)
        failures += [f"{item.component.name}: {fault}" for fault in faults]
    if not count:
        failures.append("no product is quantised")
    if entry.calibration is not None and again is not None:
        faults, notes = _calibrated_again(source, twins, low, entry, checks, again)
        failures += faults
    cost = source.precision(twins, low, checks, told, low[0].merged)
    return judged(replace(cost, notes=(*cost.notes, *notes)), count, failures, entry.max_increase)


def _ranges_of(entry: PrecisionEntry, item: Built) -> dict[str, tuple[float, float]]:
    part = entry.components.get(item.component.name)
    return {} if part is None else {name: (edges[0], edges[1]) for name, edges in part.ranges.items()}


def _calibrated_again(
    source: Source,
    twins: Sequence[Built],
    low: Sequence[Built],
    entry: PrecisionEntry,
    checks: Checks,
    scratch: Path,
) -> tuple[list[str], list[str]]:
    """Failures, where calibrating once more gives other ranges, and notes, where it is of other series."""
    said = entry.calibration
    assert said is not None
    try:
        series = source.calibration(twins, checks)
        same = series.digest == said.sha256
    except UsageError:  # too few rows
        same = False
    if not same:
        return [], [
            f"the ranges of activations were not calibrated again: it was on {said.data}, with other values or another "
            "seed; give the same --data"
        ]
    models = [as_products(onnx_weights.read(twin.merged)) for twin in twins]
    nodes = [
        [one.product for one in read_back_static.activations(onnx_weights.read(item.merged))] for item in low
    ]
    now = ranges_on(series, twins, models, nodes, scratch)
    return [
        f"{item.component.name}: {fault}"
        for item, ranges in zip(low, now, strict=True)
        for fault in read_back_static.moved(_ranges_of(entry, item), ranges)
    ], []


def judged(
    cost: PrecisionCost, weights: int, failures: Sequence[str], max_increase: float | None
) -> PrecisionCost:
    """The verdict of a cost that was measured.

    Args:
        weights: how many were computed back. failures: what was found besides. max_increase: see :func:`judge`.
    """
    failures, notes = list(failures), list(cost.notes)
    wql = cost.changes.get("wql")
    if max_increase is not None and wql is None:
        notes.append(
            "--max-increase: what the outputs mean is not known, so that there is no error to hold it against"
        )
    elif max_increase is not None and wql is not None and not _within(wql.upper_percent, max_increase):
        bound = "an unknown amount" if wql.upper_percent is None else change(wql.upper_percent)
        failures.append(
            f"the weighted quantile loss may rise by {bound} (90 % confidence) over float32, --max-increase allows "
            f"{max_increase:g} %; give a higher precision, or what should stay float32: --keep-precise auto, or names"
        )
    return replace(
        cost, passed=not failures, weights=weights, max_increase=max_increase, failures=tuple(failures),
        notes=tuple(notes),
    )  # fmt: skip


def _within(upper: float | None, most: float) -> bool:
    return upper is not None and upper <= most
