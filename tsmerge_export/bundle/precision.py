"""What a bundle says about weights below float32: what was done to its files, and the third verdict, what that costs.

It never mixes with the other two: parity and merge cost are those of the float32 files that were quantised.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tsmerge_export.typed import SPARSE


@dataclass(frozen=True, kw_only=True)
class QuantisedPart:
    """One component.

    Attributes:
        quantised: how many products, and tables that are looked up. tables: how many of these.
        kept: names of nodes that stay float32 though they could be quantised.
        raised: names of nodes that have more bits than the others, see :class:`Sensitivity`.
        stored: of files in half, of ``quantised``, those whose weight is in half and the product float32.
        ranges: of what products read, the lowest and the highest value by name, see :class:`CalibrationEntry`.
        float32_bytes, bytes: of the graph with its weights, before and after.
    """

    quantised: int
    tables: int = field(default=0, metadata=SPARSE)
    kept: tuple[str, ...] = ()
    raised: tuple[str, ...] = field(default=(), metadata=SPARSE)
    stored: int = field(default=0, metadata=SPARSE)
    ranges: dict[str, tuple[float, ...]] = field(default_factory=dict, metadata=SPARSE)
    float32_bytes: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class ProductEffect:
    """One product, quantised while all others are float32.

    Attributes:
        component, node: where it is. module: that it belongs to, where the exporter says so. weights: how many.
        moved: how far the forecasts are from those in float32: root mean square, in standard deviations of their
            column; of a graph from a file, of the output that moved most, as a share of its own. None: no number.
        kept: whether it has the higher precision.
    """

    component: str
    node: str
    module: str = ""
    weights: int
    moved: float | None
    kept: bool = False


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What was found to hurt, and by what: ``--keep-precise auto``.

    Attributes:
        budget_percent: by how much the error may rise.
        data: calibration series; none of the windows of the verdict is among them. windows, columns: of these.
        before_percent, after_percent: what it may rise by with all products quantised, and with the choice: the bound
            of 90 % confidence. Of a graph from a file, how far its outputs move. None where it cannot be told.
        kept_at: the precision of what hurts.
        products: what hurts most for its size first; empty where all can be quantised.
    """

    budget_percent: float
    data: str
    windows: int | None = None
    columns: int | None = None
    before_percent: float | None
    after_percent: float | None
    kept_at: str = "fp32"
    products: tuple[ProductEffect, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CalibrationEntry:
    """What the ranges of activations were found on: ``int8-static``.

    Attributes:
        data, windows, columns: see :class:`Sensitivity`. sha256: of the series, and of what is drawn besides.
        percentile: so many per cent of the values lie within the ranges.
    """

    data: str
    windows: int | None = None
    columns: int | None = None
    percentile: float
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PrecisionEntry:
    """The precision of a bundle's files.

    Attributes:
        kind: as of ``--precision``. keep: what was asked to stay float32, as named. max_increase: the limit that the
            verdict was held against, per cent.
        quantiser: what made the files, with its version.
        components: by name.
        sensitivity: how what stays float32 was found, where that was asked for.
        calibration: what fixed scales of activations were found on; None where there are none.
    """

    kind: str
    keep: tuple[str, ...] = ()
    max_increase: float | None = field(default=None, metadata=SPARSE)
    quantiser: str
    components: dict[str, QuantisedPart]
    sensitivity: Sensitivity | None = field(default=None, metadata=SPARSE)
    calibration: CalibrationEntry | None = field(default=None, metadata=SPARSE)


@dataclass(frozen=True)
class PrecisionChange:
    """How one error changes over the columns, per cent; None where it cannot be told.

    Attributes:
        float32, quantised: errors of both, the median over the columns.
        median_percent: of the columns' own changes. low_percent, high_percent: between which it lies with 90 %
            confidence (bootstrap over the windows). upper_percent: below which it lies with as much.
        worst_column: where it rose most, and worst_percent by how much.
    """

    float32: float | None = None
    quantised: float | None = None
    median_percent: float | None = None
    low_percent: float | None = None
    high_percent: float | None = None
    upper_percent: float | None = None
    worst_column: str | None = None
    worst_percent: float | None = None


@dataclass(frozen=True, kw_only=True)
class PrecisionSpeed:
    """Medians of one interleaved run."""

    batch: int
    length: int
    threads: int | None = None
    runs: int
    float32_ms: float
    quantised_ms: float
    ratio: float


@dataclass(frozen=True, kw_only=True)
class CastParity:
    """How files in half compare with the eager model cast the same way: a summary, see
    :class:`~tsmerge_export.bundle.verdicts.Parity` for the fields."""

    cases: int
    rows: int
    max_rel: float | None
    atol: float | None
    rtol: float | None
    decision_flips: int = 0
    noisy_rows: int = 0
    times_noise: float | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PrecisionCost:
    """The third verdict: the quantised files against their float32 twins on data.

    Attributes:
        passed: the weights are those of the twin, rounded as the formula has it, and the limit, if any, is kept.
        weights: how many were computed back and compared.
        windows, context, horizon, columns: of a family, on what it was measured.
        changes: of a family, by metric: ``mse``, ``mae``, ``wql``.
        outputs: of a graph from a file, how far each output moves: root mean square, of its own.
        decisions_moved_percent: by merging layer: of the tokens that the float32 file has merged away behind it, the
            share that the quantised one still has. None of a layer that merges nothing.
        max_increase: see :class:`PrecisionEntry`.
        cast: of files in half.
    """

    passed: bool
    data: str = ""
    weights: int = 0
    windows: int | None = field(default=None, metadata=SPARSE)
    context: int | None = field(default=None, metadata=SPARSE)
    horizon: int | None = field(default=None, metadata=SPARSE)
    columns: int | None = field(default=None, metadata=SPARSE)
    changes: dict[str, PrecisionChange] = field(default_factory=dict, metadata=SPARSE)
    outputs: dict[str, float | None] = field(default_factory=dict, metadata=SPARSE)
    decisions_moved_percent: tuple[float | None, ...] = ()
    speed: PrecisionSpeed | None = None
    max_increase: float | None = field(default=None, metadata=SPARSE)
    cast: CastParity | None = field(default=None, metadata=SPARSE)
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def first_failure(self) -> str:
        """Why it failed, in a line."""
        return next(iter(self.failures), "nothing was compared")
