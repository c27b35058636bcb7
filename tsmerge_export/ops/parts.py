"""Parts that the bodies of the merging operators share, in ONNX text syntax; each reads and leaves named values.

A body is the concatenation of HEAD, a part of its own that finds ``rank`` or ``source``, and what it needs of these.
:mod:`tsmerge_export.methods.pairs_onnx` lists the facts about runtimes that shaped them.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Constants; ``batch`` and ``tokens`` ``[1]`` int64. Reads ``x [B, N, D]``.
HEAD = """
  i0 = Constant<value_ints = [0]>()
  i1 = Constant<value_ints = [1]>()
  i2 = Constant<value_ints = [2]>()
  i3 = Constant<value_ints = [3]>()
  f0 = Constant<value_float = 0.0>()
  axis = Constant<value_int = 1>()
  batch = Shape<start = 0, end = 1>(x)
  tokens = Shape<start = 1, end = 2>(x)
"""


#: Cosines (R3.1) in whole steps (R3.5), ``rounded``, and where they are none, ``unknown``: from products ``dot`` and
#: products of norms ``scale`` of one shape or broadcast. Reads ``steps``. A zero vector has the cosine 0.
COSINE = """
  no_scale = Equal(scale, f0)
  quotient = Div(dot, scale)
  cosine = Where(no_scale, f0, quotient)
  finer = Mul(cosine, steps)
  rounded = Round(finer)
  unknown = IsNaN(rounded)
"""

#: The same from squared norms ``square_a`` and ``square_b``.
COSINE_OF_SQUARES = f"""
  norm_a = Sqrt(square_a)
  norm_b = Sqrt(square_b)
  scale = Mul(norm_a, norm_b)
  {COSINE}
"""

#: ``scores [B, P, Q]`` from ``known``: no a goes into padding, and to a padding a all b's are the same. Reads
#: ``a [B, P]``, ``b [B, Q]``, indices in ``size_free [B, U]``.
KEEP_FROM_PADDING = """
  size_a = GatherElements<axis = 1>(size_free, a)
  size_b = GatherElements<axis = 1>(size_free, b)
  padding_a0 = Equal(size_a, f0)
  padding_b0 = Equal(size_b, f0)
  padding_a = Unsqueeze(padding_a0, i2)
  padding_b = Unsqueeze(padding_b0, i1)
  with_padding = Or(padding_a, padding_b)
  scores = Where(with_padding, rank_into_padding, known)
"""

#: What limits r(N) (R2.4): ``pairs`` and ``spare_least``. Here and below ``[1]`` int64.
LIMITS = """
  first = Constant<value_int: int = @protect_first>()
  last = Constant<value_int: int = @protect_last>()
  least = Constant<value_int: int = @min_tokens>()
  protected = Add(first, last)
  free = Sub(tokens, protected)
  free_least = Max(free, i0)
  pairs = Div(free_least, i2)
  spare = Sub(tokens, least)
  spare_least = Max(spare, i0)
"""

#: How many tokens are ``wanted`` to go (R2.4), by number or by share.
WANTED = """
  fixed = Constant<value_int: int = @r>()
  ratio_num = Constant<value_int: int = @ratio_num>()
  ratio_den = Constant<value_int: int = @ratio_den>()
  share = Mul(tokens, ratio_num)
  share_floor = Div(share, ratio_den)
  wanted = Add(share_floor, fixed)
"""

#: The same where the share is chosen at run time (R2.7): of the input ``share [2]``, numerator and denominator.
_WANTED_AT_RUN_TIME = """
  wanted_num = Slice(share, i0, i1)
  wanted_den0 = Slice(share, i1, i2)
  wanted_den = Max(wanted_den0, i1)
  wanted_times = Mul(tokens, wanted_num)
  wanted = Div(wanted_times, wanted_den)
"""


def with_run_time(bodies: Mapping[str, str]) -> dict[str, str]:
    """Bodies that have WANTED, by overload, and beside each one the same for a share that is the input ``share``."""
    chosen = {f"{name}_run_time": text.replace(WANTED, _WANTED_AT_RUN_TIME) for name, text in bodies.items()}
    return {**bodies, **chosen}


#: r(N), R2.4: ``removed``; and what is ``left``. Reads LIMITS.
REMOVED = f"""{WANTED}
  removed = Min(wanted, pairs, spare_least)
  left = Sub(tokens, removed)
  some = Min(removed, i1)
