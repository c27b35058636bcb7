"""Inputs for a graph nobody told us about: what each input seems to be, and values of a wanted size."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tsmerge_export.errors import UnsupportedError
from tsmerge_export.families.base import Arrays, TensorSpec

# What integers may be where nothing in the graph bounds them.
_SMALL = 10
FIRST_AXIS = "<first axis>"
LENGTH = "length"  # how a first axis is called that is no batch, as elsewhere
_FOLLOWED = {
    "Cast",
    "Flatten",
    "Identity",
    "Reshape",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
    "Split",
    "Gather",
}
_OTHER_FLOATS = {
    number
    for name, number in onnx.TensorProto.DataType.items()
    if name.startswith(("BFLOAT", "FLOAT")) and name not in ("FLOAT", "FLOAT16")
}
_MASK = re.compile(r"mask", re.IGNORECASE)
_POSITIONS = re.compile(r"position", re.IGNORECASE)
TOKEN_MASK = (
    "attention_mask"  # what transformers and optimum call the input that is 0 where a token is padding
)


@dataclass(frozen=True)
class Input:
    """One input of a graph.

    Attributes:
        spec: name, numpy dtype and dims. Every unnamed dynamic dim got a name; the first axis is ``batch``.
        kind: ``values`` (real numbers), ``ids`` (below ``bound``), ``mask`` (1 where there is something),
            ``positions``.
        bound: ids are below this: the rows of the table that they look up.
    """

    spec: TensorSpec
    kind: str
    bound: int = _SMALL


def read_inputs(model: onnx.ModelProto, source: str, batch: str | None = FIRST_AXIS) -> tuple[Input, ...]:
    """What the inputs of a graph are.

    Args:
        batch: the dim that is the batch; None where there is none. Every first axis, unless more is known.

    Raises:
        UnsupportedError: an input is no tensor of numbers, has an unknown rank, or holds nothing.
    """
    found: list[Input] = []
    first_axes = [value for value in model.graph.input if len(value.type.tensor_type.shape.dim)]
    firsts = {_named(value, 0, batch) for value in first_axes}
    tables = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    channels = _channels(model, tables)
    for value in model.graph.input:
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
            raise UnsupportedError(f"{source}: input {value.name!r} is no tensor of known rank")
        try:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        except (KeyError, ValueError):
            dtype = None
        if kind.elem_type in _OTHER_FLOATS:
            name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
            raise UnsupportedError(f"{source}: input {value.name!r} is {name}; give a float32 export")
        if dtype is None or dtype.kind not in "fiub":
            raise UnsupportedError(f"{source}: input {value.name!r} holds neither numbers nor booleans")
        if any(dim.HasField("dim_value") and dim.dim_value < 1 for dim in kind.shape.dim):
            sizes = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in kind.shape.dim]
            raise UnsupportedError(f"{source}: input {value.name!r} is {sizes} and holds nothing")
        dims: list[str | int] = []
        for axis, dim in enumerate(kind.shape.dim):
            if dim.HasField("dim_value"):
                dims.append(int(dim.dim_value))
            elif axis == 1 and value.name in channels:
                dims.append(channels[value.name])
            else:
                dims.append(_named(value, axis, batch))
        if batch != FIRST_AXIS:
            dims = [LENGTH if dim in firsts and len(firsts) == 1 else dim for dim in dims]
        spec = TensorSpec(value.name, dtype.name, tuple(dims))
        found.append(_recognised(spec, dtype, model, tables))
    return tuple(found)


def _channels(model: onnx.ModelProto, tables: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Channels of the inputs that a convolution reads: its weights fix them, whatever the file calls the dim."""
    found = {}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] in tables:
            groups = next((a.i for a in node.attribute if a.name == "group"), 1)
            found[node.input[0]] = tables[node.input[1]][1] * groups
    return found


def _named(value: onnx.ValueInfoProto, axis: int, batch: str | None) -> str:
    """The name of a dynamic dim."""
    param = value.type.tensor_type.shape.dim[axis].dim_param
    own = param if param not in ("", "batch") else f"{value.name}_dim_{axis}"
    return "batch" if own == batch or (batch == FIRST_AXIS and axis == 0) else own


def _recognised(
    spec: TensorSpec,
    dtype: np.dtype[np.generic],
    model: onnx.ModelProto,
    tables: Mapping[str, tuple[int, ...]],
) -> Input:
    if dtype.kind == "b" or _MASK.search(spec.name):
        return Input(spec, "mask")
    if dtype.kind == "f":
        return Input(spec, "values")
    bound = _rows_looked_up(spec.name, model, tables)
    return Input(spec, "positions" if _POSITIONS.search(spec.name) else "ids", bound or _SMALL)


