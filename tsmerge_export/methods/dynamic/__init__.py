"""Dynamic merging: as many near tokens as are alike (arXiv 2405.17951, section 3)."""

from typing import Any

from tsmerge_export.methods.options import SIMILARITY, K
from tsmerge_export.settings.method import MethodSpec
from tsmerge_export.settings.option import Option, Span
from tsmerge_export.settings.parse import number

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

METHOD = MethodSpec(
    name="dynamic",
    source="arXiv 2405.17951",
    keeps="the tokens whose best cosine is at or below `--threshold`, on average over the batch (so a forecast depends "
    "on its batch); the length comes from the data",
    cost="as `local`",
    reference="tsmerge_export.methods.dynamic.reference:DynamicMethod",
    operator="tsmerge_export.methods.dynamic.operator",
    op_type="DynamicMerge",
    options=(K, THRESHOLD, SIMILARITY),
    causal=True,
    fixed=frozenset({"similarity"}),
)
