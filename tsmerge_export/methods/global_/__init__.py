"""Bipartite soft matching (ToMe, arXiv 2210.09461, section 3): local merging with every token in reach."""

from tsmerge_export.methods.options import AMOUNT, SIMILARITY, check_amount
from tsmerge_export.settings.method import MethodSpec

METHOD = MethodSpec(
    name="global",
    source="ToMe, arXiv 2210.09461",
    keeps="all but the r of every second token that are most similar to any of the others, order",
    cost="quadratic",
    reference="tsmerge_export.methods.global_.reference:GlobalMethod",
    operator="tsmerge_export.methods.local.operator",
    op_type="LocalMerge",
    options=(*AMOUNT, SIMILARITY),
    rules=(check_amount,),
    static=True,
    run_time=True,
)
