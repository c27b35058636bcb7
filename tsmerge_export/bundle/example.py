"""What a person looks at, as ``report.json`` has it: forecasts, tokens, and what ``inspect`` counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tsmerge_export.bundle.manifest import BarrierEntry

Numbers = tuple[float | None, ...]


@dataclass(frozen=True)
class Products:
    """Floating point operations in matrix products, see :func:`tsmerge_export.inspection.flops.savings`."""

    unmerged: float | None = None
    merged: float | None = None
    merge_nodes: float | None = None
    ratio: float | None = None
    uncounted: tuple[str, ...] = ()


@dataclass(frozen=True)
class CountedMerge:
    """A merge node of a file: how many tokens there are before and after it."""

    before: int
    after: int
    name: str = ""
    op_type: str = ""
    layer: int | None = None
    scope: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    data_dependent: bool = False


@dataclass(frozen=True)
class Counted:
    """What ``inspect`` finds in one file, see :func:`tsmerge_export.inspection.inspect.inspect_file`."""

    name: str = ""
    file: str = ""
    size: int = 0
    batch: int | None = None
    length: int | None = None
    opset: int | None = None
    merges: tuple[CountedMerge, ...] = ()
    described: int = 0
    barriers: tuple[BarrierEntry, ...] = ()
    nodes: dict[str, int] = field(default_factory=dict)
    flops: Products = Products()


@dataclass(frozen=True)
class Band:
    """A forecast: its lowest and highest quantile, and the middle, step by step."""

    low: Numbers
    median: Numbers
    high: Numbers


@dataclass(frozen=True)
class Series:
    """One column of the example: history ``[L]``, what came ``[H]``, and both forecasts of it."""

    column: str
    role: str
    first_row: int
    history: Numbers
    target: Numbers
    unmerged: Band
    merged: Band


@dataclass(frozen=True)
class MergedLayer:
    """One merge: ``kept [M]``, ``target`` (one entry per input token) and ``size [M]``."""

    layer: int
    kept: tuple[int, ...]
    target: tuple[int, ...]
    size: tuple[float, ...]


@dataclass(frozen=True)
class Tokens:
    """The merge decisions on one series, see :func:`tsmerge_export.verify.example.read_tokens`."""

    count: int
    protected: tuple[int, ...]
    steps: int
    size: tuple[float, ...]
    layers: tuple[MergedLayer, ...]
    steps_per_token: int | None = None
    special: tuple[int, ...] | None = None
    flops: Products = Products()


@dataclass(frozen=True)
class Example:
    """See :func:`tsmerge_export.verify.example.make`. ``levels``: the lowest quantile, the middle, the highest."""

    levels: tuple[float, ...] = ()
    seed: int = 0
    first_series: int = 0
    series: tuple[Series, ...] = ()
    tokens: Tokens | None = None
    merge_share: float | None = None
