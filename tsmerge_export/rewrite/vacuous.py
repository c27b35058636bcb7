"""Finds axes along which a value only repeats itself, such as the query axis of an expanded padding mask."""

from __future__ import annotations

import onnx_ir as ir

from tsmerge_export.rewrite.dims import dims

# Elementwise operators with broadcasting; Expand broadcasts its data operand alike.
_BROADCASTING = {
    "Add", "And", "Cast", "CastLike", "Div", "Equal", "Expand", "Greater", "GreaterOrEqual", "Identity", "Less",
    "LessOrEqual", "Max", "Min", "Mul", "Neg", "Not", "Or", "Pow", "Sub", "Where", "Xor",
}  # fmt: skip
_INDEX_CHAIN = {"Unsqueeze", "Squeeze", "Reshape", "Identity", "Cast", "Expand", "Transpose"}
_MAX_DEPTH = 24


def _scalar(value: ir.Value | None) -> float | None:
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    return float(value.const_value.numpy().reshape(()))


def _is_index(value: ir.Value | None) -> bool:
    """Whether a value holds entries of ``Range(start >= 0, _, step > 0)``, all of them at least 0."""
    for _ in range(_MAX_DEPTH):
        producer = value.producer() if value is not None else None
        if producer is None:
            return False
        if producer.op_type == "Range":
            start, step = _scalar(producer.inputs[0]), _scalar(producer.inputs[2])
            return start is not None and step is not None and start >= 0 and step > 0
        if producer.op_type not in _INDEX_CHAIN:
            return False
        value = producer.inputs[0]
    return False


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
    if value.const_value is not None:
        return bool(value.const_value.size == 1)
    producer = value.producer()
    if producer is None or producer.domain != "" or producer.op_type not in _BROADCASTING:
        return False
    if (
        producer.op_type == "GreaterOrEqual"
        and _is_index(producer.inputs[0])
        and _scalar(producer.inputs[1]) == 0
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
