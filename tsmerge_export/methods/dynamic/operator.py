"""Bodies of ``tsmerge.DynamicMerge`` in standard ONNX operators (opset 18 and later).

Specification: :mod:`tsmerge_export.methods.dynamic.reference`. All but the count r is in
:mod:`tsmerge_export.methods.pairs_onnx`. Ranks and threshold are whole numbers of steps of 2^-20 in float32, so the
count is exact on every runtime.
"""

from __future__ import annotations

import onnx

from tsmerge_export.methods.pairs_onnx import CAUSAL, SIMILARITY, K, bodies, causal_is_near, variant
from tsmerge_export.ops.schema import BOUNDS, MERGED, TOKENS, Attribute, Schema
from tsmerge_export.ops.text import parse_body

__all__ = ["SCHEMA", "body", "variant"]

SCHEMA = Schema(
    op_type="DynamicMerge",
    inputs=TOKENS,
    outputs=MERGED,
    attributes=(
        K,
        Attribute("threshold", "similarity, compared in whole steps of 2^-20", least=-1, most=1, real=True),
        *BOUNDS,
        SIMILARITY,
        CAUSAL,
    ),
    doc="Dynamic token merging, arXiv 2405.17951, section 3: as LocalMerge, but r is the mean over the batch of how "
    "many ranks exceed the threshold, rounded down, at most (N - protect_first - protect_last)//2 and N - min_tokens.",
    merges=True,
    data_dependent=True,
    rules=(causal_is_near,),
)


#: R7.2: ``limit``, above which ranks count. Float32 sums may put the cosine of equal tokens a step or two above 1; at a
#: threshold of 1 only padding may count.
LIMIT = """
  threshold = Constant<value_float: float = @threshold>()
  threshold_finer = Mul(threshold, steps)
  threshold_steps = Round(threshold_finer)
  at_top = GreaterOrEqual(threshold_steps, steps)
  above_cosines = Constant<value_float = 1572864.0>()
  limit = Where(at_top, above_cosines, threshold_steps)
"""

# The cap of r, from the length alone: where it is 0 nothing is compared.
_CAP = """
  most = Min(pairs, spare_least)
  some = Min(most, i1)
"""

# R7.3: r is the mean count over the rows. A batch of none has no mean; nothing is removed there. Where r is 0 no
# rank is left for the choice, as where nothing was compared.
_COUNT = f"""
  {LIMIT}
  exceeds = Greater(rank, limit)
  exceeds_one = Cast<to = 7>(exceeds)
  rows_and_columns = Constant<value_ints = [0, 1]>()
  exceeding_s = ReduceSum<keepdims = 0>(exceeds_one, rows_and_columns)
  exceeding = Unsqueeze(exceeding_s, i0)
  rows = Max(batch, i1)
  mean_count = Div(exceeding, rows)
  removed = Min(mean_count, most)
  left = Sub(tokens, removed)
  any_removed = Min(removed, i1)
  rank_count = Shape<start = 1, end = 2>(rank)
  choice_count = Mul(rank_count, any_removed)
  choice = Slice(rank, i0, choice_count, i1)
"""

_TEXT = bodies(_CAP, _COUNT, rank="choice", some="any_removed")


def body(name: str, opset: int) -> onnx.FunctionProto:
    """The function ``DynamicMerge(x, metric, size) -> (y, size_out, kept, target)`` named by :func:`variant`."""
    return parse_body("DynamicMerge", name, _TEXT[name], opset)
