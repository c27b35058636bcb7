"""From ONNX text syntax to a function of the ``tsmerge`` domain."""

from __future__ import annotations

import onnx
import onnx.parser

from tsmerge_export.ops.operators import schema
from tsmerge_export.ops.schema import DOMAIN, RUN_TIME


def parse_body(op_type: str, overload: str, text: str, opset: int) -> onnx.FunctionProto:
    """Parse the statements of a body; name, inputs, outputs and attributes come from the operator's schema.

    Args:
        op_type: operator of the domain.
        overload: name of this body among the operator's bodies.
        text: node statements in ONNX text syntax.
        opset: version of the standard domain.
    """
    shape = schema(op_type)
    of_run_time = {RUN_TIME.name: int(shape.run_time and overload.endswith(RUN_TIME.name))}
    inputs = ", ".join(value.name for value in shape.inputs_of(of_run_time))
    outputs = ", ".join(value.name for value in shape.outputs)
    attributes = ", ".join(attribute.name for attribute in shape.attributes)
    header = f'<opset_import: ["" : {opset}], domain: "{DOMAIN}">\n{op_type}'
    header += f" <{attributes}>" if attributes else ""
    function = onnx.parser.parse_function(f"{header} ({inputs}) => ({outputs}) {{{text}}}")
    function.overload = overload
    return function
