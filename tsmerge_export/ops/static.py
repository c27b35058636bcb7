"""Bodies for runtimes without shapes that follow from values: no NonZero, no If, no scatter with a reduction.

TensorRT-RTX parses no NonZero and no ScatterElements with ``reduction``, and TensorRT plans memory from shapes alone.
In these bodies every shape follows from N. A function has the same name, inputs and outputs as its portable twin.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from tsmerge_export.ops.operators import operator

#: TensorRT's TopK takes at most so many; the r best are found by it.
TOPK_MOST = 3840

#: Appended to the overload of the portable body.
SUFFIX = "static"


def static_body(op_type: str, attributes: Mapping[str, int | float], opset: int) -> onnx.FunctionProto | None:
    """The body of a node for TensorRT, in standard operators; None where the portable one has no such shapes already.

    Args:
        op_type, attributes: of a node that the schema accepts. opset: of the model.
    """
    made = getattr(operator(op_type), "static_body", None)
    found: onnx.FunctionProto | None = None if made is None else made(attributes, opset)
    return found
