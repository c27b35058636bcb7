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

from tsmerge_export.ops.operators import SCHEMAS, merge_op_types, operator, schema
from tsmerge_export.ops.schema import DOMAIN, VERSION, Schema, attributes_of

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


def variant_key(op_type: str, attributes: Mapping[str, int | float]) -> str:
    """Name of the body that a node with these attributes needs: the ``overload`` of node and function.

    Args:
        op_type: operator of the domain.
        attributes: the node's attributes, all of them.

    Raises:
        UnsupportedError: unknown operator. UsageError: attributes missing, unknown or out of range.
    """
    found = operator(op_type)
    found.SCHEMA.check(attributes)
    return found.variant(attributes)


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
    return operator(op_type).body(variant_key(op_type, attributes), opset)
