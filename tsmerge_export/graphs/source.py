"""A graph from a file, ``.onnx`` or ``.pt2``, as the source of a compilation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.backends.target import Target
from tsmerge_export.bundle import Bundle
from tsmerge_export.bundle.manifest import GraphEntry
from tsmerge_export.bundle.precision import PrecisionCost
from tsmerge_export.bundle.run import Run
from tsmerge_export.bundle.target import TargetEntry
from tsmerge_export.bundle.verdicts import Parity
from tsmerge_export.compile.hand_over import build_for
from tsmerge_export.compile.source import Cost
from tsmerge_export.console.progress import NoProgress, Progress
from tsmerge_export.eager.default import FILES, Settled, settle_layers
from tsmerge_export.errors import UnsupportedError, UsageError, first_line
from tsmerge_export.families.base import Arrays, Component
from tsmerge_export.graphs import verdicts
from tsmerge_export.graphs.calibration import OutputCalibration
from tsmerge_export.graphs.half import half_parity
from tsmerge_export.graphs.model import (
    FAMILY,
    GraphModel,
    GraphOptions,
    drop_mask,
    load_graph_model,
)
from tsmerge_export.graphs.precision import precision_cost
from tsmerge_export.graphs.prover import GraphProver
from tsmerge_export.inspection.feeds import Sizes, make
from tsmerge_export.merge.plan import MergeStep
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.precision.half import Halves
from tsmerge_export.precision.products import QUANTISED
from tsmerge_export.rewrite.blocks import find_blocks
from tsmerge_export.rewrite.points import Point, find_points
from tsmerge_export.rewrite.subgraphs import nodes_inside
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.one_shape import FLAG, OneShape
from tsmerge_export.verify import remarks
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.calibration import Calibration
from tsmerge_export.verify.checks import Checks, Told
from tsmerge_export.verify.parity_report import ParityReport
from tsmerge_export.version import versions


class GraphSource:
    """A graph from a file, see :class:`~tsmerge_export.compile.source.Source`. It is read when it is needed first.

    Args:
        path: of the file. options: what it does not tell.
        opset: for a ``.pt2`` file; None is 18. An ``.onnx`` file keeps its own.
        ends: names of the inputs and the outputs that it must have.
        progress: told when it is read.
    """

    family = FAMILY
    longest: None = None
    trained: None = None
    original: None = None

    def __init__(
        self,
        path: str | Path,
        options: GraphOptions | None = None,
        *,
        opset: int | None = None,
        ends: Sequence[Sequence[str]] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.name, self.options = str(path), options or GraphOptions()
        self._path, self._opset, self._ends, self._progress = path, opset, ends, progress or NoProgress()

    @classmethod
    def of_bundle(
        cls, bundle: Bundle, path: str | Path, inputs: str | Path | None, progress: Progress
    ) -> GraphSource:
        """The file that a bundle was made from, with the options of that.

        Args:
            inputs: example of every input, see :class:`~tsmerge_export.graphs.model.GraphOptions`.

        Raises:
            UsageError: the bundle is of no such file.
        """
        if bundle.contents.family != FAMILY:
            raise UsageError(
                f"{bundle.path}: was made from a {bundle.contents.family}, not from a file such as {path}"
            )
        kept = bundle.contents.graph or GraphEntry()
        options = GraphOptions(kept.token_mask or "none", kept.protect_first, kept.protect_last, inputs)
        made = bundle.components[0]
        ends = [[item.name for item in each] for each in (made.inputs, made.outputs)]
        return cls(path, options, opset=bundle.contents.opset, ends=ends, progress=progress)

    @cached_property
    def model(self) -> GraphModel:
        """What is in the file."""
        self._progress.step("load")
        return load_graph_model(self._path, self.options, opset=self._opset, ends=self._ends)

    @property
    def opset(self) -> int:
        """See :class:`~tsmerge_export.compile.source.Source`."""
        return self.model.opset

    @property
    def components(self) -> Sequence[Component]:
        """The one that there is."""
        return [self.model.component]

    @property
    def sizes(self) -> Sizes:
        """See :class:`~tsmerge_export.compile.source.Source`."""
        return self.model.sizes[0]

    @property
    def notes(self) -> Sequence[str]:
        """See :class:`~tsmerge_export.compile.source.Source`."""
        return self.model.notes

    def settle(self, merge: MergeConfig | None) -> Settled:
        """See :class:`~tsmerge_export.compile.source.Source`."""
        if merge is not None and merge.active and merge.positions == "compact":
            raise UnsupportedError(
                f"{self.name}: --positions compact cannot be proved without an eager model; use gather"
            )
        model = self.model
        if merge is not None and not merge.active:
            return Settled(MergeConfig("none"))
        points = self._points
        other = next((p.value.dtype for p in points if p.value.dtype != ir.DataType.FLOAT), None)
        if other is not None:
            raise UnsupportedError(f"{self.name}: its tokens are {other.name.lower()}; give a float32 export")
        settled = settle_layers(merge, FILES, len(points), "files")
        settled.merge.check_turns(len(settled.merge.select_layers(len(points))))
        _check_mask(model, self.options, points)
        if any(step.pads for step in self.plan(settled.merge).values()):
            raise UnsupportedError(
                f"{self.name}: --per-series is for checkpoints of families that hide the padding of shorter series; "
                "leave it out"
            )
        return settled

    @cached_property
    def _points(self) -> list[Point]:
        return _points(self.model)

    def plan(self, merge: MergeConfig) -> Mapping[int, MergeStep]:
        """See :class:`~tsmerge_export.compile.source.Source`."""
        return verdicts.planned(self.model, merge)[1]

    def plain(self, component: Component, folder: Path, progress: Progress) -> ir.Model:
        """The form that the rewriter works on; that it runs at other sizes was seen when it was measured."""
        return self.model.measured

    def stay(self, component: Component) -> Mapping[str, int]:
        """None: nobody knows what an output means."""
        return {}

    def feed(self, series: npt.NDArray[np.float32]) -> Arrays:
        """Generated, as many rows and steps as the series: every dim of the inputs but the batch is the length."""
        return make(self.model.inputs, self.model.sizes_at(OneShape(*series.shape)))

    def shapes(self, shape: OneShape) -> dict[str, tuple[int, ...]]:
        """See :class:`~tsmerge_export.compile.source.Source`: of generated inputs that the original graph runs on."""
        model, named = self.model, self.model.sizes[0]
        first = model.inputs[0].spec.dims
        for what, size, varies, fixed in (
            ("series of a call", shape.batch, "batch" in named, first[:1]),
            ("tokens", shape.length, any(dim != "batch" for dim in named), first[1:2]),
        ):
            if not varies and fixed and isinstance(fixed[0], int) and size != fixed[0]:
                raise UsageError(f"{FLAG} {shape}: {self.name} takes {fixed[0]} {what}, not {size}")
        feeds = make(model.inputs, model.sizes_at(shape))
        try:
            open_session(model.original).run(None, feeds)
        except Exception as error:  # ONNX Runtime raises its own types, one per status code
            raise UsageError(
                f"{FLAG} {shape}: {self.name} does not run at it: {first_line(error)}"
            ) from error
        return {name: tuple(value.shape) for name, value in feeds.items()}

    def rival(self, built: Built, folder: Path) -> Path:
        """The original, fused operators included, which the merged file had to be taken apart from."""
        file = folder / "original.onnx"
        onnx_weights.write(self.model.original, file)
        return file

    def parity(
        self, merge: MergeConfig, built: Sequence[Built], checks: Checks, faults: Sequence[str], told: Told
    ) -> Parity:
        """Against the original graph, run operator by operator."""
        (only,) = built
        return verdicts.parity(self.model, merge, only, checks, faults=faults, progress=told)

    def cost(self, merge: MergeConfig, built: Sequence[Built], checks: Checks, told: Told) -> Cost:
        """How far the outputs move; there is nothing to look at."""
        (only,) = built
        verdict = verdicts.cost(self.model, only, checks)
        length = None if verdict.speed is None else verdict.speed.length
        said = remarks.beyond(merge, only.with_nodes, length)
        return Cost(verdict if said is None else replace(verdict, notes=(*verdict.notes, said)))

    @property
    def precise(self) -> Sequence[str]:
        """None: nobody knows which; what is lost is found by running."""
        return ()

    def precision(
        self,
        twins: Sequence[Built],
        quantised: Sequence[Built],
        checks: Checks,
        told: Told,
        timed: Path | None,
    ) -> PrecisionCost:
        """How far the outputs move; there is nothing to look at."""
        (twin,), (low,) = twins, quantised
        return precision_cost(self.model, twin, low, checks, timed=timed)

    def calibration(self, twins: Sequence[Built], checks: Checks) -> Calibration:
        """Inputs as those of the verdicts, of another seed."""
        (twin,) = twins
        return OutputCalibration(self.model, twin, checks)

    def half(
        self,
        merge: MergeConfig,
        twins: Sequence[Built],
        low: Sequence[Built],
        kind: str,
        which: Sequence[Halves],
        checks: Checks,
        told: Told,
    ) -> ParityReport:
        """Against the original graph, run operator by operator with its products rounded."""
        (twin,), (own,), (halves,) = twins, low, which
        return half_parity(self.model, merge, twin, own, kind, halves, checks, told)

    def lower(
        self,
        target: Target,
        merge: MergeConfig,
        built: Sequence[Built],
        checks: Checks,
        *,
        folder: Path,
        scratch: Path,
        progress: Progress,
    ) -> TargetEntry:
        """See :func:`~tsmerge_export.compile.hand_over.build_for`."""

        def prover(item: Built) -> GraphProver:
            return self.prover(target.runtime, merge, item, built, checks)

        return build_for(
            target, merge, built, prover, None, self.shapes, folder=folder, scratch=scratch, progress=progress
        )

    def prover(
        self, runtime: str, merge: MergeConfig, item: Built, built: Sequence[Built], checks: Checks
    ) -> GraphProver:
        """See :class:`~tsmerge_export.compile.source.Source`."""
        return GraphProver(runtime, self.model, merge, item, checks)

    @property
    def record(self) -> None:
        """Weights of a graph are not trained here."""
        return None

    @property
    def graph(self) -> GraphEntry:
        """See :class:`~tsmerge_export.compile.source.Source`."""
        return GraphEntry(self.model.token_mask, self.options.protect_first, self.options.protect_last)

    def pipeline(self) -> dict[str, Any]:
        """Nothing: nobody knows what an output means."""
        return {}

    def versions(self) -> dict[str, str]:
        """See :class:`~tsmerge_export.compile.source.Source`."""
        return versions()

    def run(self) -> Run:
        """See :class:`~tsmerge_export.compile.source.Source`."""
        given = self.options
        return Run(
            opset=self._opset, token_mask=given.token_mask, protect_first=given.protect_first,
            protect_last=given.protect_last, inputs=None if given.inputs is None else str(given.inputs),
        )  # fmt: skip


def _points(model: GraphModel) -> list[Point]:
    """Where tokens can be merged. Raises UnsupportedError, with what was looked for, where that is nowhere."""
    graph = model.measured.graph
    points, rejected = find_points(graph)
    reasons = "; ".join(
        f"{n} x {reason}" for reason, n in Counter(item.reason for item in rejected).most_common(4)
    )
    if points:
        if rejected:
            model.notes.append(
                f"{len(rejected)} of {len(points) + len(rejected)} attentions are no place to merge: {reasons}"
            )
        return points
    if find_blocks(graph):
        raise UnsupportedError(
            f"{model.source}: a state-space model, whose merging cannot be proved from the file alone; give the "
            "checkpoint (see `tsmerge families`), or --merge none"
        )
    softmaxes = sum(node.op_type == "Softmax" for node in graph)
    inside = sum(node.op_type == "Softmax" for outer in graph for node in nodes_inside(outer))
    present = {node.op_type for node in graph}
    fused = sorted(present & {"Attention", "Einsum", "RotaryEmbedding"})
    raise UnsupportedError(
        f"{model.source}: no safe merge point. Looked for Softmax over [.., tokens, tokens] -> product with values -> "
        f"projection -> residual Add. Found {softmaxes} Softmax, {len(rejected)} of them over the last of three or "
        "more axes" + (f", refused: {reasons}" if reasons else "")
        + (f"; not written out: {', '.join(fused)}" if fused else "")
        + (f"; {inside} more inside the body of a loop or a branch, which is left as it is" if inside else "")
        + (". It is quantised: give the float32 model, and quantise by --precision" if present & QUANTISED else "")
        + ". Export it with --merge none to have it as it is"
    )  # fmt: skip


def _check_mask(model: GraphModel, options: GraphOptions, points: list[Point]) -> None:
    """The token mask must have one entry for each token of the first merge."""
    if model.token_mask is None:
        return
    found = next(item.spec.dims for item in model.inputs if item.spec.name == model.token_mask)
    tokens = [point.rows for point in points]
    if list(found) in tokens:
        return
    if options.token_mask is None:
        model.notes.append(
            f"{model.token_mask} {list(found)} does not have one entry per token, so that padding merges like the rest"
        )
        drop_mask(model)
        return
    raise UsageError(
        f"--token-mask {model.token_mask}: is {list(found)}, but the tokens that merge are {tokens[0]}; it needs one "
        "entry for each"
    )
