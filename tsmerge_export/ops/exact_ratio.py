"""Body of ``tsmerge.ExactRatio`` (R14): from the value of a graph's input to the fraction that it means.

All products stay below 2^31: OpenVINO computes with 32 bits what is int64 in the file.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from tsmerge_export.ops.schema import SHARE, Schema, Value
from tsmerge_export.ops.text import parse_body
from tsmerge_export.settings.run_time import MOST_DENOMINATOR, STEPS

SCHEMA = Schema(
    op_type="ExactRatio",
    inputs=(Value("ratio", (), ("float32",), "any number, or none"),),
    outputs=(SHARE,),
    attributes=(),
    doc="The fraction nearest to a number, with a denominator of at most 1,024; below 0 and NaN 0, above 1/2 1/2.",
)

_BODY = f"""
  zero = Constant<value_float = 0.0>()
  half = Constant<value_float = 0.5>()
  unknown = IsNaN(ratio)
  known = Where(unknown, zero, ratio)
  not_below = Max(known, zero)
  cut = Min(not_below, half)
  steps_float = Constant<value_float = {STEPS}.0>()
  steps = Constant<value_int = {STEPS}>()
  half_step = Constant<value_int = {STEPS // 2}>()
  finer = Mul(cut, steps_float)
  rounded = Round(finer)
  m = Cast<to = 7>(rounded)
  d1 = Constant<value_int = 1>()
  behind = Constant<value_int = {MOST_DENOMINATOR + 1}>()
  most = Constant<value_int = {MOST_DENOMINATOR}>()
  d0 = Range(d1, behind, d1)
  d = Max(d0, d1)
  wanted = Mul(d, m)
  wanted_more = Add(wanted, half_step)
  n = Div(wanted_more, steps)
  reached = Mul(n, steps)
  off = Sub(reached, wanted)
  far = Abs(off)
  far_finer = Mul(far, most)
  distance = Div(far_finer, d)
  axis = Constant<value_ints = [0]>()
  least = ReduceMin<keepdims = 1>(distance, axis)
  nearest = Equal(distance, least)
  candidates = Where(nearest, d, most)
  den = ReduceMin<keepdims = 1>(candidates, axis)
  den_wanted = Mul(den, m)
  den_wanted_more = Add(den_wanted, half_step)
  num = Div(den_wanted_more, steps)
  share = Concat<axis = 0>(num, den)
"""


def variant(attributes: Mapping[str, int | float]) -> str:
    """There is one body, and so one (empty) name."""
    return ""


def body(name: str, opset: int) -> onnx.FunctionProto:
    """The function ``ExactRatio(ratio [] float32) -> share [2] int64``."""
    return parse_body("ExactRatio", name, _BODY, opset)
