"""The weights of a quantised file, computed back by the formulas and held against those of its float32 twin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.onnx_model.weights import array_of
from tsmerge_export.precision.products import TRANSPOSED

Array = npt.NDArray[Any]

#: Relative error of a scale that was computed in float32.
_ROUNDING = 1e-4
#: A weight lies half a step from its number at most; with a zero point, which is rounded too, a whole one.
_STEPS = {"MatMulInteger": 0.5, "DequantizeLinear": 0.5, "MatMulNBits": 1.0, "GatherBlockQuantized": 1.0}
#: Operators whose scales are of a whole output channel, symmetric.
_BY_CHANNEL = ("MatMulInteger", "DequantizeLinear")


@dataclass(frozen=True)
class Weight:
    """A weight of a quantised file, ``[rows, columns]`` as in the float32 file.

    Attributes:
        name: of the float32 weight. kind: the operator that reads it; of one that a product reads in float32, what
            makes that of it.
        values: computed back. scale: of every entry. bits: of a number. block: rows that share a scale.
    """

    name: str
    kind: str
    values: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    bits: int
    block: int


def weights(model: onnx.ModelProto) -> Iterator[Weight]:
    """The quantised weights of a file, in the order of their nodes.

    Raises:
        KeyError, ValueError: the file holds quantised products that are not written as the quantiser writes them.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    made = {name: node for node in model.graph.node for name in node.output}
    readers = {name: node for node in model.graph.node for name in node.input}
    for node in model.graph.node:
        if node.op_type == "MatMulInteger":
            name = node.input[1].removesuffix("_quantized")
            yield _by_channel(node.op_type, tensors, node.input[1], f"{name}_scale", node.input[3])
        elif node.op_type == "MatMulNBits":
            given = _given(node)
            yield _by_block(node.op_type, tensors, [*node.input[1:4]], given["K"], given["N"], given)
        elif node.op_type == "GatherBlockQuantized":
            yield _looked_up_by_block(node, tensors, made, readers)
        elif node.op_type == "DequantizeLinear" and made.get(node.input[0], node).op_type == "Gather":
            rows, scales = made[node.input[0]], made[node.input[1]]
            if rows.input[1] != scales.input[1]:
                raise ValueError(f"{node.name} takes numbers of one row and the scale of another")
            yield _by_channel(node.op_type, tensors, rows.input[0], scales.input[0])
        elif node.op_type == "MatMul" and made.get(node.input[1], node).op_type == "DequantizeLinear":
            source = made[node.input[1]]
            yield _by_channel(source.op_type, tensors, *source.input)


def _by_channel(
    kind: str, tensors: Mapping[str, onnx.TensorProto], weight: str, scale: str, zero: str = ""
) -> Weight:
    """Of names of initializers ``[rows, columns]``, ``[columns]`` and ``[columns]``; without a zero point it is 0."""
    numbers = array_of(tensors[weight]).astype(np.float64)
    zeros = array_of(tensors[zero]).astype(np.float64) if zero else 0.0
    spread = np.broadcast_to(array_of(tensors[scale]).astype(np.float64), numbers.shape)
    return Weight(
        weight.removesuffix("_quantized"), kind, (numbers - zeros) * spread, spread, 8, len(numbers)
    )


def _given(node: onnx.NodeProto) -> dict[str, int]:
    return {attribute.name: attribute.i for attribute in node.attribute}


def _looked_up_by_block(
    node: onnx.NodeProto,
    tensors: Mapping[str, onnx.TensorProto],
    made: Mapping[str, onnx.NodeProto],
    readers: Mapping[str, onnx.NodeProto],
) -> Weight:
    """Of a table that reads its numbers by entry; where its last blocks are longer than a row, that is cut off."""
    read = [node.input[slot] for slot in (0, 2, 3)]
    data, scales, zeros = (made[name].input[0] if name in made else name for name in read)
    cut, given = readers.get(node.output[0]), _given(node)
    columns = tensors[data].dims[0]
    rows = array_of(tensors[data]).size * 8 // given["bits"] // columns
    if cut is not None and cut.op_type == "Slice" and cut.input[2] in tensors:
        rows = int(array_of(tensors[cut.input[2]])[0])
    return _by_block(node.op_type, tensors, [data, scales, zeros], rows, columns, given)


