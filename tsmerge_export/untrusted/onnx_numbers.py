"""Small constants of a graph, of which sizes are put together: read, and computed with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SMALL = 1024  # numbers: constants that say how large something is are smaller
_MOST_NUMBERS = 2**28
# Element types by TensorProto's numbers. 0 is none: unknown.
_DTYPES = {
    1: "f4",
    2: "u1",
    3: "i1",
    4: "u2",
    5: "i2",
    6: "i4",
    7: "i8",
    9: "?",
    11: "f8",
    12: "u4",
    13: "u8",
}
NOT_WHOLE = {1, 8, 10, 11, 14, 15, 16}  # floats, text, complex
_FOLDED: dict[str, Callable[[Any, Any], Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Max": np.maximum, "Min": np.minimum,
}  # fmt: skip


def array_of(tensor: Any) -> NDArray[Any] | None:
    """A small constant."""
    count = math.prod(tensor.dims)
    dtype = _DTYPES.get(tensor.data_type)
    if tensor.data_location or dtype is None or not 0 <= count <= _SMALL:
        return None
    if len(tensor.raw_data):
        found = np.frombuffer(tensor.raw_data, dtype)
    elif dtype[0] == "f" or dtype in ("u4", "u8"):
        return None
    else:
        numbers = tensor.int64_data if dtype == "i8" else tensor.int32_data
        found = np.array([*numbers], np.int64).astype(dtype)
    return found if found.size == count else None


def folded(
    node: Any, attributes: Mapping[str, Any], constants: Mapping[str, NDArray[Any]]
) -> NDArray[Any] | None:
    """Numbers of an output that does not change: sizes are put together from constants.

    Shapes are not kept, so that single numbers alone are computed with.
    """
    if node.op_type == "Constant" and "value_int" in attributes:
        return np.array([attributes["value_int"].i], np.int64)
    if node.op_type == "Constant" and "value_ints" in attributes:
        return np.array([*attributes["value_ints"].ints], np.int64)
    found = [constants[name] for name in node.input if name in constants]
    if not found or (len(found) < len(node.input) and node.op_type not in ("Unsqueeze", "Squeeze")):
        return None
    first = constants.get(node.input[0])
    if node.op_type in ("Identity", "Unsqueeze", "Squeeze"):
        return first
    if node.op_type == "Concat":
        joined = np.concatenate(found)
        return joined if joined.size <= _SMALL else None
    if first is None or first.dtype.kind not in "iu" or any(array.size != 1 for array in found):
        return None
    if node.op_type == "Cast" and attributes["to"].i in (6, 7):
        return first.astype(_DTYPES[attributes["to"].i])
    if node.op_type == "ReduceProd":
        return first
    if node.op_type in _FOLDED:
        value = found[0]
        for other in found[1:]:
            value = _FOLDED[node.op_type](value, other)
        return np.asarray(value)
    return None


def divides(divisor: NDArray[Any] | None) -> bool:
    """Whether nothing goes wrong with it: a lowest number divided by -1 overflows, which ends a process as well."""
    return divisor is not None and divisor.size > 0 and bool(np.all((divisor != 0) & (divisor != -1)))


def large(sizes: NDArray[Any] | None) -> bool:
    """Whether these are sizes of more numbers than a graph has a use for."""
    return sizes is not None and not math.prod(max(abs(float(size)), 1.0) for size in sizes) <= _MOST_NUMBERS
