"""Body of ``tsmerge.DistancePlane``: from numbers per head and distance to the plane of all pairs of tokens (R12.1).

A row of the plane is a run of its table. Runs of BLOCK numbers are laid out first, one for every start; the plane is
then gathered from them, which copies BLOCK numbers at a time and has the heads where attention wants them. The Gather
is in both branches of the If, and the Reshape behind it, because a branch copies what it only passes on.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from tsmerge_export.ops.schema import ANY, Schema, Value
from tsmerge_export.ops.static import SUFFIX
from tsmerge_export.ops.text import parse_body

SCHEMA = Schema(
    op_type="DistancePlane",
    inputs=(
        Value(
            "table",
            ("2C", "H"),
            ANY,
            "row C + d: the numbers of distance d, heads last; C >= N, a multiple of 32",
        ),
        Value("centre", ("1",), ("int64",), "C"),
        Value("tokens", ("1",), ("int64",), "N"),
    ),
    outputs=(Value("plane", ("H", "N", "N"), ANY, "plane[h, i, j] = table[C + j - i, h]"),),
    attributes=(),
    doc="A relative position bias from its numbers per distance.",
)


#: Numbers per copy; the centre of a table is a multiple of it (R12.2). Measured in ONNX Runtime at N = 512, 8 heads: 32
#: takes about a quarter of the time of one Gather per pair, 16 and 64 slightly more than 32.
BLOCK = 32

_BODY = f"""
  s0 = Constant<value_int = 0>()
  s1 = Constant<value_int = 1>()
  i0 = Constant<value_ints = [0]>()
  i1 = Constant<value_ints = [1]>()
  i2 = Constant<value_ints = [2]>()
  block_s = Constant<value_int = {BLOCK}>()
  block = Constant<value_ints = [{BLOCK}]>()
  block_less = Constant<value_ints = [{BLOCK - 1}]>()
  distances = Shape<start = 0, end = 1>(table)
  starts_count = Sub(distances, block_less)
  starts_s = Squeeze(starts_count, i0)
  starts = Range(s0, starts_s, s1)
  start = Unsqueeze(starts, i1)
  lane = Range(s0, block_s, s1)
  window = Add(start, lane)
  runs_heads_last = Gather<axis = 0>(table, window)
  runs = Transpose<perm = [2, 0, 1]>(runs_heads_last)
  tokens_up = Add(tokens, block_less)
  blocks = Div(tokens_up, block)
  blocks_s = Squeeze(blocks, i0)
  block_number = Range(s0, blocks_s, s1)
  column = Mul(block_number, block)
  tokens_s = Squeeze(tokens, i0)
  token = Range(s0, tokens_s, s1)
  row0 = Sub(centre, token)
  row = Unsqueeze(row0, i1)
  run = Add(row, column)
  flat = Constant<value_ints = [0, 0, -1]>()
  width = Mul(blocks, block)
  fits = Equal(width, tokens)
  fits_s = Squeeze(fits, i0)
  one_lane = Constant<value_ints = [0, 0, -1, 1]>()
  runs_of_row = If (fits_s) <
    then_branch = whole_blocks () => (whole) {{
      whole = Gather<axis = 1>(runs, run)
    }},
    else_branch = part_of_block () => (part) {{
      wide_runs = Gather<axis = 1>(runs, run)
      wide = Reshape(wide_runs, one_lane)
      part = Slice(wide, i0, tokens, i2)
    }}
  >
  plane = Reshape(runs_of_row, flat)
"""


# One Gather: an If is no layer of TensorRT.
_STATIC = """
  s0 = Constant<value_int = 0>()
  s1 = Constant<value_int = 1>()
  i0 = Constant<value_ints = [0]>()
  i1 = Constant<value_ints = [1]>()
  tokens_s = Squeeze(tokens, i0)
  token = Range(s0, tokens_s, s1)
  row0 = Sub(centre, token)
  row = Unsqueeze(row0, i1)
  pair = Add(row, token)
  heads_last = Gather<axis = 0>(table, pair)
  plane = Transpose<perm = [2, 0, 1]>(heads_last)
"""


def variant(attributes: Mapping[str, int | float]) -> str:
    """There is one body, and so one (empty) name."""
    return ""


def body(name: str, opset: int) -> onnx.FunctionProto:
    """``DistancePlane(table [2C, H], centre [1] = C, tokens [1]) -> plane [H, N, N]``."""
    return parse_body("DistancePlane", name, _BODY, opset)


def static_body(attributes: Mapping[str, int | float], opset: int) -> onnx.FunctionProto:
    """The same where every shape follows from shapes, see :mod:`tsmerge_export.ops.static`."""
    return parse_body("DistancePlane", SUFFIX, _STATIC, opset)