"""

#: r(N), and the tokens that are compared by methods that compare all: ``start`` to ``end``, at least one.
COUNT = f"""{LIMITS}{REMOVED}
  chosen = Mul(removed, i2)
  last_token = Sub(tokens, i1)
  start = Min(first, last_token)
  compared_or_none = Mul(free_least, some)
  compared = Max(compared_or_none, i1)
  end = Add(start, compared)
"""

#: ``position [B, U]`` int64: the place of each token by falling ``rank [B, U]``, the lowest index of equals first.
#: Reads ``number [U]`` and ``number_column [U, 1]``, the indices. Counted out: TopK's indices are not reliable.
POSITION = """
  rank_column = Unsqueeze(rank, i2)
  rank_row = Unsqueeze(rank, i1)
  greater = Greater(rank_row, rank_column)
  equal = Equal(rank_row, rank_column)
  earlier = Less(number, number_column)
  equal_earlier = And(equal, earlier)
  ahead = Or(greater, equal_earlier)
  ahead_one = Cast<to = 1>(ahead)
  position_number = ReduceSum<keepdims = 0>(ahead_one, i2)
  position = Cast<to = 7>(position_number)
"""


def down_to_worst(rank: str, chosen: str) -> str:
    """R4.3, of ``rank [B, P]`` the ``removed`` best when ``worst [B, 1]`` is the last of them, the lowest of equals:
    leaves ``chosen [B, P]`` bool."""
    return f"""
  better = Greater({rank}, worst)
  tied = Equal({rank}, worst)
  better_one = Cast<to = 7>(better)
  tied_one = Cast<to = 7>(tied)
  better_count = ReduceSum<keepdims = 1>(better_one, i1)
  room = Sub(removed, better_count)
  turn = CumSum(tied_one, axis)
  in_room = LessOrEqual(turn, room)
  tied_in = And(tied, in_room)
  {chosen} = Or(better, tied_in)
"""


def best_of(rank: str, some: str) -> str:
    """The ``removed`` best of ``rank [B, P]``, by R4.3 the lowest of equals: leaves ``best [B, removed]``, rising.

    TopK gives only the worst rank that is still chosen; which of equal ranks are chosen is counted out.

    Args:
        rank: name of the ranks; P must be 0 where ``removed`` is. some: name of min(removed, 1), ``[1]`` int64.
    """
    return f"""
  top, top_index = TopK<axis = 1>({rank}, removed)
  worst_at = Sub(removed, {some})
  worst = Slice(top, worst_at, removed, i1)
  {down_to_worst(rank, "merges")}
  merging = NonZero(merges)
  merging_number = Gather<axis = 0>(merging, axis)
  batch_removed = Concat<axis = 0>(batch, removed)
  best = Reshape<allowzero = 1>(merging_number, batch_removed)
"""


#: Who survives (R6.1) when the tokens ``source [B, removed]`` go, ``left = N - removed``: ``kept [B, M]``, ``before [B,
#: N]`` (the survivors in front of each token), ``y_kept``, ``size_kept [B, M]`` and ``size_source``.
PLACE = """
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

_PLACES = """
  place = GatherElements<axis = 1>(before, into)
  target = ScatterElements<axis = 1>(before, source, place)
  size_out = ScatterElements<axis = 1, reduction = "add">(size_kept, place, size_source)
"""

_SLOTS = """
  size_into = GatherElements<axis = 1>(size_kept, place)
  into_real0 = Greater(size_into, f0)
  into_real = Unsqueeze(into_real0, i2)
  removed_s = Squeeze(removed, i0)
  r0 = Constant<value_int = 0>()
  r1 = Constant<value_int = 1>()
  slot = Range(r0, removed_s, r1)
  slots = Expand(slot, batch_removed)
  no_slot = Sub(kept, kept)
  slot_of_place = ScatterElements<axis = 1, reduction = "max">(no_slot, place, slots)
  leader = GatherElements<axis = 1>(slot_of_place, place)
  source_index = Unsqueeze(source, i2)
  into_index = Unsqueeze(into, i2)
  leader_index = Unsqueeze(leader, i2)
  x_a = GatherND<batch_dims = 1>(x, source_index)
  x_b = GatherND<batch_dims = 1>(x, into_index)
  x_a32 = Cast<to = 1>(x_a)
  x_b32 = Cast<to = 1>(x_b)
  rows_shape = Shape(x_a32)
  leader_element = Expand(leader_index, rows_shape)
"""

