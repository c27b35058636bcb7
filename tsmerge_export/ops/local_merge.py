"""Bodies of ``tsmerge.LocalMerge`` in standard ONNX operators (opset 18 and later).

Specification: :mod:`tsmerge_export.merge.local`, which this file repeats operator by operator. Three bodies share the
count r(N), the ranks, the placing of survivors and the merging of rows; they differ in how partners are found:

========  ==================  ==================================================================================
overload  neighbourhood       cost in N
========  ==================  ==================================================================================
``k1``    k = 1               linear; each a has one partner, so a merged token is a sum of two rows
``band``  1 < k <= BAND_MAX   linear: blocks of BLOCK a's against windows of BLOCK + 2k - 2 b's, by matrix product
``dense`` k = 0 or k above    quadratic: all a's against all b's; ``|i - j| < k`` is a mask
========  ==================  ==================================================================================

Facts about runtimes that shaped the bodies:

- Tokens are copied by GatherND/Gather with one index a token. Indices expanded over the features are many times slower,
  so ScatterElements with such indices touches only the r merged rows, and only where several a's share a b.
- ONNX Runtime's ScatterND runs its updates in parallel also with ``reduction="add"``: duplicate indices race. So
  sums over duplicates use ScatterElements, which is sequential, and ScatterND writes equal rows at duplicates.
- ONNX Runtime's reductions ignore a *negative* axis when the input is empty: axes are positive here.
- OpenVINO's TopK does not give the lowest index on ties: only values are taken from TopK.
- With r(N) = 0 nothing is compared (the a's are sliced to none) and no row is merged: what is left is one copy of x.
- Ranks count in steps of 2^-20, as the reference rounds its cosines: equal tokens tie on every runtime.
- Weights are normalised before the sum, so that sums of huge tokens do not overflow. Unmerged tokens see no arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from tsmerge_export.ops.text import parse_body

#: Largest k of the banded body; above it the dense body does less work at common lengths.
BAND_MAX = 32

#: How many a's a block of the banded body holds.
BLOCK = 32

# r(N) and the bounds of the comparison. Shapes: [1] int64 unless said otherwise.
_COUNT = """
  first = Constant<value_int: int = @protect_first>()
  last = Constant<value_int: int = @protect_last>()
  fixed = Constant<value_int: int = @r>()
  ratio_num = Constant<value_int: int = @ratio_num>()
  ratio_den = Constant<value_int: int = @ratio_den>()
  least = Constant<value_int: int = @min_tokens>()
  i0 = Constant<value_ints = [0]>()
  i1 = Constant<value_ints = [1]>()
  i2 = Constant<value_ints = [2]>()
  i3 = Constant<value_ints = [3]>()
  f0 = Constant<value_float = 0.0>()
  steps = Constant<value_float = 1048576.0>()
  rank_padding = Constant<value_float = 2097152.0>()
  rank_nan = Constant<value_float = -2097152.0>()
  rank_into_padding = Constant<value_float = -3145728.0>()
  rank_none = Constant<value_float = -4194304.0>()
  batch = Shape<start = 0, end = 1>(x)
  tokens = Shape<start = 1, end = 2>(x)
  share = Mul(tokens, ratio_num)
  share_floor = Div(share, ratio_den)
  wanted = Add(share_floor, fixed)
  protected = Add(first, last)
  free = Sub(tokens, protected)
  free_least = Max(free, i0)
  pairs = Div(free_least, i2)
  spare = Sub(tokens, least)
  spare_least = Max(spare, i0)
  removed = Min(wanted, pairs, spare_least)
  left = Sub(tokens, removed)
  some = Min(removed, i1)
  first_b = Add(first, i1)
