"""Bodies of ``tsmerge.LocalMerge`` whose shapes follow from N alone, see :mod:`tsmerge_export.ops.static`.

The places of survivors and of the removed are one permutation, whose inverse is
one scatter without duplicates. A function has the same name, inputs and outputs as its portable twin.

k = 1 is the specification (:mod:`tsmerge_export.methods.local.reference`) but for the payload of NaNs in half
precision. For other k several tokens may go into one: they are summed by a matrix product over all N tokens, which
costs ``2 * M * N * D`` operations and spreads a NaN or an infinity to all merged tokens of its row.

Lengths of ranges are read from tensors that were cut to them: of a length by arithmetic alone the compiler does not see
how large it can be, and plans memory for more than there can be.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from tsmerge_export.methods.matching_onnx import match_dense, match_one, score_one
from tsmerge_export.methods.pairs_onnx import BOUNDS, by_similarity, variant
from tsmerge_export.ops.parts import HEAD, WANTED
from tsmerge_export.ops.static import SUFFIX
from tsmerge_export.ops.text import parse_body

# r(N), R2.4, at least one pair compared whatever r(N) is.
_COUNT = f"""{WANTED}
  removed0 = Min(wanted, pairs)
  removed = Min(removed0, spare_least)
  left = Sub(tokens, removed)
  some = Identity(i1)
"""

# merges [B, P + 1]: the removed best, ties to the lowest index (R4.3). A last column that nothing ranks below keeps
# shapes from being empty, and K of TopK is at least 1. Counts are exact in float32.
_CHOOSE = """
  one_column = Concat<axis = 0>(batch, i1)
  nobody = Expand(rank_none, one_column)
  rank_some = Concat<axis = 1>(rank, nobody)
  top_count = Max(removed, i1)
  top, top_index = TopK<axis = 1>(rank_some, top_count)
  worst_at = Sub(top_count, i1)
  worst = Slice(top, worst_at, top_count, i1)
  better = Greater(rank_some, worst)
  tied = Equal(rank_some, worst)
  better_one = Cast<to = 1>(better)
  tied_one = Cast<to = 1>(tied)
  better_count = ReduceSum<keepdims = 1>(better_one, i1)
  top_number = Cast<to = 1>(top_count)
  room = Sub(top_number, better_count)
  turn = CumSum(tied_one, axis)
  in_room = LessOrEqual(turn, room)
  tied_in = And(tied, in_room)
  best = Or(better, tied_in)
  any_removed = Greater(removed, i0)
  merges = And(best, any_removed)
"""

# gone [B, N], and places: before [B, N] (survivors in front), kept [B, M].
_PLACE = """
  p0 = Constant<value_int = 0>()
  p1 = Constant<value_int = 1>()
  tokens_s = Squeeze(tokens, i0)
  token = Range(p0, tokens_s, p1)
  past_first = Sub(token, first)
  past_least = Max(past_first, i0)
  pair0 = Div(past_least, i2)
  nobody_at = Shape<start = 1, end = 2>(rank)
  pair = Min(pair0, nobody_at)
  twice_pair = Mul(pair, i2)
  is_a = Equal(past_first, twice_pair)
  merges_at = Gather<axis = 1>(merges, pair)
  gone = And(merges_at, is_a)
  gone_one = Cast<to = 1>(gone)
  gone_up_to = CumSum(gone_one, axis)
  gone_number = Sub(gone_up_to, gone_one)
  gone_before = Cast<to = 7>(gone_number)
  before = Sub(token, gone_before)
  behind = Add(left, gone_before)
  place_of = Where(gone, behind, before)
  token_row = Unsqueeze(token, i0)
  no_gone = Sub(gone_before, gone_before)
  token_rows = Add(token_row, no_gone)
  order = ScatterElements<axis = 1>(no_gone, place_of, token_rows)
  kept = Slice(order, i0, left, i1)
  kept_index = Unsqueeze(kept, i2)
  y_kept = GatherND<batch_dims = 1>(x, kept_index)
  size_kept = GatherElements<axis = 1>(size, kept)
"""

# k = 1: where a removed token is read from, the survivor behind it or, in causal merging, the one in front.
_TARGET_ONE = """
  target = Identity(before)