def _by_block(
    kind: str,
    tensors: Mapping[str, onnx.TensorProto],
    names: Sequence[str],
    rows: int,
    columns: int,
    given: Mapping[str, int],
) -> Weight:
    """``[columns, blocks, bytes]``: the rows of a column in blocks; the first of two numbers of 4 bits is the lower.

    Args:
        names: of numbers, scales and zero points. given: attributes.
    """
    bits, block = given["bits"], given["block_size"]
    blocks = -(-rows // block)
    numbers = _unpacked(array_of(tensors[names[0]]).reshape(columns, -1), bits)
    zero = _unpacked(array_of(tensors[names[2]]).reshape(columns, -1), bits)[:, :blocks]
    scale = array_of(tensors[names[1]]).astype(np.float64).reshape(columns, blocks)
    spread, zeros = (np.repeat(each, block, axis=1)[:, :rows] for each in (scale, zero))
    values = (numbers[:, :rows] - zeros) * spread
    name = names[0].removesuffix(f"_Q{bits}")
    return Weight(name, kind, values.T, spread.T, bits, block)


def _unpacked(packed: Array, bits: int) -> npt.NDArray[np.float64]:
    if bits == 8:
        return packed.astype(np.float64)
    both = np.stack([packed & 15, packed >> 4], axis=-1)
    return both.reshape(len(packed), -1).astype(np.float64)


def _scale_of(twin: Array, kind: str, bits: int, block: int) -> npt.NDArray[np.float64]:
    """What the scale of every entry is by the formula."""
    rows, columns = twin.shape
    if kind in _BY_CHANNEL:
        return np.broadcast_to(np.abs(twin).max(axis=0) / (2 ** (bits - 1) - 1), twin.shape)
    padded = np.zeros((-(-rows // block) * block, columns))
    padded[:rows] = twin
    cut = padded.reshape(-1, block, columns)
    low, high = np.minimum(cut.min(axis=1), 0), np.maximum(cut.max(axis=1), 0)
    return np.repeat((high - low) / (2**bits - 1), block, axis=0)[:rows]


def faults(twin: onnx.ModelProto, quantised: onnx.ModelProto) -> tuple[int, list[str]]:
    """What of the weights of a quantised file does not follow from its float32 twin.

    Args:
        twin: as :func:`.quantise.as_products` gives it.

    Returns:
        How many weights were compared, and a line for each that is off.
    """
    floats = {tensor.name: tensor for tensor in twin.graph.initializer}
    count, out = 0, []
    try:
        for weight in weights(quantised):
            count += 1
            fault = _fault(weight, _twin(floats, weight.name))
            if fault is not None:
                out.append(f"weight {weight.name!r} {fault}")
    except (KeyError, ValueError, IndexError) as error:
        out.append(f"a quantised product is not written as ONNX Runtime's quantiser writes it ({error})")
    present = {node.op_type for graph in onnx_weights.graphs(quantised.graph) for node in graph.node}
    if not count and present & set(_STEPS):
        out.append("quantised products inside branches or functions, where none is made")
    return count, out


def _twin(floats: Mapping[str, onnx.TensorProto], name: str) -> Array | None:
    """A weight of the float32 file, or a table or what a product reads transposed as the weight that it is."""
    table = name.removesuffix(TRANSPOSED)
    if name in floats or table not in floats:
        return array_of(floats[name]) if name in floats else None
    return array_of(floats[table]).T


def _fault(weight: Weight, floats: Array | None) -> str | None:
    if floats is None:
        return "is not in the float32 file"
    twin = floats.astype(np.float64)
    if twin.shape != weight.values.shape:
        return f"is {list(weight.values.shape)}, and {list(twin.shape)} in the float32 file"
    want = _scale_of(twin, weight.kind, weight.bits, weight.block)
    nothing = want == 0  # a block of zeros: any scale will do
    off = ~(np.abs(weight.scale - want) <= _ROUNDING * want)
    if bool((off & ~nothing).any()):
        row, column = np.argwhere(off & ~nothing)[0]
        return (
            f"has a scale of {weight.scale[row, column]:.4g} in row {row}, column {column}, where the float32 weights "
            f"give {want[row, column]:.4g}"
        )
    steps = np.abs(weight.values - twin) / np.where(nothing, 1.0, want)
    most = _STEPS[weight.kind] + _ROUNDING * 2**weight.bits
    if not bool((steps <= most).all()):
        row, column = np.unravel_index(int(np.nanargmax(steps)), steps.shape)
        return f"is {steps[row, column]:.2f} steps off in row {row}, column {column}"
    return None
