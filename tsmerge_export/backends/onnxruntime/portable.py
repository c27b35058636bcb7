"""Portable lowering: every ``tsmerge`` operator gets a model-local function of standard ONNX operators.

ONNX Runtime, onnxruntime-web and TensorRT-RTX expand such functions themselves. OpenVINO does not: for it the functions
are inlined.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx import inliner

from tsmerge_export import ops


def to_portable(model: ir.Model, *, inline: bool = False) -> onnx.ModelProto:
    """Give the abstract operators of a rewritten model their bodies.

    Args:
        model: from the rewriter; it is not changed.
        inline: write the bodies in place of the nodes; the file then has no functions and no domain ``tsmerge``.

    Returns:
        A complete model.
    """
    proto = ir.to_proto(model)
    _add_functions(proto)
    return inliner.inline_local_functions(proto) if inline else proto


def _add_functions(proto: onnx.ModelProto) -> None:
    opset = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    known = set()
    for node in proto.graph.node:
        if node.domain != ops.DOMAIN:
            continue
        attributes = ops.attributes_of(node)
        node.overload = ops.variant_key(node.op_type, attributes)
        key = (node.op_type, node.overload)
        if key not in known:
            known.add(key)
            proto.functions.append(ops.function(node.op_type, attributes, opset=opset))
    if not known:
        return
    proto.ir_version = max(proto.ir_version, ops.MIN_IR_VERSION)
    if all(entry.domain != ops.DOMAIN for entry in proto.opset_import):
        proto.opset_import.append(onnx.helper.make_opsetid(ops.DOMAIN, ops.VERSION))
