"""Dims that an exporter left unknown, measured: the graph is run at several sizes and those values are looked at.

What an exporter notes hangs on its version and on how a module is written. The rewriter compares dims by name, so that
a measured one gets the name of the one that it grows like: of an input's, or of another value's.
"""

from __future__ import annotations

import onnx_ir as ir
from torch import nn

from tsmerge_export.families.base import Arrays, Component
from tsmerge_export.inspection.measure import Lengths, every_value, shape_of
from tsmerge_export.rewrite.dims import all_values, dims

# Batch and steps of the runs: no two share a number, and none is large, since values of [B, H, N, N] are kept.
_SIZES = ((3, 203), (2, 37), (4, 120), (5, 301))
# Steps that are run besides where two names part there and at none before, as where a context cuts what is longer.
_FURTHER = (640, 1_500, 3_000, 6_000, 12_000)


def fill_dims(model: ir.Model, component: Component, module: nn.Module) -> None:
    """Note a dtype and dims on every value of the main graph that lacks them, in place.

    Args:
        model: plain export of ``component``; the dims of its inputs carry the names of the component's specs.
        module: the family's original, which the component makes example inputs for.
    """
    unknown = {
        value.name: value
        for node in model.graph
        for value in node.outputs
        if value.name and (value.dtype is None or None in (dims(value) or [None]))
    }
    if not unknown:
        return
    names = _names(model, component)
    feeds = [component.example(module, *size, seed=turn) for turn, size in enumerate(_SIZES)]
    sizes = [_sizes(component, feed) for feed in feeds]
    for length in _FURTHER:
        feed = component.example(module, *(2, length))
        more = _sizes(component, feed)
        if _groups(names, [*sizes, more]) > _groups(names, sizes):
            feeds.append(feed)
            sizes.append(more)
    known: dict[Lengths, str] = {}
    for name in names:
        known.setdefault(_grown(name, sizes), name)
    try:
        run = every_value(ir.to_proto(model), names=list(unknown))
        seen = [run(feed) for feed in feeds]
    except Exception:  # one of many types; that the graph does not run is found, and said, where it is proved
        return
    for name, value in unknown.items():
        arrays = [found[name] for found in seen]
        measured = shape_of([getattr(array, "shape", None) for array in arrays], known)
        if measured is None:
            continue
        value.dtype = value.dtype or ir.DataType.from_numpy(arrays[0].dtype)
        noted = dims(value) or [None] * len(measured)
        # A dim that is noted stays: it was derived for all sizes, not for these.
        value.shape = ir.Shape(
            [new if old is None else old for old, new in zip(noted, measured, strict=True)]
        )


def _names(model: ir.Model, component: Component) -> list[str]:
    """Every symbolic dim that the graph notes and the sizes of the inputs give, those of the inputs first."""
    inputs = {dim for spec in component.inputs for dim in spec.dims if isinstance(dim, str)}
    noted = (dim for value in all_values(model) for dim in dims(value) or [] if isinstance(dim, str))
    found = dict.fromkeys(
        [*(dim for spec in component.inputs for dim in spec.dims if isinstance(dim, str)), *noted]
    )
    return [dim for dim in found if ir.SymbolicDim(dim).free_symbols() <= inputs]


def _sizes(component: Component, feed: Arrays) -> dict[str, int]:
    """The named dims of the component's inputs in one feed."""
    return {
        dim: int(feed[spec.name].shape[axis])
        for spec in component.inputs
        for axis, dim in enumerate(spec.dims)
        if isinstance(dim, str)
    }


def _grown(name: str, sizes: list[dict[str, int]]) -> Lengths:
    """What a symbolic dim is at each of the sizes."""
    found = (ir.SymbolicDim(name).evaluate(own) for own in sizes)
    return tuple(size if isinstance(size, int) else 0 for size in found)


def _groups(names: list[str], sizes: list[dict[str, int]]) -> int:
    """How many names differ somewhere."""
    return len({_grown(name, sizes) for name in names})