"""

# k = 1: rank [B, P] of each pair; P is 0 when nothing is removed. An odd last a has no partner and no rank.
_MATCH_ONE = """
  compared = Mul(pairs, some)
  span = Mul(compared, i2)
  start_a = Add(first, i0)
  end = Add(start_a, span)
  raw_a = Slice(metric, start_a, end, i1, i2)
  raw_b = Slice(metric, first_b, end, i1, i2)
  metric_a = Cast<to = 1>(raw_a)
  metric_b = Cast<to = 1>(raw_b)
  product = Mul(metric_a, metric_b)
  dot = ReduceSum<keepdims = 0>(product, i2)
  product_a = Mul(metric_a, metric_a)
  square_a = ReduceSum<keepdims = 0>(product_a, i2)
  product_b = Mul(metric_b, metric_b)
  square_b = ReduceSum<keepdims = 0>(product_b, i2)
  norm_a = Sqrt(square_a)
  norm_b = Sqrt(square_b)
  scale = Mul(norm_a, norm_b)
  no_scale = Equal(scale, f0)
  quotient = Div(dot, scale)
  cosine = Where(no_scale, f0, quotient)
  finer = Mul(cosine, steps)
  rounded = Round(finer)
  unknown = IsNaN(rounded)
  score = Where(unknown, rank_nan, rounded)
  size_a = Slice(size, start_a, end, i1, i2)
  size_b = Slice(size, first_b, end, i1, i2)
  padding_a = Equal(size_a, f0)
  padding_b = Equal(size_b, f0)
  rank_real = Where(padding_b, rank_into_padding, score)
  rank = Where(padding_a, rank_padding, rank_real)
"""

# k > 1: how many a's (P) and b's (Q >= 1) take part; P is 0 when nothing is removed.
_COUNT_MANY = """
  free_up = Add(free_least, i1)
  all_a = Div(free_up, i2)
  count_a = Mul(all_a, some)
  count_b = Max(pairs, i1)
  last_token = Sub(tokens, i1)
"""

# The best candidate is the lowest index whose score equals the best score: explicit about ties, and no slower than
# ArgMax. Indices are compared as float32, exact up to 2^24 tokens: not every runtime reduces integers fast.

# Scores of candidates, in every layout with the a's norms [.., A, 1], b's [.., 1, C], inside [.., A, C] and so on.
_SCORE = """
  scale = Mul(norm_a, norm_b)
  no_scale = Equal(scale, f0)
  quotient = Div(dot, scale)
  cosine = Where(no_scale, f0, quotient)
  finer = Mul(cosine, steps)
  rounded = Round(finer)
  unknown = IsNaN(rounded)
  known = Where(unknown, rank_nan, rounded)
  real_a = Not(padding_a)
  into_padding = And(padding_b, real_a)
  allowed = Where(into_padding, rank_into_padding, known)
  no_index = Constant<value_float = 16777216.0>()
"""

# All a's against all b's: rank [B, P] and partner [B, P] (index j among the b's).
_MATCH_DENSE = f"""
  {_COUNT_MANY}
  start_a = Add(first, i0)
  span_a = Mul(count_a, i2)
  end_a = Add(start_a, span_a)
  start_b = Min(first_b, last_token)
  span_b = Mul(count_b, i2)
  end_b0 = Add(start_b, span_b)
  end_b = Sub(end_b0, i1)
  raw_a = Slice(metric, start_a, end_a, i1, i2)
  raw_b = Slice(metric, start_b, end_b, i1, i2)
  metric_a = Cast<to = 1>(raw_a)
  metric_b = Cast<to = 1>(raw_b)
  metric_bt = Transpose<perm = [0, 2, 1]>(metric_b)
  dot = MatMul(metric_a, metric_bt)
  product_a = Mul(metric_a, metric_a)
  square_a = ReduceSum<keepdims = 1>(product_a, i2)
  product_b = Mul(metric_b, metric_b)
  square_b0 = ReduceSum<keepdims = 0>(product_b, i2)
  square_b = Unsqueeze(square_b0, i1)
  norm_a = Sqrt(square_a)
  norm_b = Sqrt(square_b)
  size_a0 = Slice(size, start_a, end_a, i1, i2)
  size_b0 = Slice(size, start_b, end_b, i1, i2)
  padding_a0 = Equal(size_a0, f0)
  padding_b0 = Equal(size_b0, f0)
  padding_a = Unsqueeze(padding_a0, i2)
  padding_b = Unsqueeze(padding_b0, i1)
  {_SCORE}
  k = Constant<value_int: int = @k>()
  no_limit = Less(k, i1)
  count_a_s = Squeeze(count_a, i0)
  count_b_s = Squeeze(count_b, i0)
  s0 = Constant<value_int = 0>()
  s1 = Constant<value_int = 1>()
  i_row = Range(s0, count_a_s, s1)
  j_row = Range(s0, count_b_s, s1)
  i_column = Unsqueeze(i_row, i1)
  offset = Sub(i_column, j_row)
  distance = Abs(offset)
  near = Less(distance, k)
  inside = Or(near, no_limit)
  scores = Where(inside, allowed, rank_none)
  best_column = ReduceMax<keepdims = 1>(scores, i2)
  best_score = Squeeze(best_column, i2)
  is_best = Equal(scores, best_column)
  j_number = Cast<to = 1>(j_row)
  j_or_none = Where(is_best, j_number, no_index)
  partner_number = ReduceMin<keepdims = 0>(j_or_none, i2)
  partner = Cast<to = 7>(partner_number)
  rank = Where(padding_a0, rank_padding, best_score)
