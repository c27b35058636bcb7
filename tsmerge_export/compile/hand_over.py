"""What the compiler hands to a back end: proved files, and the parity verdict to prove what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from tsmerge_export import families
from tsmerge_export.backends.base import Part, Run
from tsmerge_export.backends.components import StepSession
from tsmerge_export.backends.target import Target
from tsmerge_export.bundle.target import TargetEntry
from tsmerge_export.checkpoint import LoadedModel
from tsmerge_export.compile.onnx_export import EXAMPLE
from tsmerge_export.console.progress import Progress
from tsmerge_export.errors import VerdictError
from tsmerge_export.inspection.inspect import inspect_file
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.typed import read, written
from tsmerge_export.verify import generation, parity
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.parity_report import ParityReport

_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class _Prover:
    """Parity of one component, see :class:`~tsmerge_export.backends.base.Prover`."""

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
        return _passed(report, f"{self.item.component.name}: parity of the form for the runtime failed")

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
        return _passed(report, f"{self.item.component.name}: parity in {self.runtime} failed")

    def in_a_row(self, sessions: Mapping[str, StepSession]) -> dict[str, Any]:
        family = families.get(self.loaded.family)
        report = generation.check(
            family, self.loaded.model, self.merge, self.built, self._checks, sessions=sessions
        )
        return _passed(report, f"{report.name}: parity in {self.runtime} failed")

    @property
    def _checks(self) -> Checks:
        """Within the tolerances that are the family's: those that were asked for are of ONNX Runtime."""
        return replace(self.checks, atol=None, rtol=None)


def _passed(report: ParityReport, failed: str) -> dict[str, Any]:
    if not report.passed:
        raise VerdictError(f"{failed}: {next(iter(report.failures), 'no row was compared')}")
    verdict: dict[str, Any] = written(replace(report.verdict(), details=None))
    return verdict


def build_for(
    target: Target,
    loaded: LoadedModel,
    merge: MergeConfig,
    built: Sequence[Built],
    *,
    folder: Path,
    scratch: Path,
    checks: Checks,
    progress: Progress,
) -> TargetEntry:
    """Have a back end write its files into the bundle's folder.

    Args:
        built: components, proved in their portable form; for a back end that runs a model as a whole, all of them.

    Returns:
        The manifest's ``target``: runtime, dtype, per component its files, profile, verdict and, where there is one,
        engine.

    Raises:
        UnsupportedError: the runtime cannot build the model. VerdictError: the form differs from eager PyTorch.
        UsageError: shapes that do not fit, or a back end of another package that says what no manifest can hold.
    """
    progress.step("engine")
    longest = families.get(loaded.family).context(loaded.model)
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
            prove=_Prover(target.runtime, loaded, merge, item, built, checks),
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
