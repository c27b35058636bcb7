"""Dynamic merging: as many near tokens as are alike (arXiv 2405.17951, section 3)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tsmerge_export.console.one_line import short
from tsmerge_export.errors import UsageError
from tsmerge_export.methods.options import SIMILARITY, K
from tsmerge_export.settings.method import MethodSpec
from tsmerge_export.settings.option import Option, Span
from tsmerge_export.settings.parse import number

if TYPE_CHECKING:
    from tsmerge_export.settings.config import MergeConfig

DEFAULT_THRESHOLD = 0.9


def parse_threshold(value: Any) -> float:
    """Read a threshold of cosine similarity: a number from -1 to 1. Raises UsageError for anything else."""
    return number("--threshold", value, -1, 1)


THRESHOLD = Option(
    "threshold",
    "S",
    "{methods}: merge tokens more alike than this, -1 to 1, or one for each layer; default: 0.9",
    parse_threshold,
    per_layer=True,
    default=DEFAULT_THRESHOLD,
    amount=True,
    search=Span(0.3, 0.98, 0.02, guess=0.9),
)


def _read_per_series(value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"--per-series is {short(value)}, which is not true or false")
    return value


PER_SERIES = Option(
    "per_series",
    "",
    "{methods}: each series of a batch merges by its own count, so that no forecast depends on what is beside it; "
    "shorter ones end in padding",
    _read_per_series,
    default=False,
    empty=(False,),
    unsaid=False,
    switch=True,
)


def _check_per_series(config: MergeConfig) -> None:
    if config.per_series and config.positions == "compact":
        raise UsageError(
            "--positions compact numbers what stands behind the padding by the longest series of the batch; with "
            "--per-series use --positions gather"
        )


_TOGETHER = MethodSpec(
    name="dynamic",
    source="arXiv 2405.17951",
    keeps="the tokens whose best cosine is at or below `--threshold`, on average over the batch (so a forecast depends "
    "on its batch), or in each series by itself with `--per-series`; the length comes from the data",
    cost="as `local`",
    reference="tsmerge_export.methods.dynamic.reference:DynamicMethod",
    operator="tsmerge_export.methods.dynamic.operator",
    op_type="DynamicMerge",
    options=(K, THRESHOLD, SIMILARITY, PER_SERIES),
    rules=(_check_per_series,),
    causal=True,
    fixed=frozenset({"similarity"}),
)

_PER_SERIES = replace(
    _TOGETHER,
    reference="tsmerge_export.methods.dynamic.series:SeriesMethod",
    operator="tsmerge_export.methods.dynamic.series_operator",
    op_type="SeriesMerge",
)

METHOD = replace(_TOGETHER, variants={PER_SERIES.name: _PER_SERIES})
