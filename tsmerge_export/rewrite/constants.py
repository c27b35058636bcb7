"""What is known of a value before the graph runs: constants, and indices that come from a Range."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

# Operators that move or repeat the entries of an index, or change its type.
_INDEX_CHAIN = {"Unsqueeze", "Squeeze", "Reshape", "Identity", "Cast", "Expand", "Transpose"}
_MAX_DEPTH = 24


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The value of a constant input, or None where it is computed at run time."""
    if value is None:
        return None
    if value.const_value is not None:
        return np.asarray(value.const_value.numpy())
    producer = value.producer()
    if producer is not None and producer.op_type == "Constant" and "value" in producer.attributes:
        return np.asarray(producer.attributes["value"].as_tensor().numpy())
    return None


def scalar(value: ir.Value | None) -> float | None:
    """The number in a constant of one element."""
    array = constant(value)
    return None if array is None or array.size != 1 else float(array.reshape(()))


def range_behind(value: ir.Value | None) -> ir.Node | None:
    """The Range whose entries, and no others, a value holds; None where there is none, or others may be."""
    for _ in range(_MAX_DEPTH):
        producer = value.producer() if value is not None else None
        if producer is None or producer.op_type == "Range":
            return producer
        if producer.op_type not in _INDEX_CHAIN:
            return None
        value = producer.inputs[0]
    return None
