"""Bodies of ``tsmerge.SeriesMerge`` in standard ONNX operators (opset 18 and later).

Specification: :mod:`tsmerge_export.methods.dynamic.series`. Ranks are those of
:mod:`tsmerge_export.methods.pairs_onnx`. Rows lose different numbers of tokens, so all of them are merged as one row of
``B * N`` tokens, by the parts that merge the rows of other methods, and taken apart again with padding in between.
"""

from __future__ import annotations

import re

import onnx

from tsmerge_export.methods.dynamic.operator import LIMIT
from tsmerge_export.methods.dynamic.operator import SCHEMA as TOGETHER
from tsmerge_export.methods.matching_onnx import match_band, match_dense, match_one, score_one
from tsmerge_export.methods.pairs_onnx import (
    BOUNDS,
    ROWS_ONE,
    TARGET_BEFORE,
    TARGET_ONE,
    by_similarity,
    variant,
)
from tsmerge_export.ops.parts import HEAD, MERGE_ROWS, PLACE, down_to_worst
from tsmerge_export.ops.schema import Schema
from tsmerge_export.ops.text import parse_body

__all__ = ["SCHEMA", "body", "variant"]

SCHEMA = Schema(
    op_type="SeriesMerge",
    inputs=TOGETHER.inputs,
    outputs=TOGETHER.outputs,
    attributes=TOGETHER.attributes,
    doc="Dynamic token merging, arXiv 2405.17951, section 3, each row by its own count: shorter rows end, in front of "
    "their protected tokens, in padding.",
    merges=True,
    data_dependent=True,
    pads=True,
    rules=TOGETHER.rules,
)

# R7.6: ``in_use [B, 1]``, how many of the unprotected tokens of each row take part: all up to the last real one.
_IN_USE = """
  most = Min(pairs, spare_least)
  some = Min(most, i1)
  t0 = Constant<value_int = 0>()
  t1 = Constant<value_int = 1>()
  t2 = Constant<value_int = 2>()
  one_real = Constant<value_float = 1.0>()
  open_start = Add(first, i0)
  open_end = Add(open_start, free_least)
  open_size = Slice(size, open_start, open_end, i1)
  open_padding = Equal(open_size, f0)
  open_count = Shape<start = 1, end = 2>(open_size)
  open_count_s = Squeeze(open_count, i0)
  open_place = Range(t0, open_count_s, t1)
  open_number0 = Cast<to = 1>(open_place)
  open_number = Add(open_number0, one_real)
  open_real = Where(open_padding, f0, open_number)
  batch_by_one = Concat<axis = 0>(batch, i1)
  open_none = Expand(f0, batch_by_one)
  open_or_none = Concat<axis = 1>(open_none, open_real)
  in_use_number = ReduceMax<keepdims = 1>(open_or_none, i1)
  in_use = Cast<to = 7>(in_use_number)
"""

# R7.7: ``merges [B, P]``, ``removed [B, 1]``, and ``source [1, F]`` in the row of all. The column behind the ranks is
# for rows, or batches, without any.
_CHOOSE = f"""
  rank_shape = Shape<start = 1, end = 2>(rank)
  rank_shape_s = Squeeze(rank_shape, i0)
  rank_place = Range(t0, rank_shape_s, t1)
  rank_token = Mul(rank_place, t2)
  takes_part = Less(rank_token, in_use)
  own_rank = Where(takes_part, rank, rank_none)
  {LIMIT}
  exceeds = Greater(own_rank, limit)
  exceeds_one = Cast<to = 7>(exceeds)
  counted = ReduceSum<keepdims = 1>(exceeds_one, i1)
  own_pairs = Div(in_use, i2)
  set_aside = Sub(free_least, in_use)
  own_tokens = Sub(tokens, set_aside)
  own_spare0 = Sub(own_tokens, least)
  own_spare = Max(own_spare0, i0)
  removed = Min(counted, own_pairs, own_spare)
  flat_axis = Constant<value_ints = [-1]>()
  removed_flat0 = Reshape(removed, flat_axis)
  removed_or_one = Concat<axis = 0>(removed_flat0, i1)
  removed_most = ReduceMax<keepdims = 1>(removed_or_one, i0)
  rank_end = Expand(rank_none, batch_by_one)
  rank_more = Concat<axis = 1>(own_rank, rank_end)
  top, top_index = TopK<axis = 1>(rank_more, removed_most)
  worst_at0 = Sub(removed, i1)
  worst_at = Max(worst_at0, i0)
  worst = GatherElements<axis = 1>(top, worst_at)
  {down_to_worst("own_rank", "merges0")}
  any_here = Greater(removed, i0)
  merges = And(merges0, any_here)
  merging = NonZero(merges)
  merging_row = Gather<axis = 0>(merging, t0)
  merging_i = Gather<axis = 0>(merging, t1)
  merging_start = Mul(merging_row, tokens)
  merging_twice = Mul(merging_i, i2)
  merging_token = Add(merging_twice, first)
  source_flat = Add(merging_token, merging_start)
  source = Unsqueeze(source_flat, i0)
  gone = Shape<start = 0, end = 1>(source_flat)
  all_tokens = Mul(batch, tokens)
  all_left = Sub(all_tokens, gone)
  features = Shape<start = 2, end = 3>(x)
  all_x_shape = Concat<axis = 0>(i1, all_tokens, features)
  all_x = Reshape<allowzero = 1>(x, all_x_shape)
  all_shape = Concat<axis = 0>(i1, all_tokens)
  all_size = Reshape<allowzero = 1>(size, all_shape)
  batch_removed = Concat<axis = 0>(i1, gone)
"""

