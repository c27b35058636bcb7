"""What a bundle says about parity and merge cost, with every figure of their reports.

The third verdict, precision cost, is in :mod:`.precision`.

A field of :data:`~tsmerge_export.typed.SPARSE` is of some verdicts only: of a family's or a graph's, of a component's
or of all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tsmerge_export.bundle.precision import PrecisionCost
from tsmerge_export.typed import SPARSE


@dataclass(frozen=True)
class Case:
    """One case of the parity corpus. See :class:`tsmerge_export.verify.parity_report.CaseResult`."""

    name: str = ""
    degenerate: bool = False
    rows: int = 0
    worst_row: int = -1
    max_abs: float | None = None
    max_rel: float | None = None
    flips: int = 0
    mismatches: int = 0
    failures: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()
    noisy: int = 0
    times_noise: float | None = None
    drowned: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PartParity:
    """Parity of one component.

    Attributes:
        max_abs, max_rel: largest errors, absolute and of the output's scale. atol, rtol: what was allowed.
        name: of the component. details: its cases; None where they are not kept.
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
    name: str = field(default="", metadata=SPARSE)
    details: tuple[Case, ...] | None = field(default=None, metadata=SPARSE)


@dataclass(frozen=True)
class Parity(PartParity):
    """Whether the files compute what they should. See :class:`tsmerge_export.verify.parity_report.ParityReport`.

    Attributes:
        components: of a family; empty for one component, or a graph from a file.
        against: what was compared with, where that is not the eager model.
    """

    components: tuple[PartParity, ...] = field(default=(), metadata=SPARSE)
    against: str | None = field(default=None, metadata=SPARSE)

    @property
    def first_failure(self) -> str:
        """Why it failed, in a line."""
        return next(iter(self.failures), "no row was compared")


@dataclass(frozen=True)
class ColumnErrors:
    """Errors of one column by metric; None where there is nothing to compare.

    ``wql_scale``: see :class:`tsmerge_export.verify.cost.ColumnCost`.
    """

    column: str = ""
    unmerged: dict[str, float | None] = field(default_factory=dict)
    merged: dict[str, float | None] = field(default_factory=dict)
    naive: dict[str, float | None] = field(default_factory=dict)
    wql_scale: float | None = None


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
    """Changes of one metric over the columns; ``compared``: how many have one, ``left_out``: which have none."""

    median_percent: float | None = None
    worst: Worst | None = None
    compared: int = 0
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Medians of one interleaved run. See :class:`tsmerge_export.verify.speed.SpeedReport`."""

    batch: int
    length: int
    threads: int | None = None
    runs: int | None = None
    unmerged_ms: float
    merged_ms: float
    ratio: float


@dataclass(frozen=True)
class Cost:
    """What merging does to the forecasts on data, and to the speed. See :class:`tsmerge_export.verify.cost.CostReport`.

    Attributes:
        windows, context, horizon, season: of a family, with ``columns``: of each column how many windows, steps before
            and of each forecast, and steps of the seasonal naive one.
        overall: by ``median`` and ``mean`` over columns. changes: by metric; empty in bundles of early versions.
        outputs: of a graph from a file, how far each output moves.
        tokens: before the first and after each merge, where the data decide how many.
        original: name of the model that ``unmerged`` is, where it has other weights than the merged one.
        comparable: False where ``unmerged`` are weights that are not meant to run unmerged: no change is told then.
    """

    data: str = ""
    windows: int | None = field(default=None, metadata=SPARSE)
    context: int | None = field(default=None, metadata=SPARSE)
    horizon: int | None = field(default=None, metadata=SPARSE)
    season: int | None = field(default=None, metadata=SPARSE)
    columns: tuple[ColumnErrors, ...] = field(default=(), metadata=SPARSE)
    overall: dict[str, Summary] = field(default_factory=dict, metadata=SPARSE)
    changes: dict[str, Change] = field(default_factory=dict, metadata=SPARSE)
    outputs: dict[str, float | None] = field(default_factory=dict, metadata=SPARSE)
    speed: Speed | None = None
    notes: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()
    original: str | None = field(default=None, metadata=SPARSE)
    comparable: bool = field(default=True, metadata=SPARSE)

    @property
    def unmerged_words(self) -> str:
        """What ``unmerged`` is, for the head of a column."""
        if self.original is not None:
            return "original, unmerged"
        return "unmerged" if self.comparable else "same weights, unmerged"

    @property
    def median(self) -> Summary:
        """Medians over the columns."""
        return self.overall.get("median", Summary())


@dataclass(frozen=True)
class Verdicts:
    """Parity, and where parity passed, the cost of what merges, and that of a precision below float32.

    Parity and merge cost are those of float32 files; of a quantised bundle, of the twins that its files were made from.
    """

    parity: Parity | None = field(default=None, metadata=SPARSE)
    cost: Cost | None = field(default=None, metadata=SPARSE)
    precision: PrecisionCost | None = field(default=None, metadata=SPARSE)

    @property
    def passed(self) -> bool:
        """Whether parity was looked at and passed."""
        return self.parity is not None and self.parity.passed

    @property
    def failure(self) -> str | None:
        """The first thing that failed, in a line; None where all that was looked at passed."""
        if not self.passed:
            first = "nothing was compared" if self.parity is None else self.parity.first_failure
            return f"parity failed: {first}"
        if self.precision is not None and not self.precision.passed:
            return f"precision failed: {self.precision.first_failure}"
        return None
