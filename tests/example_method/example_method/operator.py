"""The operator: what a node says, and its body, of which only the score of a pair is this method's own."""

from tsmerge_export.methods.pairs_onnx import neighbours_body
from tsmerge_export.ops.schema import AMOUNT, BOUNDS, MERGED, RATIO, TOKENS, Attribute, Schema, one_amount
from tsmerge_export.ops.text import parse_body

SCHEMA = Schema(
    op_type="QuietMerge",
    inputs=TOKENS,
    outputs=MERGED,
    attributes=(*AMOUNT, *BOUNDS, Attribute("later", "weight of a pair's later token", most=100, real=True)),
    doc="Merges the r(N) quietest pairs of neighbours.",
    merges=True,
    shares=(RATIO,),
    rules=(one_amount,),
)

_SCORE = """
  raw_a = Slice(metric, start_a, end, i1, i2)
  raw_b = Slice(metric, first_b, end, i1, i2)
  a32 = Cast<to = 1>(raw_a)
  b32 = Cast<to = 1>(raw_b)
  abs_a = Abs(a32)
  abs_b = Abs(b32)
  loud_a = ReduceSum<keepdims = 0>(abs_a, i2)
  loud_b = ReduceSum<keepdims = 0>(abs_b, i2)
  later = Constant<value_float: float = @later>()
  loud_later = Mul(loud_b, later)
  loud = Add(loud_a, loud_later)
  most_finite = Constant<value_float = 3.4028234e38>()
  finite = LessOrEqual(loud, most_finite)
  known = Where(finite, loud, f0)
  batch_one = Concat<axis = 0>(batch, i1)
  nothing_loud = Expand(f0, batch_one)
  known_or_none = Concat<axis = 1>(nothing_loud, known)
  largest = ReduceMax<keepdims = 1>(known_or_none, i1)
  silent = Equal(largest, f0)
  share0 = Div(loud, largest)
  share_known = Where(silent, f0, share0)
  finer = Mul(share_known, steps)
  whole = Round(finer)
  minus = Neg(whole)
  score = Where(finite, minus, rank_nan)
"""


def variant(attributes):
    return ""


def body(name, opset):
    return parse_body("QuietMerge", name, neighbours_body(_SCORE), opset)
