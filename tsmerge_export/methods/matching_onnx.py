"""How a's find their b's: the statements of LocalMerge and DynamicMerge that differ by neighbourhood.

Each text reads the bounds of :mod:`tsmerge_export.methods.pairs_onnx` and ``some`` (0: compare nothing), and leaves
``rank [B, P]``; for k > 1 also ``partner [B, P]``, the index j among the b's. P is 0 when nothing is compared.

What they compare by is a text too: the cosine, or one of the two of :mod:`tsmerge_export.methods.similarity_onnx`.
"""

from __future__ import annotations

from tsmerge_export.methods.similarity_onnx import LENGTHS, scores_by_length
from tsmerge_export.ops.parts import COSINE_OF_SQUARES

#: How many a's a block of the banded body holds.
BLOCK = 32

_SPAN_ONE = """
  compared = Mul(pairs, some)
  span = Mul(compared, i2)
  start_a = Add(first, i0)
  end = Add(start_a, span)
"""

# k = 1: ``score [B, P]`` of each pair.
_COSINE_ONE = f"""
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
  {COSINE_OF_SQUARES}
  score = Where(unknown, rank_nan, rounded)
"""

# The same of squared norms, which are there already.
_BY_LENGTH_ONE = """
  metric_a = Slice(free32, i0, span, i1, i2)
  metric_b = Slice(free32, i1, span, i1, i2)
  product = Mul(metric_a, metric_b)
  dot = ReduceSum<keepdims = 0>(product, i2)
  square_a = Slice(free_square, i0, span, i1, i2)
  square_b = Slice(free_square, i1, span, i1, i2)
"""

# rank [B, P] of each pair. An odd last a has no partner and no rank.
_RANK_ONE = """
  size_a = Slice(size, start_a, end, i1, i2)
  size_b = Slice(size, first_b, end, i1, i2)
  padding_a = Equal(size_a, f0)
  padding_b = Equal(size_b, f0)
  rank_with_b = Where(padding_b, rank_into_padding, score)
"""

# In causal merging the token before an a, which it will be read from, must not be padding either.
_BEFORE_ONE = """
  start_before = Sub(start_a, i1)
  end_before = Sub(end, i1)
  size_before = Slice(size, start_before, end_before, i1, i2)
  padding_before = Equal(size_before, f0)
  rank_real = Where(padding_before, rank_into_padding, rank_with_b)
"""

_ANY_BEFORE_ONE = """
  rank_real = Identity(rank_with_b)
"""

_END_ONE = """
  rank = Where(padding_a, rank_padding, rank_real)
"""


def score_one(similarity: str) -> str:
    """k = 1: ``score [B, P]`` of each pair."""
    if similarity == "cosine":
        return _COSINE_ONE
    return LENGTHS + _BY_LENGTH_ONE + scores_by_length(similarity, 2, "score")


def match_one(score: str, causal: bool = False) -> str:
    """k = 1: ``rank [B, P]``, by statements that leave ``score [B, P]``, whole numbers of steps.

    These read ``metric``, where the a's and b's begin and end along axis 1, ``start_a``, ``first_b`` and ``end``, and
    ``some``, ``i1`` and ``i2``: every second token from either start.
    """
    return _SPAN_ONE + score + _RANK_ONE + (_BEFORE_ONE if causal else _ANY_BEFORE_ONE) + _END_ONE


_COSINE_MANY = f"""
  {COSINE_OF_SQUARES}
  known = Where(unknown, rank_nan, rounded)
"""

# k > 1: how many a's (P) and b's (Q >= 1) take part.
_COUNT_MANY = """
  free_up = Add(free_least, i1)
  all_a = Div(free_up, i2)
  count_a = Mul(all_a, some)
  count_b = Max(pairs, i1)
  last_token = Sub(tokens, i1)
"""


def _scores(rank: int, similarity: str) -> str:
    """Scores of all candidates, ``[.., A, C]``, of ``rank`` axes in all.

    From raw_a ``[.., A, Dm]``, raw_b ``[.., C, Dm]`` and their sizes size_a0 ``[.., A]`` and size_b0 ``[.., C]``.
    """
    lead = list(range(rank - 2))
    perm = [*lead, rank - 1, rank - 2]
    last, row = f"i{rank - 1}", f"i{rank - 2}"
    by_length = "" if similarity == "cosine" else LENGTHS
    known = _COSINE_MANY if similarity == "cosine" else scores_by_length(similarity, rank, "known")
    return f"""
  {by_length}
  metric_a = Cast<to = 1>(raw_a)
  metric_b = Cast<to = 1>(raw_b)
  metric_bt = Transpose<perm = {perm}>(metric_b)
  dot = MatMul(metric_a, metric_bt)
  product_a = Mul(metric_a, metric_a)
  square_a = ReduceSum<keepdims = 1>(product_a, {last})
  product_b = Mul(metric_b, metric_b)
  square_b0 = ReduceSum<keepdims = 0>(product_b, {last})
  square_b = Unsqueeze(square_b0, {row})
  {known}
  padding_a0 = Equal(size_a0, f0)
  padding_b0 = Equal(size_b0, f0)
  padding_a = Unsqueeze(padding_a0, {last})
  padding_b = Unsqueeze(padding_b0, {row})
  real_a = Not(padding_a)
  into_padding = And(padding_b, real_a)
  allowed = Where(into_padding, rank_into_padding, known)
"""


