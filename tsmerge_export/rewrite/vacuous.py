"""Finds axes along which a value only repeats itself, such as the query axis of an expanded padding mask."""

from __future__ import annotations

import onnx_ir as ir

from tsmerge_export.rewrite.constants import constant, range_behind, scalar
from tsmerge_export.rewrite.dims import dims

# Elementwise operators with broadcasting; Expand broadcasts its data operand alike.
_BROADCASTING = {
    "Add", "And", "Cast", "CastLike", "Div", "Equal", "Expand", "Greater", "GreaterOrEqual", "Identity", "Less",
    "LessOrEqual", "Max", "Min", "Mul", "Neg", "Not", "Or", "Pow", "Sub", "Where", "Xor",
}  # fmt: skip
_MAX_DEPTH = 24


def _is_index(value: ir.Value | None) -> bool:
    """Whether a value holds entries of ``Range(start >= 0, _, step > 0)``, all of them at least 0."""
    found = range_behind(value)
    if found is None:
        return False
    start, step = scalar(found.inputs[0]), scalar(found.inputs[2])
    return start is not None and step is not None and start >= 0 and step > 0


def is_vacuous(value: ir.Value, axis: int, depth: int = 0) -> bool:
    """Whether ``value`` is proved to be the same at every index of ``axis`` (False: not proved).

    Args:
        value: of known dims. axis: 0 <= axis < rank.
    """
    shape = dims(value)
    if shape is None or depth > _MAX_DEPTH:
        return False
    if shape[axis] == 1:
        return True
    known = constant(value)
    if known is not None:
        return bool(known.size == 1)
    producer = value.producer()
    if producer is None or producer.domain != "" or producer.op_type not in _BROADCASTING:
        return False
    if (
        producer.op_type == "GreaterOrEqual"
        and _is_index(producer.inputs[0])
        and scalar(producer.inputs[1]) == 0
    ):
        return True  # torch's mask factory compares positions with 0: always true
    operands = producer.inputs[:1] if producer.op_type in ("Expand", "CastLike") else producer.inputs
    for operand in operands:
        found = dims(operand) if operand is not None else None
        if operand is None or found is None:
            return False
        own = axis - (len(shape) - len(found))  # broadcasting aligns trailing axes
        if own >= 0 and not is_vacuous(operand, own, depth + 1):
            return False
    return True
