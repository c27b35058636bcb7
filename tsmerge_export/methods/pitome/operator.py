"""Bodies of ``tsmerge.PitomeMerge`` in standard ONNX operators (opset 18 and later).

Specification: :mod:`tsmerge_export.methods.pitome.reference`, which this file repeats operator by operator. Two bodies,
``elu`` and ``gaussian``, differ in what the energy sums. Time and memory are quadratic in the unprotected tokens, U;
with r(N) = 0 a single token is compared, with itself.

- The order by energy is counted out, as TopK's indices are not to be relied on: a token's position is how many tokens
  stand before it (greater energy, or equal energy and lower index). Positions are a permutation, so scattering the
  indices by them inverts it without a race. All U are counted, not only the best 2r: the scores are U x U anyhow.
- Sums of energies are exact up to 16,384 tokens, so that equal tokens tie whatever the order of sums: the terms are
  whole numbers of 2^-20, and are summed in two parts that are whole numbers below 2^10 each. (float64 would do as well,
  but not every runtime has it.)
- What :mod:`tsmerge_export.methods.pairs_onnx` lists about runtimes holds here too.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from tsmerge_export.methods.matching_onnx import best_candidate
from tsmerge_export.methods.pitome import ALPHA_MOST, ENERGIES
from tsmerge_export.ops.parts import (
    COSINE,
    COUNT,
    HEAD,
    KEEP_FROM_PADDING,
    MERGE_ROWS,
    PLACE,
    POSITION,
    with_run_time,
)
from tsmerge_export.ops.schema import (
    AMOUNT,
    BOUNDS,
    MERGED,
    RATIO,
    RUN_TIME,
    TOKENS,
    Attribute,
    Schema,
    one_amount,
    run_time_end,
)
from tsmerge_export.ops.text import parse_body

SCHEMA = Schema(
    op_type="PitomeMerge",
    inputs=TOKENS,
    outputs=MERGED,
    attributes=(
        *AMOUNT,
        *BOUNDS,
        Attribute(
            "margin",
            "cosine from which tokens are alike",
            least=-1,
            most=1,
            real=True,
            word=lambda value: f"margin {value:.4g}",
        ),
        Attribute(
            "alpha",
            "weight of tokens that are not alike",
            most=ALPHA_MOST,
            real=True,
            word=lambda value: f"alpha {value:.4g}",
        ),
        Attribute(
            "energy",
            "index into ENERGIES: 0 elu, 1 gaussian (without alpha)",
            most=1,
            word=lambda value: f"energy {ENERGIES[value]}",
        ),
        RUN_TIME,
    ),
    doc="PiToMe, arXiv 2405.16148, section 3: merges half of the 2r(N) tokens of highest energy into the other half. "
    "r(N) as of LocalMerge.",
    merges=True,
    shares=(RATIO,),
    rules=(one_amount,),
    run_time=True,
)


# Cosines of all pairs [B, U, U], ``rounded`` to steps of 2^-20, and ``neighbour``: whether j counts in the energy of i.
_SCORES = f"""
  steps = Constant<value_float = 1048576.0>()
  step = Constant<value_float = 0.00000095367431640625>()
  f1 = Constant<value_float = 1.0>()
  raw = Slice(metric, start, end, i1)
  size_free = Slice(size, start, end, i1)
  padding = Equal(size_free, f0)
  v = Cast<to = 1>(raw)
  v_turned = Transpose<perm = [0, 2, 1]>(v)
  dot = MatMul(v, v_turned)
  squares = Mul(v, v)
  square = ReduceSum<keepdims = 0>(squares, i2)
  norm = Sqrt(square)
  norm_column = Unsqueeze(norm, i2)
  norm_row = Unsqueeze(norm, i1)
  scale = Mul(norm_column, norm_row)
  {COSINE}
  compared_s = Squeeze(compared, i0)
  n0 = Constant<value_int = 0>()
  n1 = Constant<value_int = 1>()
  number = Range(n0, compared_s, n1)
  number_column = Unsqueeze(number, i1)
  itself = Equal(number_column, number)
  padding_row = Unsqueeze(padding, i1)
  no_node = Or(itself, padding_row)
  apart = Or(no_node, unknown)
  margin = Constant<value_float: float = @margin>()
  score = Mul(rounded, step)
