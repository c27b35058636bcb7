"""Bodies of ``tsmerge.LocalMerge`` in standard ONNX operators (opset 18 and later).

Specification: :mod:`tsmerge_export.methods.local.reference`. Its bodies are those of
:mod:`tsmerge_export.methods.pairs_onnx`.
"""

from __future__ import annotations

import onnx

from tsmerge_export.methods.local.static import static_body
from tsmerge_export.methods.pairs_onnx import CAUSAL, SIMILARITY, K, bodies, causal_is_near, variant
from tsmerge_export.ops.parts import REMOVED, with_run_time
from tsmerge_export.ops.schema import AMOUNT, BOUNDS, MERGED, RATIO, RUN_TIME, TOKENS, Schema, one_amount
from tsmerge_export.ops.text import parse_body

__all__ = ["SCHEMA", "body", "static_body", "variant"]

SCHEMA = Schema(
    op_type="LocalMerge",
    inputs=TOKENS,
    outputs=MERGED,
    attributes=(K, *AMOUNT, *BOUNDS, SIMILARITY, CAUSAL, RUN_TIME),
    doc="Local token merging, arXiv 2405.17951, section 3. r(N) = min(r + N*ratio_num//ratio_den, "
    "(N - protect_first - protect_last)//2, N - min_tokens), at least 0: a function of N alone.",
    merges=True,
    shares=(RATIO,),
    rules=(causal_is_near, one_amount),
    run_time=True,
)

#: r(N) follows from the length alone: with r(N) = 0 nothing is compared.
_TEXT = with_run_time(bodies(REMOVED))


def body(name: str, opset: int) -> onnx.FunctionProto:
    """The function ``LocalMerge(x, metric, size) -> (y, size_out, kept, target)`` named by :func:`variant`."""
    return parse_body("LocalMerge", name, _TEXT[name], opset)
