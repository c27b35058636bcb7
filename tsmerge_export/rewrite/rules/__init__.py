"""Transfer rules per operator. One without a rule is a barrier: its inputs are unmerged first, and it is reported."""

from tsmerge_export.rewrite.rules import compute, layout, shapes
from tsmerge_export.rewrite.rules.core import RULES, Barrier, Context, Ends, Outcome

__all__ = ["RULES", "Barrier", "Context", "Ends", "Outcome", "compute", "layout", "shapes"]