def best_candidate(rank: int, index: str) -> str:
    """Of scores ``[.., A, C]``: best_rank ``[.., A]`` and best_index ``[.., A]`` int64, an entry of ``index [C]``.

    The best candidate is the lowest index whose score equals the best score: explicit about ties, and no slower than
    ArgMax. Indices are compared as float32, exact up to 2^24 tokens: not every runtime reduces integers fast.
    """
    last = f"i{rank - 1}"
    return f"""
  no_index = Constant<value_float = 16777216.0>()
  best_column = ReduceMax<keepdims = 1>(scores, {last})
  best_score = Squeeze(best_column, {last})
  is_best = Equal(scores, best_column)
  index_number = Cast<to = 1>({index})
  index_or_none = Where(is_best, index_number, no_index)
  best_number = ReduceMin<keepdims = 0>(index_or_none, {last})
  best_index = Cast<to = 7>(best_number)
  best_rank = Where(padding_a0, rank_padding, best_score)
"""


#: Where the rows have numbers of tokens of their own, ``in_use [B, 1]``: the b's beyond are none. Reads ``j_row``, the
#: index of each candidate.
_OWN_MANY = """
  j_token = Mul(j_row, i2)
  j_free = Add(j_token, i1)
  own_axes = Constant<value_ints = {axes}>()
  in_use_more = Unsqueeze(in_use, own_axes)
  is_own_b = Less(j_free, in_use_more)
  inside = And(inside_all, is_own_b)
"""


def match_dense(similarity: str, own: bool = False) -> str:
    """All a's against all b's; ``own``: of each row only those of ``in_use [B, 1]``."""
    inside = (
        f"inside_all = Or(near, no_limit){_OWN_MANY.format(axes=[2])}"
        if own
        else "inside = Or(near, no_limit)"
    )
    return f"""
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
  size_a0 = Slice(size, start_a, end_a, i1, i2)
  size_b0 = Slice(size, start_b, end_b, i1, i2)
  {_scores(3, similarity)}
  k = Constant<value_int: int = @k>()
  no_limit = Less(k, i1)
  count_a_real = Shape<start = 1, end = 2>(raw_a)
  count_b_real = Shape<start = 1, end = 2>(raw_b)
  count_a_s = Squeeze(count_a_real, i0)
  count_b_s = Squeeze(count_b_real, i0)
  s0 = Constant<value_int = 0>()
  s1 = Constant<value_int = 1>()
  i_row = Range(s0, count_a_s, s1)
  j_row = Range(s0, count_b_s, s1)
  i_column = Unsqueeze(i_row, i1)
  offset = Sub(i_column, j_row)
  distance = Abs(offset)
  near = Less(distance, k)
  {inside}
  scores = Where(inside, allowed, rank_none)
  {best_candidate(3, "j_row")}
  rank = Identity(best_rank)
  partner = Identity(best_index)
"""


def match_band(similarity: str, own: bool = False) -> str:
    """Blocks of a's [B, T, A, Dm] against windows of b's [B, T, W, Dm], W = A + 2k - 2, T = ceil(P / A).

    ``own``: of each row only the b's of ``in_use [B, 1]``.
    """
    inside = (
        f"inside_all = And(near, exists){_OWN_MANY.format(axes=[2, 3])}"
        if own
        else "inside = And(near, exists)"
    )
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
  size_a0 = Gather<axis = 1>(size, token_a)
  size_b0 = Gather<axis = 1>(size, token_b)
  {_scores(4, similarity)}
  i_column = Unsqueeze(i_all, i2)
  j_row = Unsqueeze(j_all, i1)
  offset = Sub(i_column, j_row)
  distance = Abs(offset)
  near = Less(distance, k)
  not_before = GreaterOrEqual(j_row, i0)
  not_after = Less(j_row, count_b)
  exists = And(not_before, not_after)
  {inside}
  scores = Where(inside, allowed, rank_none)
  {best_candidate(4, "in_window")}
  partner_block = Add(best_index, j_first)
  padded_count = Mul(blocks, block)
  flat = Concat<axis = 0>(batch, padded_count)
  rank_flat = Reshape<allowzero = 1>(best_rank, flat)
  partner_flat = Reshape<allowzero = 1>(partner_block, flat)
  rank = Slice(rank_flat, i0, count_a, i1)
  partner = Slice(partner_flat, i0, count_a, i1)
"""