"""


def _match_band() -> str:
    """Blocks of a's [B, T, A, Dm] against windows of b's [B, T, W, Dm], W = A + 2k - 2, T = ceil(P / A)."""
    return f"""
  {_COUNT_MANY}
  k = Constant<value_int: int = @k>()
  block = Constant<value_ints = [{BLOCK}]>()
  block_less = Constant<value_ints = [{BLOCK - 1}]>()
  count_up = Add(count_a, block_less)
  blocks = Div(count_up, block)
  reach = Sub(k, i1)
  reach2 = Mul(reach, i2)
  window = Add(block, reach2)
  s0 = Constant<value_int = 0>()
  s1 = Constant<value_int = 1>()
  blocks_s = Squeeze(blocks, i0)
  block_s = Squeeze(block, i0)
  window_s = Squeeze(window, i0)
  block_number = Range(s0, blocks_s, s1)
  in_block = Range(s0, block_s, s1)
  in_window = Range(s0, window_s, s1)
  block_start0 = Mul(block_number, block)
  block_start = Unsqueeze(block_start0, i1)
  i_all = Add(block_start, in_block)
  j_first = Sub(block_start, reach)
  j_all = Add(j_first, in_window)
  i_most = Sub(count_a, i1)
  j_most = Sub(count_b, i1)
  i_real = Min(i_all, i_most)
  j_low = Max(j_all, i0)
  j_real = Min(j_low, j_most)
  i_twice = Mul(i_real, i2)
  j_twice = Mul(j_real, i2)
  token_a = Add(i_twice, first)
  token_b0 = Add(j_twice, first_b)
  token_b = Min(token_b0, last_token)
  raw_a = Gather<axis = 1>(metric, token_a)
  raw_b = Gather<axis = 1>(metric, token_b)
  metric_a = Cast<to = 1>(raw_a)
  metric_b = Cast<to = 1>(raw_b)
  metric_bt = Transpose<perm = [0, 1, 3, 2]>(metric_b)
  dot = MatMul(metric_a, metric_bt)
  product_a = Mul(metric_a, metric_a)
  square_a = ReduceSum<keepdims = 1>(product_a, i3)
  product_b = Mul(metric_b, metric_b)
  square_b0 = ReduceSum<keepdims = 0>(product_b, i3)
  square_b = Unsqueeze(square_b0, i2)
  norm_a = Sqrt(square_a)
  norm_b = Sqrt(square_b)
  size_a0 = Gather<axis = 1>(size, token_a)
  size_b0 = Gather<axis = 1>(size, token_b)
  padding_a0 = Equal(size_a0, f0)
  padding_b0 = Equal(size_b0, f0)
  padding_a = Unsqueeze(padding_a0, i3)
  padding_b = Unsqueeze(padding_b0, i2)
  {_SCORE}
  i_column = Unsqueeze(i_all, i2)
  j_row = Unsqueeze(j_all, i1)
  offset = Sub(i_column, j_row)
  distance = Abs(offset)
  near = Less(distance, k)
  not_before = GreaterOrEqual(j_row, i0)
  not_after = Less(j_row, count_b)
  exists = And(not_before, not_after)
  inside = And(near, exists)
  scores = Where(inside, allowed, rank_none)
  best_column = ReduceMax<keepdims = 1>(scores, i3)
  best_score = Squeeze(best_column, i3)
  is_best = Equal(scores, best_column)
  window_number = Cast<to = 1>(in_window)
  window_or_none = Where(is_best, window_number, no_index)
  best_window_number = ReduceMin<keepdims = 0>(window_or_none, i3)
  best_window = Cast<to = 7>(best_window_number)
  rank_block = Where(padding_a0, rank_padding, best_score)
  partner_block = Add(best_window, j_first)
  padded_count = Mul(blocks, block)
  flat = Concat<axis = 0>(batch, padded_count)
  rank_flat = Reshape<allowzero = 1>(rank_block, flat)
  partner_flat = Reshape<allowzero = 1>(partner_block, flat)
  rank = Slice(rank_flat, i0, count_a, i1)
  partner = Slice(partner_flat, i0, count_a, i1)