_WRITE = """
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

_WEIGHT_IS_SIZE = """
  weight_source = Identity(size_source)
  weight_out = Identity(size_out)
"""


def weight_of(branch: str = "") -> str:
    """``weight_out`` of a branch from its ``weight_source``, where not all that goes counts."""
    return f"""
  weight_out{branch} = ScatterElements<axis = 1, reduction = "add">(size_kept, place, weight_source{branch})
"""


def means_of(sources: str, survivors: str, out: str, branch: str = "") -> str:
    """``out [B, removed, D]`` float32: means (R6.3) of what goes into the survivor of each source, or its own value.

    Args:
        sources, survivors: names of the values ``[B, removed, D]`` float32 of the sources, and of where they go.
        branch: end of the names that belong to one of several branches; ``received_row`` says which rows changed.
    """
    return f"""
  size_row{branch} = GatherElements<axis = 1>(weight_out{branch}, place)
  received{branch} = Greater(size_row{branch}, size_into)
  weight_a0{branch} = Div(weight_source{branch}, size_row{branch})
  weight_b0{branch} = Div(size_into, size_row{branch})
  weight_a{branch} = Unsqueeze(weight_a0{branch}, i2)
  weight_b{branch} = Unsqueeze(weight_b0{branch}, i2)
  product_part_a{branch} = Mul({sources}, weight_a{branch})
  product_part_b{branch} = Mul({survivors}, weight_b{branch})
  source_real0{branch} = Greater(weight_source{branch}, f0)
  source_real{branch} = Unsqueeze(source_real0{branch}, i2)
  part_a{branch} = Where(source_real{branch}, product_part_a{branch}, f0)
  part_b{branch} = Where(into_real, product_part_b{branch}, f0)
  sums{branch} = ScatterElements<axis = 1, reduction = "add">(part_b{branch}, leader_element, part_a{branch})
  mean{branch} = GatherND<batch_dims = 1>(sums{branch}, leader_index)
  received_row{branch} = Unsqueeze(received{branch}, i2)
  {out} = Where(received_row{branch}, mean{branch}, {survivors})
"""


_ONE_BRANCH = means_of("x_a32", "x_b32", "row32")

#: ``x`` is a sum of hidden states ``metric`` and a residual, with a ``weight_source`` each.
_TWO_BRANCHES = f"""
  hidden_a0 = GatherND<batch_dims = 1>(metric, source_index)
  hidden_b0 = GatherND<batch_dims = 1>(metric, into_index)
  hidden_a = Cast<to = 1>(hidden_a0)
  hidden_b = Cast<to = 1>(hidden_b0)
  residual_a = Sub(x_a32, hidden_a)
  residual_b = Sub(x_b32, hidden_b)
  {means_of("hidden_a", "hidden_b", "row_hidden", "_hidden")}
  {means_of("residual_a", "residual_b", "row_residual", "_residual")}
  row_both = Add(row_residual, row_hidden)
  changed = Or(received_row_hidden, received_row_residual)
  row32 = Where(changed, row_both, x_b32)
"""

#: Merges ``source`` into the surviving tokens ``into [B, removed]`` of any distance: all that share one are added up in
#: the slot of one of them (its leader), then each takes its leader's sum. A token that received only padding keeps its
#: own bits (R6.5). Leaves the outputs ``y``, ``size_out`` and ``target``.
MERGE_ROWS = _PLACES + _WEIGHT_IS_SIZE + _SLOTS + _ONE_BRANCH + _WRITE

#: The same where a source counts ``weight_source [B, removed]`` in the value, 0 if pruned, and its size in the size.
MERGE_OR_PRUNE_ROWS = _PLACES + weight_of() + _SLOTS + _ONE_BRANCH + _WRITE

#: The same of hidden states ``metric`` and residual apart, ``weight_source_hidden`` and ``weight_source_residual``.
MERGE_OR_PRUNE_BRANCHES = (
    _PLACES + weight_of("_hidden") + weight_of("_residual") + _SLOTS + _TWO_BRANCHES + _WRITE
)
