"""Dtypes and dims of every value of a graph, measured: the graph is run at several sizes and its values are looked at.

Noted shapes are missing in many files and wrong in some, and inference by rules loses dims behind computed shapes. A
dim that is the same in every run, of short lengths too, is a number; dims that grow alike are one symbol. The inputs'
own names come first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.families.base import Arrays, TensorSpec
from tsmerge_export.inspection.feeds import Input, Sizes, make

#: How long a dim is in each of several runs.
Lengths = tuple[int, ...]


def every_value(
    model: onnx.ModelProto, threads: int | None = None, names: Sequence[str] | None = None
) -> Callable[[Arrays], dict[str, Any]]:
    """Runs a graph and returns every value that a node of its main graph computes, or those named, by name."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    if names is None:
        names = list(dict.fromkeys(name for node in model.graph.node for name in node.output if name))
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_session(copy, threads, level=ort.GraphOptimizationLevel.ORT_DISABLE_ALL)

    def run(feeds: Arrays) -> dict[str, Any]:
        return dict(zip(names, session.run(names, feeds), strict=True))

    return run


def measure(
    model: onnx.ModelProto, inputs: Sequence[Input], sizes: Sequence[Sizes], given: Arrays | None = None
) -> tuple[ir.Model, tuple[TensorSpec, ...]]:
    """Run and write down.

    Args:
        model: not changed. inputs, sizes: see :mod:`.sizes`. given: the user's example, instead of the first sizes.

    Returns:
        The graph with dtype and dims on every value, and the specs of its outputs.

    Raises:
        UnsupportedError: an output is no tensor of fixed rank.
    """
    run = every_value(model)
    shapes: dict[str, list[tuple[int, ...] | None]] = {}
    dtypes: dict[str, np.dtype[Any]] = {}
    for turn, own in enumerate(sizes):
        for name, value in run(given if turn == 0 and given is not None else make(inputs, own)).items():
            known = isinstance(value, np.ndarray)
            shapes.setdefault(name, []).append(value.shape if known else None)
            if known:
                dtypes[name] = value.dtype
    symbols: dict[Lengths, str] = {
        tuple(own[dim] for own in sizes): dim for dim in (sizes[0] if sizes else {})
    }
    measured = ir.from_proto(model)
    for value, item in zip(measured.graph.inputs, inputs, strict=True):
        value.shape = ir.Shape(list(item.spec.dims))
    for node in measured.graph:
        for value in node.outputs:
            if value.name in dtypes:
                value.dtype = ir.DataType.from_numpy(dtypes[value.name])
                found = shape_of(shapes[value.name], symbols)
                value.shape = None if found is None else ir.Shape(found)
    specs = []
    for value in measured.graph.outputs:
        if value.shape is None:
            raise UnsupportedError(f"output {value.name!r} is no tensor, or has another rank at another size")
        dims = list(value.shape)
        named = tuple(dim.value if isinstance(dim, ir.SymbolicDim) else int(dim) for dim in dims)
        specs.append(TensorSpec(value.name or "", value.dtype.numpy().name if value.dtype else "", named))  # type: ignore[arg-type]
    return measured, tuple(specs)


def shape_of(seen: Sequence[tuple[int, ...] | None], symbols: dict[Lengths, str]) -> list[int | str] | None:
    """Dims of a value from its shapes in several runs; None where it was no tensor, or of several ranks.

    Args:
        symbols: names by lengths; a new one is added for a dim that grows like none of them.
    """
    known = [shape for shape in seen if shape is not None]
    if len(known) != len(seen) or len({len(shape) for shape in known}) != 1:
        return None
    dims: list[int | str] = []
    for lengths in zip(*known, strict=True):
        if len(set(lengths)) == 1:
            dims.append(int(lengths[0]))
        else:
            dims.append(symbols.setdefault(lengths, f"dim_{len(symbols)}"))
    return dims
