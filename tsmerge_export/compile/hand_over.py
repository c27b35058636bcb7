"""What the compiler hands to a back end: proved files, and the parity verdict to prove what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from tsmerge_export import families
from tsmerge_export.backends.base import Part, Prover, Run
from tsmerge_export.backends.components import StepSession
from tsmerge_export.backends.onnxruntime.static.fold import known
from tsmerge_export.backends.target import Target
from tsmerge_export.bundle.manifest import ComponentEntry
from tsmerge_export.bundle.target import TargetEntry
from tsmerge_export.bundle.verdicts import Parity
from tsmerge_export.checkpoint import LoadedModel
from tsmerge_export.compile.onnx_export import EXAMPLE
from tsmerge_export.console.progress import Progress
from tsmerge_export.eager.apply import plan_of
from tsmerge_export.errors import VerdictError
from tsmerge_export.inspection.inspect import inspect_file
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.ops import DOMAIN, schema
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.one_shape import OneShape
from tsmerge_export.typed import read, written
from tsmerge_export.verify import corpus, generation, parity
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks

FORM_FAILED = "parity of the form for the runtime failed"

_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class EagerProver:
    """Parity of one component with the eager model, see :class:`~tsmerge_export.backends.base.Prover`."""

    runtime: str
    loaded: LoadedModel
    merge: MergeConfig
    item: Built
    built: Sequence[Built]
    checks: Checks

    def file(self, path: Path) -> dict[str, Any]:
        report = parity.check(
            families.get(self.loaded.family), self.item.component, self.loaded.model, self.merge, path,
            self._checks, avoid=EXAMPLE, with_decisions=self.item.decisions,
        )  # fmt: skip
        return passed(report.verdict(), f"{self.item.component.name}: {FORM_FAILED}")

    def values(
        self, run: Run, dtype: str, low: Sequence[int] | None = None, high: Sequence[int] | None = None
    ) -> dict[str, Any]:
        family = families.get(self.loaded.family)
        least, most = low or (0, 0), high or (inf, inf)
        cases = [
            case
            for case in self.checks.corpus(family.context(self.loaded.model))
            if least[0] <= case.batch <= most[0] and least[1] <= case.length <= most[1]
        ]
        report = parity.check(
            family, self.item.component, self.loaded.model, self.merge, self.item.merged,
            replace(self._checks, cases=cases), dtype=_DTYPES[dtype], values_from=run,
            with_decisions=self.item.decisions,
        )  # fmt: skip
        return passed(report.verdict(), f"{self.item.component.name}: parity in {self.runtime} failed")

    def at(self, path: Path, shape: OneShape) -> dict[str, Any]:
        cases = [corpus.Case(entry, shape.batch, shape.length, self.checks.seed) for entry in corpus.ENTRIES]
        family = families.get(self.loaded.family)
        report = parity.check(
            family, self.item.component, self.loaded.model, self.merge, path, replace(self._checks, cases=cases),
            plan=plan_of(family, self.loaded.model, self.merge),
        )  # fmt: skip
        return passed(report.verdict(), f"{self.item.component.name}: parity at {shape} failed")

    def in_a_row(self, sessions: Mapping[str, StepSession]) -> dict[str, Any]:
        family = families.get(self.loaded.family)
        report = generation.check(
            family, self.loaded.model, self.merge, self.built, self._checks, sessions=sessions
        )
        return passed(report.verdict(), f"{report.name}: parity in {self.runtime} failed")

    @property
    def _checks(self) -> Checks:
        return usual_tolerances(self.checks)


def usual_tolerances(checks: Checks) -> Checks:
    """Within the tolerances that are the family's: those that were asked for are of ONNX Runtime."""
    return replace(checks, atol=None, rtol=None)


def passed(verdict: Parity, failed: str) -> dict[str, Any]:
    """A verdict, JSON-ready. Raises VerdictError, ``failed`` first, for one that did not pass."""
    if not verdict.passed:
        raise VerdictError(f"{failed}: {verdict.first_failure}")
    out: dict[str, Any] = written(replace(verdict, details=None))
    return out


def build_for(
    target: Target,
    merge: MergeConfig,
    built: Sequence[Built],
    prover: Callable[[Built], Prover],
    longest: int | None,
    shapes: Callable[[OneShape], Mapping[str, Sequence[int]]],
    *,
    folder: Path,
    scratch: Path,
    progress: Progress,
) -> TargetEntry:
    """Have a back end write its files into the bundle's folder.

    Args:
        built: components, proved in their portable form; for a back end that runs a model as a whole, all of them.
        prover: the parity verdict of a component. longest: see :class:`~tsmerge_export.backends.base.Part`.
        shapes: of the inputs of the one component, where files are made for one shape.

    Returns:
        The manifest's ``target``: runtime, dtype, per component its files, profile, verdict and, where there is one,
        engine.

    Raises:
        UnsupportedError: the runtime cannot build the model. VerdictError: the form differs from the reference.
        UsageError: shapes that do not fit, or a back end of another package that says what no manifest can hold.
    """
    progress.step("engine")
    entries = [item.entry() for item in built]
    parts = [
        Part(
            name=entry.name,
            inputs=entry.inputs,
            outputs=entry.outputs,
            unmerged=item.unmerged,
            merged=item.merged,
            merges=merge.active and item.component.mergeable,
            longest=longest,
            removed=removed_at(item.merged),
            prove=prover(item),
            shapes=None if target.static is None else shapes(target.static),
        )
        for item, entry in zip(built, entries, strict=True)
    ]
    said = target.backend.build(target, parts, folder, scratch, progress.update)
    return read(
        TargetEntry, said, f"--runtime {target.runtime}", "target", "tell the author of that back end"
    )


def removed_at(file: Path) -> Callable[[int], list[tuple[str, int]]]:
    """Of a file, at a length: its merges by name, and how many tokens each removes."""

    def removed(length: int) -> list[tuple[str, int]]:
        merges: Sequence[Mapping[str, Any]] = inspect_file(file, batch=1, length=length)["merges"]
        return [(found["name"], found["before"] - found["after"]) for found in merges]

    return removed


def entry_of_one_shape(entry: ComponentEntry, file: Path) -> ComponentEntry:
    """What a manifest says of a component whose file was made for one shape: numbers in place of names of dims."""
    graph = onnx_weights.read(file).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    dims = {value.name: known(value.type) or () for value in values}
    tokens = {
        node.name: tuple(dims[name][1] for name in (node.input[0], node.output[0]))
        for node in graph.node
        if node.domain == DOMAIN and schema(node.op_type).merges
    }
    merges = tuple(
        replace(merge, before=tokens[merge.node][0], after=tokens[merge.node][1]) for merge in entry.merges
    )
    inputs, outputs = (
        tuple(replace(one, dims=dims[one.name]) for one in side) for side in (entry.inputs, entry.outputs)
    )
    return replace(entry, inputs=inputs, outputs=outputs, merges=merges)
