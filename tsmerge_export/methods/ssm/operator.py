"""Body of ``tsmerge.SsmMerge`` in standard ONNX operators (opset 18 and later).

Specification: :mod:`tsmerge_export.methods.ssm.reference`, which this file repeats operator by operator. Time and
memory are quadratic in the unprotected tokens, U; with r(N) = 0 a single token takes part, and is compared with none.
What
:mod:`tsmerge_export.methods.pairs_onnx` lists about runtimes holds here too.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from tsmerge_export.methods.matching_onnx import best_candidate
from tsmerge_export.ops.parts import (
    COSINE_OF_SQUARES,
    COUNT,
    HEAD,
    KEEP_FROM_PADDING,
    MERGE_OR_PRUNE_BRANCHES,
    MERGE_OR_PRUNE_ROWS,
    PLACE,
    POSITION,
    best_of,
    with_run_time,
)  # fmt: skip
from tsmerge_export.ops.schema import (
    AMOUNT,
    BOUNDS,
    MERGED,
    RATIO,
    RUN_TIME,
    TOKENS,
    Attribute,
    Schema,
    Share,
    one_amount,
    run_time_end,
)
from tsmerge_export.ops.text import parse_body

SCHEMA = Schema(
    op_type="SsmMerge",
    inputs=TOKENS,
    outputs=MERGED,
    attributes=(
        *AMOUNT,
        *BOUNDS,
        Attribute(
            "prune_num",
            "share of the removed tokens that is pruned, numerator",
            most=1_000_000,
            counts=True,
        ),
        Attribute("prune_den", "the same, denominator", least=1, most=1_000_000, counts=True),
        Attribute(
            "residual_num",
            "with residual_den, the share of the residual x - metric; prune_num is then of the metric",
            most=1_000_000,
            optional=True,
            counts=True,
        ),
        Attribute(
            "residual_den",
            "the same, denominator; 0: one choice for x",
            most=1_000_000,
            optional=True,
            counts=True,
        ),
        RUN_TIME,
    ),
    doc="Token reduction of arXiv 2410.14725, section 4: the r(N) less important tokens that are most like a more "
    "important one are merged into it, or pruned. r(N) as of LocalMerge. With residual_den, D = Dm, and the metric "
    "(hidden states) and x - metric (residual) are reduced apart along the same links.",
    merges=True,
    shares=(
        RATIO,
        Share("prune share", "prune_num", "prune_den", "the share to prune must be at most 1"),
        Share(
            "of the residual",
            "residual_num",
            "residual_den",
            "the residual's share to prune must be at most 1",
        ),
    ),
    rules=(one_amount,),
    run_time=True,
)


# ``rank [B, U]``: importance in whole steps (R9.2, R9.3); below every number where it is not finite, and padding below
# that.
_IMPORTANCE = """
  steps = Constant<value_float = 1048576.0>()
  finite_most = Constant<value_float = 3.4028234e38>()
  weight_none = Constant<value_float = -1048576.0>()
  weight_padding = Constant<value_float = -2097152.0>()
  raw = Slice(metric, start, end, i1)
  size_free = Slice(size, start, end, i1)
  padding = Equal(size_free, f0)
  y_free = Cast<to = 1>(raw)
  negative = LessOrEqual(y_free, f0)
  positive = Where(negative, f0, y_free)
  sum = ReduceSum<keepdims = 0>(positive, i2)
  finite = LessOrEqual(sum, finite_most)
  real = Not(padding)
  counts = And(finite, real)
  sum_known = Where(counts, sum, f0)
  largest = ReduceMax<keepdims = 1>(sum_known, i1)
  all_zero = Equal(largest, f0)
  part = Div(sum, largest)
  part_known = Where(all_zero, f0, part)
  part_steps = Mul(part_known, steps)
  whole = Round(part_steps)
  weight_real = Where(finite, whole, weight_none)
  rank = Where(padding, weight_padding, weight_real)
"""

# The halves, ``a [B, P]`` and ``b [B, Q]``, Q >= 1: indices among the unprotected tokens, rising.
_HALVES = """
  compared_s = Squeeze(compared, i0)
  n0 = Constant<value_int = 0>()
  n1 = Constant<value_int = 1>()
  number = Range(n0, compared_s, n1)
  number_column = Unsqueeze(number, i1)
