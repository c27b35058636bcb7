"""Similarities that are measured by the largest norm of a row, in ONNX text syntax: l2 and dot.

Specification: :mod:`tsmerge_export.methods.similarity`, R3.2 to R3.7. They pass over the metric of all
unprotected tokens, for the largest squared norm among the real ones; sums of squares are not taken twice where the
pairs can be cut out of it.
"""

from __future__ import annotations

#: ``free32 [B, U, Dm]``, the metric of the unprotected tokens, ``free_square [B, U]`` and ``largest [B, 1]``, the
#: largest finite squared norm of a real one, 0 if there is none. U is 0 where ``some`` is.
LENGTHS = """
  finite_most = Constant<value_float = 3.4028234e38>()
  free_compared = Mul(free_least, some)
  free_start = Add(first, i0)
  free_end = Add(free_start, free_compared)
  free_raw = Slice(metric, free_start, free_end, i1)
  free32 = Cast<to = 1>(free_raw)
  free_products = Mul(free32, free32)
  free_square = ReduceSum<keepdims = 0>(free_products, i2)
  free_size = Slice(size, free_start, free_end, i1)
  free_real = Greater(free_size, f0)
  free_finite = LessOrEqual(free_square, finite_most)
  free_counts = And(free_real, free_finite)
  free_known = Where(free_counts, free_square, f0)
  batch_one = Concat<axis = 0>(batch, i1)
  no_square = Expand(f0, batch_one)
  squares_or_none = Concat<axis = 1>(no_square, free_known)
  largest = ReduceMax<keepdims = 1>(squares_or_none, i1)
"""

_NUMERATOR = {
    "l2": """
  a_half = Constant<value_float = 0.5>()
  half_a = Mul(square_a, a_half)
  half_b = Mul(square_b, a_half)
  dot_less_a = Sub(dot, half_a)
  numerator = Sub(dot_less_a, half_b)
""",
    "dot": """
  numerator = Identity(dot)
""",
}

_SIMILARITY = {
    "l2": """
  f1 = Constant<value_float = 1.0>()
  similarity_value = Add(share_known, f1)
""",
    "dot": """
  similarity_value = Identity(share_known)
""",
}


def scores_by_length(similarity: str, rank: int, name: str) -> str:
    """Leaves the scores ``name``, in whole steps, where not a number ``rank_nan``.

    Reads LENGTHS, ``dot`` of ``rank`` axes, and ``square_a`` and ``square_b`` that broadcast to it.
    """
    axes = ", ".join(str(axis) for axis in range(2, rank))
    scale = f"  new_axes = Constant<value_ints = [{axes}]>()\n  scale = Unsqueeze(largest, new_axes)\n"
    return f"""
  {scale if rank > 2 else "  scale = Identity(largest)"}
  {_NUMERATOR[similarity]}
  no_scale = Equal(scale, f0)
  quotient = Div(numerator, scale)
  share_known = Where(no_scale, f0, quotient)
  {_SIMILARITY[similarity]}
  finer = Mul(similarity_value, steps)
  rounded = Round(finer)
  minus_steps = Neg(steps)
  clipped = Clip(rounded, minus_steps, steps)
  finite_a = LessOrEqual(square_a, finite_most)
  finite_b = LessOrEqual(square_b, finite_most)
  finite_pair = And(finite_a, finite_b)
  {name} = Where(finite_pair, clipped, rank_nan)
"""
