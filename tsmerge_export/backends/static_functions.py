"""The functions of a file with static shapes: lengths follow from shapes, as :mod:`tsmerge_export.ops.static` says.

For runtimes that plan lengths beforehand, and for files of one shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from tsmerge_export import ops
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.ops.static import static_body
from tsmerge_export.settings import registry

#: The merge that has a body of static shapes, and may be a plugin instead.
_MERGE = "LocalMerge"


@dataclass(frozen=True)
class Wanted:
    """Why a file must have static shapes: words of a refusal.

    Attributes:
        plans: behind "but": who must know lengths. form: behind "has no form". otherwise: what to do instead.
    """

    plans: str
    form: str
    otherwise: str


#: What no TensorRT runtime can take.
ENGINES = Wanted("TensorRT plans lengths from shapes", "for TensorRT", "use --runtime onnxruntime")


def check_supported(model: onnx.ModelProto, wanted: Wanted = ENGINES) -> None:
    """Raise UnsupportedError for a merging operator that has no body of static shapes."""
    able = registry.able(lambda one: one.static)
    for node in model.graph.node:
        if node.domain != ops.DOMAIN:
            continue
        schema = ops.schema(node.op_type)
        if schema.data_dependent:
            raise UnsupportedError(
                f"{node.op_type}: how many tokens stay follows from the data, but {wanted.plans}; "
                f"use --merge {able}, or {wanted.otherwise}"
            )
        if ops.attributes_of(node).get("run_time"):
            raise UnsupportedError(
                f"{node.op_type}: its ratio is chosen at run time, but {wanted.plans}; export with "
                f"a ratio such as 1/4, or {wanted.otherwise}"
            )
        if schema.merges and node.op_type != _MERGE:
            raise UnsupportedError(
                f"{node.op_type} has no form {wanted.form}; use --merge {able}, or {wanted.otherwise}"
            )


def static_functions(model: onnx.ModelProto, *, merge: bool, wanted: Wanted = ENGINES) -> onnx.ModelProto:
    """A copy whose ``tsmerge`` functions have static shapes; still functions, so that ONNX Runtime runs it.

    Args:
        model: the portable file, with functions.
        merge: also those of LocalMerge; else it keeps its portable ones.
        wanted: why, for a refusal.

    Raises:
        UnsupportedError: see :func:`check_supported`; or the functions are inlined already.
    """
    check_supported(model, wanted)
    out = onnx.ModelProto()
    out.CopyFrom(model)
    opset = next(entry.version for entry in out.opset_import if entry.domain in ("", "ai.onnx"))
    have = {(function.name, function.overload) for function in out.functions}
    for node in out.graph.node:
        if node.domain != ops.DOMAIN or (node.op_type == _MERGE and not merge):
            continue
        body = static_body(node.op_type, ops.attributes_of(node), opset)
        if body is None:
            continue
        node.overload = body.overload
        if (body.name, body.overload) not in have:
            have.add((body.name, body.overload))
            out.functions.append(body)
    used = {(node.op_type, node.overload) for node in out.graph.node if node.domain == ops.DOMAIN}
    kept = [function for function in out.functions if (function.name, function.overload) in used]
    del out.functions[:]
    out.functions.extend(kept)
    return out
