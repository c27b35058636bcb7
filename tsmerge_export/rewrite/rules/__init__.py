"""Transfer rules per operator. One without a rule is a barrier: its inputs are unmerged first, and it is reported."""

from tsmerge_export.rewrite.rules import compute, layout, shapes
from tsmerge_export.rewrite.rules.core import RULES, Barrier, Context, Ends, Outcome

FOR_FOLDED = {
    compute.unary,
    compute.broadcasting,
    compute.matmul,
    compute.gemm,
    compute.normalization,
    shapes.reshape,
}
"""Rules that hold where tokens and batch share an axis: what they do, they do for each entry of it alone."""

__all__ = ["FOR_FOLDED", "RULES", "Barrier", "Context", "Ends", "Outcome", "compute", "layout", "shapes"]