"""


# The r best a's (source [B, r], token indices, ascending), who survives, and the order of survivors. TopK gives
# only the worst rank that still merges; which of equal ranks merge is counted out.
_PLACE = """
  top, top_index = TopK<axis = 1>(rank, removed)
  worst_at = Sub(removed, some)
  worst = Slice(top, worst_at, removed, i1)
  better = Greater(rank, worst)
  tied = Equal(rank, worst)
  better_one = Cast<to = 7>(better)
  tied_one = Cast<to = 7>(tied)
  better_count = ReduceSum<keepdims = 1>(better_one, i1)
  room = Sub(removed, better_count)
  axis = Constant<value_int = 1>()
  turn = CumSum(tied_one, axis)
  in_room = LessOrEqual(turn, room)
  tied_in = And(tied, in_room)
  merges = Or(better, tied_in)
  merging = NonZero(merges)
  merging_number = Gather<axis = 0>(merging, axis)
  batch_removed = Concat<axis = 0>(batch, removed)
  best = Reshape<allowzero = 1>(merging_number, batch_removed)
  best_twice = Mul(best, i2)
  source = Add(best_twice, first)
  batch_tokens = Concat<axis = 0>(batch, tokens)
  ones = Expand(i1, batch_tokens)
  nothing = Sub(source, source)
  survives = ScatterElements<axis = 1>(ones, source, nothing)
  before = CumSum<exclusive = 1>(survives, axis)
  survivors = NonZero(survives)
  survivor_token = Gather<axis = 0>(survivors, axis)
  batch_left = Concat<axis = 0>(batch, left)
  kept = Reshape<allowzero = 1>(survivor_token, batch_left)
  kept_index = Unsqueeze(kept, i2)
  y_kept = GatherND<batch_dims = 1>(x, kept_index)
  size_kept = GatherElements<axis = 1>(size, kept)
  size_source = GatherElements<axis = 1>(size, source)
"""

# k = 1: b is the token after a, so the survivors before a count its place too.
_ROWS_ONE = """
  target = Identity(before)
  into = Add(source, i1)
  place = GatherElements<axis = 1>(before, source)
  size_into = GatherElements<axis = 1>(size, into)
  size_row = Add(size_source, size_into)
  size_out = ScatterElements<axis = 1>(size_kept, place, size_row)
  received = Greater(size_row, size_into)
  into_real = Greater(size_into, f0)
  into_padding_row = Not(into_real)
  replaced = And(received, into_padding_row)
  row_b = Where(replaced, source, into)
  half = Constant<value_float = 0.5>()
  share_a = Div(size_source, size_row)
  share_b = Div(size_into, size_row)
  weight_a0 = Where(into_real, share_a, half)
  weight_b0 = Where(into_real, share_b, half)
  weight_a = Unsqueeze(weight_a0, i2)
  weight_b = Unsqueeze(weight_b0, i2)
  source_index = Unsqueeze(source, i2)
  row_b_index = Unsqueeze(row_b, i2)
  x_a = GatherND<batch_dims = 1>(x, source_index)
  x_b = GatherND<batch_dims = 1>(x, row_b_index)
  x_a32 = Cast<to = 1>(x_a)
  x_b32 = Cast<to = 1>(x_b)
  part_a = Mul(x_a32, weight_a)
  part_b = Mul(x_b32, weight_b)
  mean = Add(part_a, part_b)