"""

_TERM = {
    "elu": """
  alpha = Constant<value_float: float = @alpha>()
  alike = GreaterOrEqual(score, margin)
  over = Sub(score, margin)
  grown = Exp(over)
  grown_less = Sub(grown, f1)
  below = Mul(grown_less, alpha)
  value = Where(alike, score, below)
""",
    "gaussian": """
  width0 = Sub(f1, margin)
  width = Max(width0, step)
  distance = Sub(f1, score)
  z = Div(distance, width)
  z_square = Mul(z, z)
  minus_half = Constant<value_float = -0.5>()
  exponent = Mul(z_square, minus_half)
  value = Exp(exponent)
""",
}

# The mean of ``value`` over the neighbours in whole steps (R8.5; 0/0 where there are none), and from it ``rank [B,
# U]``.
_RANK = """
  value_steps = Mul(value, steps)
  whole = Round(value_steps)
  term = Where(apart, f0, whole)
  kilo = Constant<value_float = 1024.0>()
  kilo_less = Constant<value_float = 0.0009765625>()
  term_less = Mul(term, kilo_less)
  high = Floor(term_less)
  high_steps = Mul(high, kilo)
  low = Sub(term, high_steps)
  high_sum = ReduceSum<keepdims = 0>(high, i2)
  low_sum = ReduceSum<keepdims = 0>(low, i2)
  high_total = Mul(high_sum, kilo)
  total = Add(high_total, low_sum)
  near = Not(apart)
  near_one = Cast<to = 1>(near)
  count = ReduceSum<keepdims = 0>(near_one, i2)
  energy_mean = Div(total, count)
  energy = Round(energy_mean)
  energy_size = Abs(energy)
  no_energy_size = Constant<value_float = 1.0e30>()
  has_energy = Less(energy_size, no_energy_size)
  rank_none = Constant<value_float = -1.0e30>()
  rank_padding = Constant<value_float = 1.0e30>()
  rank_real = Where(has_energy, energy, rank_none)
  rank = Where(padding, rank_padding, rank_real)
"""

# ``order [B, U]``: indices by falling rank. From it A and B, of which B has at least one also where nothing is removed.
_ORDER = """
  position_shape = Shape(position)
  numbers = Expand(number, position_shape)
  order = ScatterElements<axis = 1>(numbers, position, numbers)
  a = Slice(order, i0, chosen, i1, i2)
  last_compared = Sub(compared, i1)
  start_b = Min(i1, last_compared)
  end_b = Max(chosen, i1)
  b = Slice(order, start_b, end_b, i1, i2)
"""

# Every a's best b (R8.8, ranks R4.1): the first in the order of energy whose score is the best. Indices are compared as
# float32.
_PARTNER = f"""
  rank_nan = Constant<value_float = -2097152.0>()
  rank_into_padding = Constant<value_float = -3145728.0>()
  a_rows = Unsqueeze(a, i2)
  b_rows = Unsqueeze(b, i2)
  from_a = GatherND<batch_dims = 1>(rounded, a_rows)
  from_a_turned = Transpose<perm = [0, 2, 1]>(from_a)
  b_to_a = GatherND<batch_dims = 1>(from_a_turned, b_rows)
  found = Transpose<perm = [0, 2, 1]>(b_to_a)
  found_nan = IsNaN(found)
  known = Where(found_nan, rank_nan, found)
  {KEEP_FROM_PADDING}
  count_b = Shape<start = 1, end = 2>(b)
  count_b_s = Squeeze(count_b, i0)
  place_b = Range(n0, count_b_s, n1)
  {best_candidate(3, "place_b")}
  best_b = GatherElements<axis = 1>(b, best_index)
  source = Add(a, first)
  into = Add(best_b, first)
  batch_removed = Concat<axis = 0>(batch, removed)
"""


_TEXT = with_run_time(
    {
        name: HEAD + COUNT + _SCORES + term + _RANK + POSITION + _ORDER + _PARTNER + PLACE + MERGE_ROWS
        for name, term in _TERM.items()
    }
)


def variant(attributes: Mapping[str, int | float]) -> str:
    """Which body a node takes: by what the energy sums."""
    return ENERGIES[int(attributes["energy"])] + run_time_end(attributes)


def body(name: str, opset: int) -> onnx.FunctionProto:
    """The function ``PitomeMerge(x, metric, size) -> (y, size_out, kept, target)`` named by :func:`variant`."""
    return parse_body("PitomeMerge", name, _TEXT[name], opset)