_INTO = """
  merging_slot = Transpose<perm = [1, 0]>(merging)
  partner_found = GatherND(partner, merging_slot)
  partner_twice = Mul(partner_found, i2)
  into_token = Add(partner_twice, first_b)
  into_flat = Add(into_token, merging_start)
  into = Unsqueeze(into_flat, i0)
"""

# R7.8 to R7.10: ``left`` tokens, and which of the row of all each slot takes.
_APART = """
  own_left = Sub(own_tokens, removed)
  least_one = Max(least, i1)
  least_left = Min(least_one, tokens)
  own_left_flat = Reshape(own_left, flat_axis)
  left_or_least = Concat<axis = 0>(own_left_flat, least_left)
  left = ReduceMax<keepdims = 1>(left_or_least, i0)
  own_last = Min(last, tokens)
  behind = Sub(left, own_last)
  stays = Sub(tokens, removed)
  stays_to = CumSum(stays, t0)
  base = Sub(stays_to, stays)
  left_s = Squeeze(left, i0)
  slot_number = Range(t0, left_s, t1)
  at_end = GreaterOrEqual(slot_number, behind)
  over = Sub(stays, left)
  from_end = Add(over, slot_number)
  end_place = Sub(stays, own_last)
  front_last0 = Sub(end_place, i1)
  front_last = Max(front_last0, i0)
  from_front = Min(slot_number, front_last)
  taken = Where(at_end, from_end, from_front)
  take = Add(taken, base)
  y_all = Squeeze(all_y, i0)
  y = Gather<axis = 0>(y_all, take)
  size_all = Squeeze(all_size_out, i0)
  size_taken = Gather<axis = 0>(size_all, take)
  own_front = Sub(own_left, own_last)
  in_front = Less(slot_number, own_front)
  is_own = Or(in_front, at_end)
  size_out = Where(is_own, size_taken, f0)
  kept_all = Squeeze(all_kept, i0)
  kept_taken = Gather<axis = 0>(kept_all, take)
  batch_scalar = Squeeze(batch, i0)
  row_number0 = Range(t0, batch_scalar, t1)
  row_number = Unsqueeze(row_number0, i1)
  row_start = Mul(row_number, tokens)
  kept = Sub(kept_taken, row_start)
  rows_shape_in = Concat<axis = 0>(batch, tokens)
  target_rows = Reshape<allowzero = 1>(all_target, rows_shape_in)
  place_in_row = Sub(target_rows, base)
  goes_to_end = GreaterOrEqual(place_in_row, end_place)
  end_slot = Sub(place_in_row, over)
  slot_most0 = Sub(behind, i1)
  slot_most = Max(slot_most0, i0)
  front_slot = Min(place_in_row, slot_most)
  target = Where(goes_to_end, end_slot, front_slot)
"""

#: What the parts that merge one row call what they read and leave -> what that is in the row of all.
_OF_ALL = {
    "x": "all_x", "size": "all_size", "batch": "i1", "tokens": "all_tokens", "left": "all_left", "removed": "gone",
    "y": "all_y", "size_out": "all_size_out", "kept": "all_kept", "target": "all_target",
}  # fmt: skip


def _of_all(part: str) -> str:
    return re.sub(r"\b(" + "|".join(_OF_ALL) + r")\b", lambda found: _OF_ALL[found[0]], part)


def _body(match: str, rows: str) -> str:
    return HEAD + BOUNDS + _IN_USE + match + _CHOOSE + rows + _APART


_TEXT = by_similarity(
    lambda similarity, causal: _body(
        match_one(score_one(similarity), causal),
        _of_all(PLACE + (TARGET_BEFORE if causal else TARGET_ONE) + ROWS_ONE),
    ),
    lambda similarity: _body(match_band(similarity, own=True), _INTO + _of_all(PLACE + MERGE_ROWS)),
    lambda similarity: _body(match_dense(similarity, own=True), _INTO + _of_all(PLACE + MERGE_ROWS)),
)


def body(name: str, opset: int) -> onnx.FunctionProto:
    """The function ``SeriesMerge(x, metric, size) -> (y, size_out, kept, target)`` named by :func:`variant`."""
    return parse_body("SeriesMerge", name, _TEXT[name], opset)