"""

# k > 1: all a's that share a b are added up in the slot of one of them (its leader), then each takes its leader's sum.
_ROWS_MANY = """
  partner_best = GatherElements<axis = 1>(partner, best)
  partner_twice = Mul(partner_best, i2)
  into = Add(partner_twice, first_b)
  place = GatherElements<axis = 1>(before, into)
  target = ScatterElements<axis = 1>(before, source, place)
  size_out = ScatterElements<axis = 1, reduction = "add">(size_kept, place, size_source)
  size_into = GatherElements<axis = 1>(size_kept, place)
  size_row = GatherElements<axis = 1>(size_out, place)
  received = Greater(size_row, size_into)
  removed_s = Squeeze(removed, i0)
  r0 = Constant<value_int = 0>()
  r1 = Constant<value_int = 1>()
  slot = Range(r0, removed_s, r1)
  slots = Expand(slot, batch_removed)
  no_slot = Sub(kept, kept)
  slot_of_place = ScatterElements<axis = 1, reduction = "max">(no_slot, place, slots)
  leader = GatherElements<axis = 1>(slot_of_place, place)
  weight_a0 = Div(size_source, size_row)
  weight_b0 = Div(size_into, size_row)
  weight_a = Unsqueeze(weight_a0, i2)
  weight_b = Unsqueeze(weight_b0, i2)
  source_index = Unsqueeze(source, i2)
  into_index = Unsqueeze(into, i2)
  leader_index = Unsqueeze(leader, i2)
  x_a = GatherND<batch_dims = 1>(x, source_index)
  x_b = GatherND<batch_dims = 1>(x, into_index)
  x_a32 = Cast<to = 1>(x_a)
  x_b32 = Cast<to = 1>(x_b)
  product_part_a = Mul(x_a32, weight_a)
  product_part_b = Mul(x_b32, weight_b)
  source_real0 = Greater(size_source, f0)
  source_real = Unsqueeze(source_real0, i2)
  into_real0 = Greater(size_into, f0)
  into_real = Unsqueeze(into_real0, i2)
  part_a = Where(source_real, product_part_a, f0)
  part_b = Where(into_real, product_part_b, f0)
  rows_shape = Shape(part_a)
  leader_element = Expand(leader_index, rows_shape)
  sums = ScatterElements<axis = 1, reduction = "add">(part_b, leader_element, part_a)
  mean = GatherND<batch_dims = 1>(sums, leader_index)
"""

# A b that received only padding keeps its own bits.
_WRITE = """
  received_row = Unsqueeze(received, i2)
  row32 = Where(received_row, mean, x_b32)
  row = CastLike(row32, x)
  place_index = Unsqueeze(place, i2)
  b0 = Constant<value_int = 0>()
  b1 = Constant<value_int = 1>()
  batch_s = Squeeze(batch, i0)
  batch_number = Range(b0, batch_s, b1)
  column = Constant<value_ints = [-1, 1, 1]>()
  batch_column = Reshape(batch_number, column)
  place_shape = Shape(place_index)
  batch_index = Expand(batch_column, place_shape)
  write_index = Concat<axis = 2>(batch_index, place_index)
  y = ScatterND(y_kept, write_index, row)
"""

_TEXT = {
    "k1": _COUNT + _MATCH_ONE + _PLACE + _ROWS_ONE + _WRITE,
    "band": _COUNT + _match_band() + _PLACE + _ROWS_MANY + _WRITE,
    "dense": _COUNT + _MATCH_DENSE + _PLACE + _ROWS_MANY + _WRITE,
}


def variant(attributes: Mapping[str, int]) -> str:
    """Which body a node takes: by k alone, so that its cost class is known from the node."""
    k = attributes["k"]
    if k == 1:
        return "k1"
    return "band" if 1 < k <= BAND_MAX else "dense"


def body(name: str, opset: int) -> onnx.FunctionProto:
    """The function ``LocalMerge(x, metric, size) -> (y, size_out, kept, target)`` named by :func:`variant`."""
    return parse_body("LocalMerge", name, _TEXT[name], opset)
