"""Finds values that are the number of tokens, where that is an expression of the input's length: a number of patches.

An exporter writes ``(length + 7) // 8`` from the length of the input, wherever a block asks for its number of tokens.
Behind a merge that arithmetic would still give the old number. Which values hold it is found by computing them, and the
expression, for a few lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from tsmerge_export.rewrite.constants import constant
from tsmerge_export.rewrite.dims import Dim, dims

_PROBES = 8
_Array = np.ndarray
# Of whole numbers. ONNX divides towards zero; Mod takes the sign of its divisor.
_ARITHMETIC: Mapping[str, Callable[..., _Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": lambda a, b: np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)),
    "Mod": np.mod,
    "Neg": np.negative,
    "Min": lambda *values: np.minimum.reduce(np.broadcast_arrays(*values)),
    "Max": lambda *values: np.maximum.reduce(np.broadcast_arrays(*values)),
    "Identity": lambda a: a,
    "Cast": lambda a: a,
    "Squeeze": lambda a, *_axes: a.reshape(()) if a.size == 1 else a,
    "Unsqueeze": lambda a, *_axes: a.reshape((1,)) if a.size == 1 else a,
    "Reshape": lambda a, shape: a.reshape(shape.astype(int)),
}


def symbols_of(dim: Dim) -> frozenset[str]:
    """The symbols that a dim follows from."""
    return ir.SymbolicDim(dim).free_symbols() if isinstance(dim, str) else frozenset()


def token_counts(graph: ir.Graph, tokens: str) -> set[ir.Value]:
    """Whole numbers (of no axis, or one of length 1) that equal the dim ``tokens`` at all lengths.

    Args:
        graph: dims known on every value, nodes in topological order.
    """
    rng = np.random.default_rng(0)
    candidates: set[ir.Value] | None = None
    for _ in range(_PROBES):
        known = _Computed(rng)
        want = known.dim(tokens)
        found = {
            value
            for node in graph
            for value in node.outputs
            if value.dtype == ir.DataType.INT64 and known.is_number(value, want)
        }
        candidates = found if candidates is None else candidates & found
    return candidates or set()


class _Computed:
    """Values of shape arithmetic for one choice of all lengths."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._lengths: dict[str, int] = {}
        self._values: dict[ir.Value, _Array | None] = {}

    def dim(self, dim: Dim) -> int | None:
        """The size of a dim."""
        if not isinstance(dim, str):
            return dim
        for symbol in sorted(symbols_of(dim)):
            self._lengths.setdefault(symbol, int(self._rng.integers(1, 5000)))
        size = ir.SymbolicDim(dim).evaluate(self._lengths)
        return size if isinstance(size, int) else None

    def is_number(self, value: ir.Value, want: int | None) -> bool:
        """Whether a value is a single number, this one."""
        array = self._value(value)
        return array is not None and array.ndim < 2 and array.size == 1 and want == int(array.reshape(()))

    def _value(self, value: ir.Value | None) -> _Array | None:
        if value is None:
            return None
        if value not in self._values:
            self._values[value] = self._compute(value)
        return self._values[value]

    def _compute(self, value: ir.Value) -> _Array | None:
        fixed, node = constant(value), value.producer()
        if fixed is not None or node is None or node.domain not in ("", "ai.onnx"):
            return fixed
        if node.op_type == "Shape":
            shape = None if node.inputs[0] is None else dims(node.inputs[0])
            sizes = None if shape is None else [self.dim(dim) for dim in shape]
            if sizes is None or None in sizes:
                return None
            start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(sizes))
            return np.array(sizes, np.int64)[start:end]
        operation = _ARITHMETIC.get(node.op_type)
        if operation is None:
            return None
        inputs = [self._value(item) for item in node.inputs]
        try:
            return None if any(item is None for item in inputs) else np.asarray(operation(*inputs))
        except (ValueError, ZeroDivisionError):  # not shape arithmetic
            return None
