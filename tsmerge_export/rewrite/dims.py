"""Symbolic dims of an onnx-ir graph: reading, comparing and renaming them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir

Dim = int | str | None


def dims(value: ir.Value) -> list[Dim] | None:
    """The dims of a value: numbers, symbol names, None where unknown; None when not even the rank is known."""
    if value.shape is None:
        return None
    return [dim.value if isinstance(dim, ir.SymbolicDim) else int(dim) for dim in value.shape]


def all_values(model: ir.Model) -> Iterator[ir.Value]:
    """Every value of the main graph: inputs, initializers and node outputs."""
    yield from model.graph.inputs
    yield from model.graph.initializers.values()
    for node in model.graph:
        yield from node.outputs


def rename_dims(model: ir.Model, rename: Callable[[str], str]) -> None:
    """Apply ``rename`` to every symbolic dim of the main graph."""
    for value in all_values(model):
        found = dims(value)
        if found is not None and any(isinstance(dim, str) for dim in found):
            value.shape = ir.Shape([rename(dim) if isinstance(dim, str) else dim for dim in found])
