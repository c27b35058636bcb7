"""A merging method outside tsmerge-export: of neighbouring tokens, the quietest pairs merge."""

from tsmerge_export.methods.options import AMOUNT, check_amount
from tsmerge_export.settings.method import MethodSpec
from tsmerge_export.settings.option import Option, Span
from tsmerge_export.settings.parse import number

LATER = Option(
    "later",
    "W",
    "how much the later token of a pair counts, 0 to 100, or one for each layer; default: 1",
    lambda value: number("--later", value, 0, 100),
    per_layer=True,
    default=1.0,
    search=Span(0.5, 2.0, 0.5, guess=1.0),
)

METHOD = MethodSpec(
    name="quiet",
    source="an example",
    keeps="all but the r pairs of neighbours of least absolute sum, order",
    cost="linear",
    reference="example_method.reference:QuietMethod",
    operator="example_method.operator",
    op_type="QuietMerge",
    options=(*AMOUNT, LATER),
    rules=(check_amount,),
)
