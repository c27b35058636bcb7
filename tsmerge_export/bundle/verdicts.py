"""What a bundle says about the two verdicts: parity and merge cost, as their reports' ``to_dict()`` write them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """One case of the parity corpus. See :class:`tsmerge_export.verify.parity_report.CaseResult`."""

    name: str = ""
    rows: int = 0
    flips: int = 0
    mismatches: int = 0
    max_rel: float | None = None


@dataclass(frozen=True)
class PartParity:
    """Parity of one component, with its cases."""

    name: str = ""
    details: tuple[Case, ...] = ()


@dataclass(frozen=True)
class Parity:
    """Whether the files compute what they should. See :class:`tsmerge_export.verify.parity_report.ParityReport`.

    Attributes:
        max_abs, max_rel: largest errors, absolute and of the output's scale. atol, rtol: what was allowed.
        against: what was compared with, where that is not the eager model.
        components: of a family; empty for a graph from a file.
    """

    passed: bool = False
    cases: int = 0
    rows: int = 0
    max_abs: float | None = None
    max_rel: float | None = None
    atol: float | None = None
    rtol: float | None = None
    decision_flips: int = 0
    kept_mismatches: int = 0
    noisy_rows: int = 0
    times_noise: float | None = None
    warnings: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    against: str | None = None
    components: tuple[PartParity, ...] = ()

    @property
    def first_failure(self) -> str:
        """Why it failed, in a line."""
        return next(iter(self.failures), "no row was compared")


@dataclass(frozen=True)
class ColumnErrors:
    """Errors of one column by metric; None where there is nothing to compare."""

    column: str = ""
    unmerged: dict[str, float | None] = field(default_factory=dict)
    merged: dict[str, float | None] = field(default_factory=dict)
    naive: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """Errors over all columns by metric."""

    unmerged: dict[str, float | None] = field(default_factory=dict)
    merged: dict[str, float | None] = field(default_factory=dict)
    naive: dict[str, float | None] = field(default_factory=dict)
    change_percent: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Worst:
    """The column whose error rose most, by how many per cent."""

    column: str
    unmerged: float | None
    merged: float | None
    percent: float | None


@dataclass(frozen=True)
class Change:
    """Changes of one metric over the columns; ``compared``: how many have one."""

    median_percent: float | None = None
    worst: Worst | None = None
    compared: int = 0


@dataclass(frozen=True)
class Speed:
    """Medians of one interleaved run. See :class:`tsmerge_export.verify.speed.SpeedReport`."""

    batch: int
    length: int
    unmerged_ms: float
    merged_ms: float
    ratio: float
    threads: int | None = None
    runs: int | None = None


@dataclass(frozen=True)
class Cost:
    """What merging does to the forecasts on data, and to the speed. See :class:`tsmerge_export.verify.cost.CostReport`.

    Attributes:
        overall: by ``median`` and ``mean`` over columns. changes: by metric; empty in bundles of early versions.
        outputs: of a graph from a file, how far each output moves.
        tokens: before the first and after each merge, where the data decide how many.
    """

    data: str = ""
    windows: int | None = None
    context: int | None = None
    horizon: int | None = None
    columns: tuple[ColumnErrors, ...] = ()
    overall: dict[str, Summary] = field(default_factory=dict)
    changes: dict[str, Change] = field(default_factory=dict)
    outputs: dict[str, float | None] = field(default_factory=dict)
    speed: Speed | None = None
    notes: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()

    @property
    def median(self) -> Summary:
        """Medians over the columns."""
        return self.overall.get("median", Summary())


@dataclass(frozen=True)
class Verdicts:
    """Parity, and where something merges and parity passed, the cost."""

    parity: Parity | None = None
    cost: Cost | None = None

    @property
    def passed(self) -> bool:
        """Whether parity was looked at and passed."""
        return self.parity is not None and self.parity.passed
