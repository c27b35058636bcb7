"""Body of ``tsmerge.Unmerge`` (R10.1): a gather of whole tokens along the merged axis."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from tsmerge_export.ops.schema import ANY, Schema, Value
from tsmerge_export.ops.text import parse_body

SCHEMA = Schema(
    op_type="Unmerge",
    inputs=(
        Value("y", ("B", "M", "..."), ANY, "merged tokens, rank 2 or more"),
        Value("target", ("B", "N"), ("int64",), "from LocalMerge"),
    ),
    outputs=(Value("z", ("B", "N", "..."), ANY, "every original token's copy of the token it went into"),),
    attributes=(),
    doc="Gives every original token a copy of the token it went into.",
)


# GatherND with one index per token copies whole tokens; GatherElements would need the index once per feature.
_BODY = """
  last = Constant<value_ints = [-1]>()
  index = Unsqueeze(target, last)
  z = GatherND<batch_dims = 1>(y, index)
"""


def variant(attributes: Mapping[str, int | float]) -> str:
    """There is one body, and so one (empty) name."""
    return ""


def body(name: str, opset: int) -> onnx.FunctionProto:
    """The function ``Unmerge(y [B, M, ...], target [B, N] int64) -> z [B, N, ...]``."""
    return parse_body("Unmerge", name, _BODY, opset)