"""
_TARGET_BEFORE = """
  gone_whole = Cast<to = 7>(gone)
  target = Sub(before, gone_whole)
"""

# R6.3, k = 1: only the token in front of a survivor can have gone into it.
_ROWS_ONE = """
  front = Sub(kept, i1)
  previous = Max(front, i0)
  previous_index = Unsqueeze(previous, i2)
  gone_previous = GatherElements<axis = 1>(gone_one, previous)
  size_previous = GatherElements<axis = 1>(size, previous)
  size_moved = Mul(size_previous, gone_previous)
  size_out = Add(size_kept, size_moved)
  received0 = Greater(size_moved, f0)
  one = Constant<value_float = 1.0>()
  total = Where(received0, size_out, one)
  weight_a0 = Div(size_moved, total)
  weight_b0 = Div(size_kept, total)
  weight_a = Unsqueeze(weight_a0, i2)
  weight_b = Unsqueeze(weight_b0, i2)
  received = Unsqueeze(received0, i2)
  real_b0 = Greater(size_kept, f0)
  real_b = Unsqueeze(real_b0, i2)
  x_a = GatherND<batch_dims = 1>(x, previous_index)
  x_a32 = Cast<to = 1>(x_a)
  x_b32 = Cast<to = 1>(y_kept)
  moved_a = Mul(x_a32, weight_a)
  moved_b = Mul(x_b32, weight_b)
  part_b = Where(real_b, moved_b, f0)
  mean = Add(moved_a, part_b)
  row = Where(received, mean, x_b32)
  y = CastLike(row, x)
"""

# Any k: which tokens go into which survivor is a matrix [B, M, N] of weights.
_ROWS_MANY = """
  no_partner = Cast<to = 7>(nobody)
  partner_some = Concat<axis = 1>(partner, no_partner)
  partner_at = Gather<axis = 1>(partner_some, pair)
  partner_twice = Mul(partner_at, i2)
  into = Add(partner_twice, first_b)
  goes = Where(gone, into, token_rows)
  target = GatherElements<axis = 1>(before, goes)
  left_real = Shape<start = 1, end = 2>(kept)
  left_s = Squeeze(left_real, i0)
  slot = Range(p0, left_s, p1)
  slot_column = Unsqueeze(slot, i1)
  target_row = Unsqueeze(target, i1)
  belongs = Equal(slot_column, target_row)
  belongs_one = Cast<to = 1>(belongs)
  size_row = Unsqueeze(size, i1)
  share_of = Mul(belongs_one, size_row)
  size_out = ReduceSum<keepdims = 0>(share_of, i2)
  received0 = Greater(size_out, size_kept)
  one = Constant<value_float = 1.0>()
  total0 = Where(received0, size_out, one)
  total = Unsqueeze(total0, i2)
  weights = Div(share_of, total)
  received = Unsqueeze(received0, i2)
  real0 = Greater(size, f0)
  real = Unsqueeze(real0, i2)
  x32 = Cast<to = 1>(x)
  x_real = Where(real, x32, f0)
  mean = MatMul(weights, x_real)
  x_kept32 = Cast<to = 1>(y_kept)
  row = Where(received, mean, x_kept32)
  y = CastLike(row, x)
"""

_FRONT = HEAD + BOUNDS + _COUNT
# Any k but 1 compares all pairs and masks the far ones: the windows of the banded body are planned at gigabytes.
_LOCAL_MERGE = by_similarity(
    lambda similarity, causal: (
        _FRONT
        + match_one(score_one(similarity), causal)
        + _CHOOSE
        + _PLACE
        + (_TARGET_BEFORE if causal else _TARGET_ONE)
        + _ROWS_ONE
    ),
    lambda similarity: _FRONT + match_dense(similarity) + _CHOOSE + _PLACE + _ROWS_MANY,
    lambda similarity: _FRONT + match_dense(similarity) + _CHOOSE + _PLACE + _ROWS_MANY,
)


def static_body(attributes: Mapping[str, int | float], opset: int) -> onnx.FunctionProto:
    """The body of a node that the schema accepts; ``opset``: of the model."""
    name = variant(attributes).replace("band", "dense")
    return parse_body("LocalMerge", f"{name}_{SUFFIX}", _LOCAL_MERGE[name], opset)
