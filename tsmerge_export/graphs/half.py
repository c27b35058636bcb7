"""Parity of a file in half that was made from a graph, see :mod:`tsmerge_export.verify.half`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial

import numpy as np
import onnx
import torch

from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.families.base import Arrays
from tsmerge_export.graphs.model import FAMILY, GraphModel
from tsmerge_export.graphs.nodes import Array, NodeRunner
from tsmerge_export.graphs.reference import Reference
from tsmerge_export.graphs.rows import by_row
from tsmerge_export.graphs.timed import batch_of
from tsmerge_export.graphs.verdicts import ByRow, GraphCase, cases_of, reference_of, rows_mix
from tsmerge_export.precision.half import ELEMENTS, Halves
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import decisions, half, noise
from tsmerge_export.verify.artefact import OnnxArtefact
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks, Told
from tsmerge_export.verify.eager import Expected
from tsmerge_export.verify.parity import judge_cases, unreadable
from tsmerge_export.verify.parity_report import ParityReport
from tsmerge_export.verify.threads import torch_threads


class HalfRunner(NodeRunner):
    """As :class:`~tsmerge_export.graphs.nodes.NodeRunner`, with the products of some nodes in half.

    Args:
        which: the nodes, by their names in a file whose ``Gemm`` nodes were made products.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        constants: Mapping[str, Array],
        threads: int | None,
        kind: str,
        which: Halves,
    ) -> None:
        super().__init__(model, constants, threads, moving=True)
        self._low, self._which = onnx.helper.tensor_dtype_to_np_dtype(ELEMENTS[kind]), which

    def run(self, node: onnx.NodeProto, values: Mapping[str, Array]) -> list[Array | None]:
        """See :class:`~tsmerge_export.graphs.nodes.NodeRunner`."""
        if node.op_type == "Gemm" and f"{node.name}_MatMul" in self._which.products:
            return self._gemm(node, values)
        table = node.name in self._which.tables
        if not table and node.name not in self._which.products:
            return super().run(node, values)
        read = node.input[:1] if table else node.input
        rounded = {name: self._round(values[name]) for name in read}
        return [
            None if value is None else self._round(value)
            for value in super().run(node, {name: values[name] for name in node.input} | rounded)
        ]

    def _gemm(self, node: onnx.NodeProto, values: Mapping[str, Array]) -> list[Array | None]:
        """Its factors are 1, or the quantiser had not made a product of it."""
        turned = {attribute.name: attribute.i for attribute in node.attribute}
        a, b = (self._round(values[name]) for name in node.input[:2])
        a, b = (each.T if turned.get(flag) else each for each, flag in ((a, "transA"), (b, "transB")))
        product = self._round(a @ b)
        return [product + values[node.input[2]] if len(node.input) > 2 and node.input[2] else product]

    def _round(self, value: Array) -> Array:
        with np.errstate(over="ignore"):
            return value.astype(self._low).astype(np.float32)


def half_parity(
    model: GraphModel,
    merge: MergeConfig,
    twin: Built,
    low: Built,
    kind: str,
    which: Halves,
    checks: Checks,
    told: Told,
) -> ParityReport:
    """Compare a file in half with the original graph, run operator by operator with the same products in half.

    Args:
        twin: the float32 file. low: the file in half, with products in float32 of rounded operands.

    Returns:
        The report; it never raises for a failed comparison.
    """
    names, dtype = [spec.name for spec in model.component.outputs], half.DTYPES[kind]
    report = ParityReport(twin.component.name, checks.tolerance(FAMILY, dtype), of=kind)
    original = open_session(model.original, checks.threads)
    try:
        mine, theirs = (OnnxArtefact(side.merged, names, checks, None) for side in (low, twin))
        compared = half.Compared(low.merged, checks)
    except Exception as error:  # ONNX Runtime raises its own types, one per status code
        return unreadable(twin.component.name, low.merged, report.tolerance, error)
    full = reference_of(model, merge, twin, checks.threads)
    runner = HalfRunner(full.model, full.constants, checks.threads, kind, which)
    cast = full.otherwise(full.constants, runner)
    overflow, mixed = half.Overflow(kind, theirs.run, mine.run), rows_mix(model, original)

    def rows(feeds: Arrays) -> int:
        return 1 if mixed else batch_of(model, feeds)

    def expected(case: GraphCase) -> Expected:
        fault = overflow.fault(case.name, case.feeds)
        if fault is not None:
            report.faults.append(fault)
        follow = compared(case.feeds)
        want, steps = cast.traced(case.feeds, follow)
        measured = cache(partial(_noise, cast, full, case, follow))
        return Expected(case.feeds, by_row(want, case.batch), decisions.from_steps(steps), measured)

    with torch_threads(checks.threads):
        judge_cases(report, expected, ByRow(mine, rows), cases_of(model, original, checks, rows), told)
    return report


def _noise(cast: Reference, full: Reference, case: GraphCase, follow: list[half.StepRecord]) -> noise.Noise:
    def pair(draw: int) -> tuple[noise.Feed, noise.Feed]:
        near = half.moved(case.feeds, draw)
        return tuple(  # type: ignore[return-value]
            {
                name: torch.from_numpy(np.array(value))
                for name, value in by_row(one.traced(near, follow)[0], case.batch).items()
                if value.dtype.kind == "f"
            }
            for one in (cast, full)
        )

    return noise.of_draws(pair)
