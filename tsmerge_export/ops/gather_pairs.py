"""Body of ``tsmerge.GatherPairs``: a shared ``N x N`` plane per head, such as a relative position bias, brought to the
surviving tokens of every row.

Both token axes are gathered at once: as rows of ``heads`` numbers from the flattened plane, which is several times
cheaper than one gather per axis; or, where the plane is a function of the tokens' distance, from its table over all
distances, which stays in the cache. Where nothing was removed the plane is passed on as it is, unless rows may end in
padding that repeats tokens (``always``). Rules R11.1 to R11.3 of docs/specification.md.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from tsmerge_export.ops.schema import ANY, Attribute, Schema, Value
from tsmerge_export.ops.static import SUFFIX
from tsmerge_export.ops.text import parse_body

SCHEMA = Schema(
    op_type="GatherPairs",
    inputs=(
        Value(
            "value", ("1", "H", "N", "N"), ANY, "one number per head and pair of tokens, shared by all rows"
        ),
        Value("plane", ("P", "H"), ANY, "the same numbers, heads last, so that a pair is one contiguous row"),
        Value("kept", ("B", "M"), ("int64",), "index among the N tokens of each surviving one, increasing"),
        Value(
            "stride", ("1",), ("int64",), "the pair (i, j) is row i * stride + j + offset of plane: N, or ..."
        ),
        Value("offset", ("1",), ("int64",), "... -1 for a table of distances j - i, whose centre is offset"),
    ),
    outputs=(Value("z", ("R", "H", "M", "M"), ANY, "R = B, or 1 where M = N: then it is value itself"),),
    attributes=(
        Attribute(
            "always",
            "1: kept may repeat tokens, so that M = N does not say what it is",
            most=1,
            optional=True,
        ),
    ),
    doc="Brings a relative position bias to the surviving tokens of every row.",
)


_BODY = """
  before = Shape<start = 2, end = 3>(value)
  after = Shape<start = 1, end = 2>(kept)
  zero = Constant<value_ints = [0]>()
  unchanged = Equal(before, after)
  same = Squeeze(unchanged, zero)
  z = If (same) <
    then_branch = all_kept () => (whole) {
      whole = Identity(value)
    },
    else_branch = some_removed () => (gathered) {
      two = Constant<value_ints = [2]>()
      one = Constant<value_ints = [1]>()
      first = Mul(kept, stride)
      start = Add(first, offset)
      row = Unsqueeze(start, two)
      column = Unsqueeze(kept, one)
      pair = Add(row, column)
      heads_last = Gather<axis = 0>(plane, pair)
      gathered = Transpose<perm = [0, 3, 1, 2]>(heads_last)
    }
  >
"""


# Gathered in any case. For TensorRT, too: an If whose branches differ in shape is no layer of it.
_ALWAYS = """
  two = Constant<value_ints = [2]>()
  one = Constant<value_ints = [1]>()
  first = Mul(kept, stride)
  start = Add(first, offset)
  row = Unsqueeze(start, two)
  column = Unsqueeze(kept, one)
  pair = Add(row, column)
  heads_last = Gather<axis = 0>(plane, pair)
  z = Transpose<perm = [0, 3, 1, 2]>(heads_last)
"""


def variant(attributes: Mapping[str, int | float]) -> str:
    """``always``, or the empty name."""
    return "always" if attributes.get("always") else ""


def body(name: str, opset: int) -> onnx.FunctionProto:
    """``GatherPairs(value [1, H, N, N], plane [P, H], kept [B, M], stride, offset) -> z [B, H, M, M]``, or value."""
    return parse_body("GatherPairs", name, _ALWAYS if name else _BODY, opset)


def static_body(attributes: Mapping[str, int | float], opset: int) -> onnx.FunctionProto:
    """The same where every shape follows from shapes, see :mod:`tsmerge_export.ops.static`."""
    return parse_body("GatherPairs", SUFFIX, _ALWAYS, opset)