"""

_SPLIT = """
  count_a = Div(compared, i2)
  count_b = Sub(compared, count_a)
  is_b = Less(position, count_b)
  is_a = Not(is_b)
  found_a = NonZero(is_a)
  found_b = NonZero(is_b)
  flat_a = Gather<axis = 0>(found_a, axis)
  flat_b = Gather<axis = 0>(found_b, axis)
  batch_a = Concat<axis = 0>(batch, count_a)
  batch_b = Concat<axis = 0>(batch, count_b)
  a = Reshape<allowzero = 1>(flat_a, batch_a)
  b = Reshape<allowzero = 1>(flat_b, batch_b)
"""

# ``scores [B, P, Q]`` (R9.5, ranks R4.1); to a padding a all b's are the same.
_SCORES = f"""
  rank_padding = Constant<value_float = 2097152.0>()
  rank_nan = Constant<value_float = -2097152.0>()
  rank_into_padding = Constant<value_float = -3145728.0>()
  rows_a = Unsqueeze(a, i2)
  rows_b = Unsqueeze(b, i2)
  y_a = GatherND<batch_dims = 1>(y_free, rows_a)
  y_b = GatherND<batch_dims = 1>(y_free, rows_b)
  y_bt = Transpose<perm = [0, 2, 1]>(y_b)
  dot = MatMul(y_a, y_bt)
  product_a = Mul(y_a, y_a)
  square_a = ReduceSum<keepdims = 1>(product_a, i2)
  product_b = Mul(y_b, y_b)
  square_b0 = ReduceSum<keepdims = 0>(product_b, i2)
  square_b = Unsqueeze(square_b0, i1)
  {COSINE_OF_SQUARES}
  known = Where(unknown, rank_nan, rounded)
  {KEEP_FROM_PADDING}
  count_b_s = Squeeze(count_b, i0)
  j_row = Range(n0, count_b_s, n1)
"""

_ENDS = """
  best_b = GatherElements<axis = 1>(b, best_index)
  source0 = GatherElements<axis = 1>(a, best)
  into0 = GatherElements<axis = 1>(best_b, best)
  source = Add(source0, first)
  into = Add(into0, first)
"""

_TURNS = """
  removed_number = Squeeze(removed, i0)
  turn_of = Range(n0, removed_number, n1)
  turn_next = Add(turn_of, n1)
"""


def _prune(share: str, branch: str = "") -> str:
    """Which of the removed are pruned in a branch, by their turn in time (R9.7): ``weight_source``."""
    return f"""
  share_num{branch} = Constant<value_int: int = @{share}_num>()
  share_den{branch} = Constant<value_int: int = @{share}_den>()
  due{branch} = Mul(turn_of, share_num{branch})
  due_next{branch} = Mul(turn_next, share_num{branch})
  done{branch} = Div(due{branch}, share_den{branch})
  done_next{branch} = Div(due_next{branch}, share_den{branch})
  pruned{branch} = Greater(done_next{branch}, done{branch})
  weight_source{branch} = Where(pruned{branch}, f0, size_source)
"""


# By variant: how the removed tokens leave their mark.
_REDUCE = {
    "": _TURNS + _prune("prune") + MERGE_OR_PRUNE_ROWS,
    "branches": _TURNS
    + _prune("prune", "_hidden")
    + _prune("residual", "_residual")
    + MERGE_OR_PRUNE_BRANCHES,
}


_FRONT = HEAD + COUNT + _IMPORTANCE + _HALVES + POSITION + _SPLIT + _SCORES
_FRONT += best_candidate(3, "j_row") + best_of("best_rank", "some") + _ENDS + PLACE
_TEXT = with_run_time({name: _FRONT + reduce for name, reduce in _REDUCE.items()})


def variant(attributes: Mapping[str, int | float]) -> str:
    """``branches``: hidden states and residual apart; else there is one body, and so an empty name."""
    return ("branches" if attributes.get("residual_den") else "") + run_time_end(attributes)


def body(name: str, opset: int) -> onnx.FunctionProto:
    """The function ``SsmMerge(x, metric, size) -> (y, size_out, kept, target)``."""
    return parse_body("SsmMerge", name, _TEXT[name], opset)