def _rows_looked_up(name: str, model: onnx.ModelProto, tables: Mapping[str, tuple[int, ...]]) -> int | None:
    """The fewest rows of a table that the entries of an input look up."""
    reach, rows = {name}, []
    for node in model.graph.node:  # in topological order
        if node.op_type == "Gather" and node.input[1] in reach and node.input[0] in tables:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            rows.append(tables[node.input[0]][axis])
        elif node.op_type in _FOLLOWED and node.input[0] in reach:
            reach.update(node.output)
    return min(rows, default=None)


Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Kind:
    """A kind of input values. ``padding``: ``left``, ``right`` or none."""

    name: str
    degenerate: bool = False
    padding: str = ""


KINDS = (
    Kind("random"),
    Kind("walk"),
    Kind("constant", degenerate=True),
    Kind("piecewise-constant", degenerate=True),
    Kind("periodic", degenerate=True),
    Kind("large"),
    Kind("small"),
)
PADDED = (Kind("left-padding", padding="left"), Kind("right-padding", padding="right"))


def kinds_for(inputs: Sequence[Input]) -> tuple[Kind, ...]:
    """The kinds that make a difference for these inputs."""
    continuous = any(item.kind == "values" for item in inputs)
    own = [kind for kind in KINDS if continuous or kind.name not in ("large", "small", "walk")]
    return (*own, *(PADDED if any(item.kind == "mask" for item in inputs) else ()))


def make(inputs: Sequence[Input], sizes: Sizes, kind: Kind = KINDS[0], seed: int = 0) -> Arrays:
    """Values for every input.

    Args:
        sizes: of every named dim.
        seed: the same arguments give the same values.
    """
    rng = np.random.default_rng([seed, *map(ord, kind.name), *sizes.values()])
    return {item.spec.name: _make_one(item, sizes, kind, rng) for item in inputs}


def _make_one(item: Input, sizes: Sizes, kind: Kind, rng: np.random.Generator) -> NDArray[np.generic]:
    shape = tuple(sizes[dim] if isinstance(dim, str) else dim for dim in item.spec.dims)
    array: NDArray[Any]
    if item.kind == "mask":
        array = np.ones(shape)
        if kind.padding and len(shape) > 1:
            for row in range(shape[0]):
                cut = shape[-1] * (row + 1) // (shape[0] + 2)
                array[row, ..., slice(0, cut) if kind.padding == "left" else slice(shape[-1] - cut, None)] = 0
    elif item.kind == "positions":
        array = np.broadcast_to(np.arange(shape[-1] if shape else 1) % item.bound, shape)
    elif item.kind == "ids":
        array = _ids(item, shape, kind, rng)
    else:
        array = _values(shape, kind, rng)
    return np.ascontiguousarray(array.astype(item.spec.dtype))


def _ids(item: Input, shape: tuple[int, ...], kind: Kind, rng: np.random.Generator) -> NDArray[np.int64]:
    array = rng.integers(0, item.bound, size=shape)
    if kind.name == "constant" and shape:
        array[...] = array[..., :1]
    elif kind.name in ("piecewise-constant", "periodic") and shape:
        index = np.arange(shape[-1])
        array = array[..., index // 5 if kind.name.startswith("piece") else index % 7 % shape[-1]]
    return array


def _values(shape: tuple[int, ...], kind: Kind, rng: np.random.Generator) -> NDArray[np.float64]:
    """Steps along axis 1, which is time or tokens where there are three axes, and along the last one otherwise."""
    array = rng.standard_normal(shape)
    axis = 1 if len(shape) > 1 else 0
    if not shape:
        return array
    length = shape[axis]
    if kind.name == "walk":
        return array.cumsum(axis) / np.sqrt(max(1, length))
    if kind.name == "constant":
        return np.broadcast_to(np.take(array, [0], axis), shape)
    if kind.name == "piecewise-constant":
        return np.take(array, np.arange(length) // 5, axis)
    if kind.name == "periodic":
        return np.take(array, np.arange(length) % min(8, length), axis)
    return array * {"large": 30.0, "small": 1e-3}.get(kind.name, 1.0)


def with_dims(item: Input, names: Mapping[str, str | int]) -> Input:
    """The input with its dims renamed or fixed."""
    dims = tuple(names.get(dim, dim) if isinstance(dim, str) else dim for dim in item.spec.dims)
    return replace(item, spec=replace(item.spec, dims=dims))
