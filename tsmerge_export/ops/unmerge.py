"""Body of ``tsmerge.Unmerge`` (R10.1): a gather of whole tokens along the merged axis."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from tsmerge_export.ops.text import parse_body

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
