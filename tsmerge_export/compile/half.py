"""Components in half: their files made from proved ones, and the verdict on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from tsmerge_export.bundle.precision import CastParity, PrecisionCost, PrecisionEntry, QuantisedPart
from tsmerge_export.compile.precision import judged
from tsmerge_export.compile.source import Source
from tsmerge_export.errors import UsageError
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.precision.half import Halves, faults, halved, halves, in_float32
from tsmerge_export.precision.products import kept, products
from tsmerge_export.precision.quantise import as_products
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.precision import BF16, FP16, Precision
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks, Told
from tsmerge_export.verify.parity_report import ParityReport
from tsmerge_export.version import versions

#: Of the errors, the times and the parity of such files.
_ON_A_CPU = {
    FP16: "half precision is for GPUs: on a CPU ONNX Runtime computes these products in float32, so that times say "
    "nothing of a GPU; errors are those of products that are rounded to fp16",
    BF16: "half precision is for GPUs: ONNX Runtime has no bf16 products on a CPU, where this file does not load; "
    "errors are those of products in float32 whose operands and results are rounded to bf16",
}


def _which(
    source: Source, twins: Sequence[Built], kind: str, keep: Sequence[str]
) -> list[tuple[onnx.ModelProto, Halves]]:
    """Of every float32 file, the form with products that are all ``MatMul``, and what of it is half."""
    models = [as_products(onnx_weights.read(twin.merged)) for twin in twins]
    found = [products(model) for model in models]
    names = kept(found, keep)
    precise = source.precise if kind == FP16 else ()
    return [
        (model, halves(model, own, stay, precise))
        for model, own, stay in zip(models, found, names, strict=True)
    ]


def halve_files(
    source: Source, twins: Sequence[Built], precision: Precision, folder: Path
) -> tuple[list[Built], PrecisionEntry]:
    """Write a file in half for every component.

    Args:
        twins: their float32 files, which stay as they are. folder: where the files go, under the same names.

    Raises:
        UsageError: ``keep`` names what is not there, or nothing is left that can be half.
        UnsupportedError: weights beyond the range of fp16, or of more than a message holds.
    """
    made = _which(source, twins, precision.kind, precision.keep)
    if not any(which.touched for _, which in made):
        raise UsageError(f"--precision {precision.kind}: no product is left that could be half; leave it out")
    out, parts = [], {}
    for twin, (model, which) in zip(twins, made, strict=True):
        file = folder / twin.merged.name
        low = halved(model, precision.kind, which)
        onnx_weights.write_model(low, file)
        out.append(replace(twin, merged=file))
        own = products(model)
        touched = which.products | which.stored
        parts[twin.component.name] = QuantisedPart(
            quantised=len(touched),
            kept=tuple(product.node for product in own if product.node not in touched),
            stored=len(which.stored),
            float32_bytes=model.ByteSize(),
            bytes=low.ByteSize(),
        )
    return out, PrecisionEntry(
        kind=precision.kind,
        keep=precision.keep,
        max_increase=precision.max_increase,
        quantiser=f"tsmerge-export {versions()['tsmerge-export']}",
        components=parts,
    )


def judge_half(
    source: Source,
    merge: MergeConfig,
    twins: Sequence[Built],
    low: Sequence[Built],
    entry: PrecisionEntry,
    checks: Checks,
    told: Told,
    scratch: Path,
) -> PrecisionCost:
    """The third verdict of files in half.

    It fails where a file is not its twin with rounded weights and casts, where it differs from the eager model cast the
    same way, where a number is lost that float32 has, and where the error may rise by more than was allowed.

    Args:
        scratch: for the form whose products are in float32, which is what runs.
    """
    kind, count, found = entry.kind, 0, []
    which, run = [], []
    for item, (model, own) in zip(low, _which(source, twins, kind, entry.keep), strict=True):
        half = onnx_weights.read(item.merged)
        number, wrong = faults(model, half, kind)
        count += number
        found += [f"{item.component.name}: {fault}" for fault in wrong]
        file = scratch / f"{item.component.name}.{kind}.onnx"
        onnx_weights.write_model(in_float32(half, kind), file)
        which.append(own)
        run.append(replace(item, merged=file))
    report = source.half(merge, twins, run, kind, which, checks, told)
    found += [f"against the model cast to {kind}: {failure}" for failure in report.failures]
    if not report.passed and not report.failures:
        found.append(f"against the model cast to {kind}: no row was compared")
    cost = source.precision(twins, run, checks, told, low[0].merged if kind == FP16 else None)
    cost = replace(cost, cast=_summary(report), notes=(*cost.notes, _ON_A_CPU[kind]))
    return judged(cost, count, found, entry.max_increase)


def _summary(report: ParityReport) -> CastParity:
    found = report.verdict()
    return CastParity(
        cases=found.cases,
        rows=found.rows,
        max_rel=found.max_rel,
        atol=found.atol,
        rtol=found.rtol,
        decision_flips=found.decision_flips,
        noisy_rows=found.noisy_rows,
        times_noise=found.times_noise,
        warnings=found.warnings,
    )
