"""Fills in the dtypes and dims that a file lacks: the walk needs both on every value."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from tsmerge_export.console.quiet import quiet
from tsmerge_export.errors import MissingDependencyError, UnsupportedError
from tsmerge_export.rewrite.dims import dims


def has_shapes(model: ir.Model) -> bool:
    """Whether every node output has a dtype and a rank."""
    return all(
        value.dtype is not None and dims(value) is not None
        for node in model.graph
        for value in node.outputs
        if value.name and value.uses()
    )


def infer_shapes(model: ir.Model) -> ir.Model:
    """The model itself where its shapes are known, else a copy with them inferred.

    ONNX Runtime's symbolic inference follows shape arithmetic; onnx's own loses dims behind a computed Reshape.

    Raises:
        UnsupportedError: inference fails.
    """
    if has_shapes(model):
        return model
    try:
        from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference
    except ImportError as error:
        raise MissingDependencyError("inferring shapes needs sympy; run: pip install sympy") from error
    # It reads only one of the forms that a Constant node can have.
    lifted = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model.clone()).model
    proto = ir.to_proto(lifted)
    try:
        with quiet("onnxruntime.tools.symbolic_shape_infer"):
            inferred = SymbolicShapeInference.infer_shapes(proto, auto_merge=True)
    except Exception as error:  # it raises many types; each means that the graph's shapes stay unknown
        raise UnsupportedError(
            f"shape inference fails on this graph: {str(error).splitlines()[0]}"
        ) from error
    return ir.from_proto(inferred)
