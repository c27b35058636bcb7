"""Local merging: near tokens that are alike (arXiv 2405.17951, section 3)."""

from tsmerge_export.methods.options import AMOUNT, SIMILARITY, K, check_amount
from tsmerge_export.settings.method import MethodSpec

METHOD = MethodSpec(
    name="local",
    source="arXiv 2405.17951",
    keeps="all but the r most similar pairs of near tokens (k pairs apart at most), order",
    cost="linear for k up to 32, then quadratic",
    reference="tsmerge_export.methods.local.reference:LocalMethod",
    operator="tsmerge_export.methods.local.operator",
    op_type="LocalMerge",
    options=(K, *AMOUNT, SIMILARITY),
    rules=(check_amount,),
    static=True,
    run_time=True,
    causal=True,
    guesses=({"ratio": "1/10"}, {"ratio": "1/4"}, {"ratio": "1/2"}),
)
