"""Parity of files in half: against the eager model cast the same way.

What such a file merges follows from numbers that are a rounding of half apart from the model's. So the model is told
at every merge which features the file compared there, and decides by these. Decisions then have to agree within
float32 noise, as those of float32 files do, and values can be compared in every row.

What runs is the file with its products in float32 of rounded operands, as in
:func:`tsmerge_export.precision.half.in_float32`: no CPU provider of ONNX Runtime computes them in half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from tsmerge_export.families.base import Component, Family
from tsmerge_export.merge.run import StepRecord
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.ops import merge_op_types
from tsmerge_export.ops.schema import DOMAIN
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import corpus, generation, noise
from tsmerge_export.verify.artefact import Artefact, OnnxArtefact, Outputs
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.cast import Cast
from tsmerge_export.verify.checks import Checks, Told
from tsmerge_export.verify.eager import Expected, run_eager
from tsmerge_export.verify.parity import ParityReport, judge_cases, unreadable
from tsmerge_export.verify.parity_report import combine
from tsmerge_export.verify.threads import torch_threads

#: Names of the tolerances, by kind.
DTYPES = {"fp16": "float16", "bf16": "bfloat16"}
#: Inputs are moved by so much of themselves for another draw of the noise: enough that other values are rounded.
_FAR = 2.0**-9


class Compared:
    """What a file compares at its merges: a copy that outputs it."""

    def __init__(self, file: Path, checks: Checks) -> None:
        proto = onnx_weights.read(file)
        nodes = [n for n in proto.graph.node if n.domain == DOMAIN and n.op_type in merge_op_types()]
        self._names = [node.input[1] or node.input[0] for node in nodes]
        there = {value.name for value in (*proto.graph.output, *proto.graph.input)}
        for name in dict.fromkeys(self._names):
            if name not in there:
                value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
                proto.graph.output.append(value)
        self._session = checks.open(proto) if nodes else None
        self._inputs = {value.name for value in (() if self._session is None else self._session.get_inputs())}

    def __call__(self, inputs: Outputs) -> list[StepRecord]:
        """A record for every merge, with nothing but what was compared."""
        if self._session is None:
            return []
        own = {name: value for name, value in inputs.items() if name in self._inputs}
        values = self._session.run(self._names, own)
        none = torch.empty(0)
        return [StepRecord(0, 0, none, none, none, compared=torch.from_numpy(value)) for value in values]


class Overflow:
    """Tells where a file in half has no finite number and its float32 twin has one."""

    def __init__(
        self, kind: str, twin: Callable[[Outputs], Outputs], low: Callable[[Outputs], Outputs]
    ) -> None:
        self._kind, self._twin, self._low = kind, twin, low

    def fault(self, name: str, inputs: Outputs) -> str | None:
        """Of a case; None where there is no fault, or the files do not run, which parity says."""
        try:
            want, got = self._twin(inputs), self._low(inputs)
        except Exception:  # ONNX Runtime raises its own types, one per status code
            return None
        for output, value in want.items():
            own = got[output]
            if value.dtype.kind != "f" or value.shape != own.shape:
                continue
            lost = int((np.isfinite(value) & ~np.isfinite(own)).sum())
            if lost:
                remedy = "; use bf16, or name its module in --keep-precise" if self._kind == "fp16" else ""
                return (
                    f"{name}: {lost} numbers of {output} are finite in float32 and not in {self._kind}, so that a "
                    f"product is beyond its range{remedy}"
                )
        return None


def check(
    family: Family,
    model: nn.Module,
    merge: MergeConfig,
    twins: Sequence[Built],
    low: Sequence[Built],
    kind: str,
    cast: Cast,
    checks: Checks,
    told: Told,
) -> ParityReport:
    """Compare files in half with the eager model, all components in a row where there are several.

    A file whose ratio is chosen at run time runs at its default.

    Args:
        twins: their float32 files. low: the files in half, with products in float32 of rounded operands.
        cast: of the products and weights that are in half in the files.

    Returns:
        The report; it never raises for a failed comparison.
    """
    first = low[0].component
    fixed = merge if merge.default_ratio is None else merge.fixed(merge.default_ratio)
    names = [spec.name for spec in first.outputs]
    try:
        sides = [OnnxArtefact(side[0].merged, names, checks, None) for side in (low, twins)]
        compared = Compared(low[0].merged, checks)
    except Exception as error:  # ONNX Runtime raises its own types, one per status code
        return unreadable(first.name, low[0].merged, checks.tolerance(family.name, DTYPES[kind]), error)
    todo = checks.corpus(family.context(model))
    parts: list[tuple[Component, Sequence[Artefact], Sequence[corpus.Case]]] = [(first, sides, todo)]
    whole = family.generation(model) if len(low) > 1 else None
    if whole is not None:
        chains = [generation.Chain(whole, side, first, checks, None) for side in (low, twins)]
        parts.append((whole, chains, generation.cases(family.context(model), checks)))
    reports = []
    with torch_threads(checks.threads):
        for component, (mine, theirs), cases in parts:
            report = ParityReport(component.name, checks.tolerance(family.name, DTYPES[kind]), of=kind)
            overflow = Overflow(kind, theirs.run, mine.run)
            expected = partial(_expected, component, model, fixed, compared, cast, report, overflow)
            judge_cases(report, expected, mine, cases, told)
            reports.append(report)
    return combine(reports)


def _expected(
    component: Component,
    model: nn.Module,
    merge: MergeConfig,
    compared: Compared,
    cast: Cast,
    report: ParityReport,
    overflow: Overflow,
    case: corpus.Case,
) -> Expected:
    inputs = component.from_series(model, case.series())
    fault = overflow.fault(case.name, inputs)
    if fault is not None:
        report.faults.append(fault)
    follow = compared(inputs)
    outputs, decided = run_eager(component, model, merge, inputs, follow=follow, cast=cast)

    def pair(draw: int) -> tuple[noise.Feed, noise.Feed]:
        near = moved(inputs, draw)
        half, full = (
            run_eager(component, model, merge, near, follow=follow, cast=one)[0] for one in (cast, None)
        )
        return _tensors(half), _tensors(full)

    return Expected(inputs, outputs, decided, cache(partial(noise.of_draws, pair)))


def moved(inputs: Outputs, draw: int) -> Outputs:
    """Inputs of a draw of the noise; those of draw 0 are as they are."""
    if not draw:
        return inputs
    generator = torch.Generator().manual_seed(draw)
    values = {name: torch.from_numpy(np.array(value)) for name, value in inputs.items()}
    return {name: noise.move(value, generator, _FAR).numpy() for name, value in values.items()}


def _tensors(values: Outputs) -> noise.Feed:
    return {name: torch.from_numpy(value) for name, value in values.items() if value.dtype.kind == "f"}
