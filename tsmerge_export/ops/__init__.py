"""The ``tsmerge`` operators: their schemas, and their bodies as ONNX functions of standard operators.

A node ``tsmerge.LocalMerge`` names its body by its ``overload`` (ONNX IR version 10), so that nodes with different
bodies live in one model under one operator name::

    node.overload = ops.variant_key("LocalMerge", attributes)
    model.functions.append(ops.function("LocalMerge", attributes, opset=18))   # once per (op_type, overload)

Attributes such as ``r`` are references in the body: nodes that differ only in them share one function.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

import tsmerge_export.methods.dynamic.operator as _dynamic_merge
import tsmerge_export.methods.local.operator as _local_merge
import tsmerge_export.methods.pitome.operator as _pitome_merge
import tsmerge_export.methods.ssm.operator as _ssm_merge
import tsmerge_export.ops.distance_plane as _distance_plane
import tsmerge_export.ops.gather_pairs as _gather_pairs
import tsmerge_export.ops.unmerge as _unmerge
from tsmerge_export.ops.schema import DOMAIN, SCHEMAS, VERSION, Schema, attributes_of, merge_op_types, schema

__all__ = [
    "DOMAIN",
    "MIN_IR_VERSION",
    "SCHEMAS",
    "VERSION",
    "Schema",
    "attributes_of",
    "function",
    "merge_op_types",
    "schema",
    "variant_key",
]

#: Function overloads need this IR version of the model.
MIN_IR_VERSION = 10

_BODIES = {
    "LocalMerge": _local_merge,
    "DynamicMerge": _dynamic_merge,
    "PitomeMerge": _pitome_merge,
    "SsmMerge": _ssm_merge,
    "Unmerge": _unmerge,
    "GatherPairs": _gather_pairs,
    "DistancePlane": _distance_plane,
}


def variant_key(op_type: str, attributes: Mapping[str, int | float]) -> str:
    """Name of the body that a node with these attributes needs: the ``overload`` of node and function.

    Args:
        op_type: operator of the domain.
        attributes: the node's attributes, all of them.

    Raises:
        UnsupportedError: unknown operator. UsageError: attributes missing, unknown or out of range.
    """
    schema(op_type).check(attributes)
    return _BODIES[op_type].variant(attributes)


def function(op_type: str, attributes: Mapping[str, int | float], *, opset: int = 18) -> onnx.FunctionProto:
    """The body of a node with these attributes, in standard operators, for any element type of the schema.

    Args:
        op_type: operator of the domain.
        attributes: the node's attributes; of them only what :func:`variant_key` shows is fixed in the body.
        opset: version of the standard domain that the function imports, 18 or higher; use the model's.

    Returns:
        A function of domain ``tsmerge``, named ``op_type``, with :func:`variant_key` as overload.

    Raises:
        UnsupportedError: unknown operator. UsageError: attributes missing, unknown or out of range.
    """
    return _BODIES[op_type].body(variant_key(op_type, attributes), opset)
