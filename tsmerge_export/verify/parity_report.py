"""What parity found: by case, by component, and whether that is a pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tsmerge_export.bundle.verdicts import Case, Parity, PartParity
from tsmerge_export.console.one_line import by_fields
from tsmerge_export.typed import written
from tsmerge_export.verify.tolerances import Tolerance

# Above this share of flipped rows among series that are not degenerate, the report warns: parity then says little.
FLIP_SHARE = 0.05
# Above this share of rows that are float32 noise alone, an output counts as not proved.
DROWNED_SHARE = 0.1
_MAX_FAILURES = 20


@dataclass
class CaseResult:
    """One corpus case. Errors are those of the rows that did not flip.

    Attributes:
        worst_row: the row of the largest relative error (-1: no row was compared).
        max_abs: over rows of output scale up to 1e3. max_rel: error over the row's output scale.
        failures: short reasons, at most one per row and output.
        tokens: before each merge, in order of execution.
        noisy: rows that missed the tolerance, but lie within the float32 noise of the model (see :mod:`.noise`).
        times_noise: the largest error of those, in units of the noise.
        drowned: rows by output, among the noisy ones, where the noise is as large as the value: they prove nothing.
    """

    name: str
    degenerate: bool
    rows: int
    worst_row: int = -1
    max_abs: float = 0.0
    max_rel: float = 0.0
    flips: int = 0
    mismatches: int = 0
    failures: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    noisy: int = 0
    times_noise: float = 0.0
    drowned: dict[str, int] = field(default_factory=dict)

    def entry(self) -> Case:
        """As a bundle has it."""
        lists = {
            "failures": tuple(self.failures),
            "tokens": tuple(self.tokens),
            "drowned": dict(self.drowned),
        }
        return Case(**vars(self) | lists)


@dataclass
class ParityReport:
    """Outcome of parity over all cases of one component, or of several put together by :func:`combine`.

    ``kept_mismatches`` counts rows whose merge decision differs beyond float noise: each one is a failure.
    ``decision_flips`` counts rows that differ within it: their values are not compared. ``faults`` are failures of no
    case: merge nodes that are not those of the settings. ``of``: the type that the model computes in.
    """

    name: str
    tolerance: Tolerance
    cases: list[CaseResult] = field(default_factory=list)
    components: list[ParityReport] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    of: str = "float32"

    def __repr__(self) -> str:
        return by_fields(self)

    @property
    def passed(self) -> bool:
        """Whether no row failed, and at least one was compared."""
        return not self.failures and any(case.rows > case.flips for case in self.cases)

    @property
    def failures(self) -> list[str]:
        """Every failure as one line, those of no case first, the others with their case in front."""
        return [
            *self.faults,
            *(f"{case.name}: {reason}" for case in self.cases for reason in case.failures),
            *(text for text, too_many in self._drowned() if too_many),
        ]

    @property
    def warnings(self) -> list[str]:
        """What a reader should know although it is no failure."""
        out = [text for text, too_many in self._drowned() if not too_many]
        noisy = sum(case.noisy for case in self.cases)
        if noisy:
            most = max(case.times_noise for case in self.cases)
            out.append(
                f"{noisy} of {self._rows()} rows passed by the model's own {self.of} noise: their error is beyond the "
                f"tolerance, but at most {most:.1f} times what the model in {self.of} is from "
                + ("float64" if self.of == "float32" else "float32")
            )
        return out + self._flip_warnings()

    def _rows(self) -> int:
        return sum(case.rows - case.flips for case in self.cases)

    def _drowned(self) -> list[tuple[str, bool]]:
        """A sentence for each output with rows that are noise alone, and whether they are too many."""
        counts: dict[str, int] = {}
        for case in self.cases:
            for name, rows in case.drowned.items():
                counts[name] = counts.get(name, 0) + rows
        rows = self._rows()
        return [
            (
                f"{name}: in {count} of {rows} rows the value itself is {self.of} noise of the model, so that they "
                "prove nothing about it",
                count > DROWNED_SHARE * rows,
            )
            for name, count in sorted(counts.items())
        ]

    def _flip_warnings(self) -> list[str]:
        usual = [case for case in self.cases if not case.degenerate]
        rows, flips = sum(case.rows for case in usual), sum(case.flips for case in usual)
        if flips <= FLIP_SHARE * rows:
            return []
        return [f"{flips} of {rows} rows of non-degenerate series flipped a decision within float noise"]

    def verdict(self) -> Parity:
        """As a bundle has it: a summary, with the cases, or where there are components with those of each."""
        if self.components:
            return Parity(**self._summary(), components=tuple(part._part() for part in self.components))
        return Parity(**vars(self._part()))

    def to_dict(self) -> dict[str, Any]:
        """:meth:`verdict`, JSON-ready."""
        content: dict[str, Any] = written(self.verdict())
        return content

    def _part(self) -> PartParity:
        return PartParity(
            **self._summary(), name=self.name, details=tuple(case.entry() for case in self.cases)
        )

    def _summary(self) -> dict[str, Any]:
        cases = self.cases
        return {
            "passed": self.passed,
            "cases": len(cases),
            "rows": sum(case.rows for case in cases),
            "max_abs": max((case.max_abs for case in cases), default=0.0),
            "max_rel": max((case.max_rel for case in cases), default=0.0),
            "atol": self.tolerance.atol,
            "rtol": self.tolerance.rtol,
            "decision_flips": sum(case.flips for case in cases),
            "kept_mismatches": sum(case.mismatches for case in cases),
            "noisy_rows": sum(case.noisy for case in cases),
            "times_noise": max((case.times_noise for case in cases), default=0.0),
            "warnings": tuple(self.warnings),
            "failures": tuple(self.failures[:_MAX_FAILURES]),
        }


def combine(reports: Sequence[ParityReport], faults: Sequence[str] = ()) -> ParityReport:
    """One report over the components of a bundle, and failures of none of them. Raises ValueError for no report."""
    if not reports:
        raise ValueError("no parity reports to combine")
    cases = [case for report in reports for case in report.cases]
    found = [*faults, *(fault for report in reports for fault in report.faults)]
    return ParityReport("all", reports[0].tolerance, cases, list(reports), found, reports[0].of)
