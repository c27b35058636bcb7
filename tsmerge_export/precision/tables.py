"""Tables that are looked up by row, such as embeddings, in 8 or 4 bits; one that is a product's weight too, once.

ONNX Runtime's quantiser gives a table one scale for all of its rows, and one that is also the weight of a product a
second copy. Here it sees every table as the weight that it would be of a product, ``[width, entries]``, so that each
row has scales of its own, and both read the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tsmerge_export.onnx_model.weights import array_of
from tsmerge_export.precision.products import TRANSPOSED
from tsmerge_export.untrusted.onnx_scan import STANDARD

_MICROSOFT = "com.microsoft"
#: A copy of a model with products in fewer bits, by name.
Quantise = Callable[[onnx.ModelProto, Collection[str]], onnx.ModelProto]


def fold_transposed(model: onnx.ModelProto) -> None:
    """Make weights of what products read as transposed weights, under names that say so, in place."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    turned: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "Transpose" and len(getattr(weights.get(node.input[0]), "dims", ())) == 2:
            turned[node.output[0]] = node.input[0]
    found: dict[str, onnx.TensorProto] = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in turned:
            source = turned[node.input[1]]
            name = node.input[1] = source + TRANSPOSED
            found[name] = numpy_helper.from_array(np.ascontiguousarray(array_of(weights[source]).T), name)
    model.graph.initializer.extend(found.values())
    read = {name for node in model.graph.node for name in node.input} | {o.name for o in model.graph.output}
    stay = [n for n in model.graph.node if n.output[0] not in turned or n.output[0] in read]
    _replace_nodes(model, stay)


def stored_twice(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """The float32 weights that :func:`fold_transposed` made and whose table is there as well."""
    names = {tensor.name for tensor in model.graph.initializer}
    return [
        tensor
        for tensor in model.graph.initializer
        if tensor.name.endswith(TRANSPOSED) and tensor.name.removesuffix(TRANSPOSED) in names
    ]


def unfold_transposed(model: onnx.ModelProto) -> None:
    """The inverse, for :func:`stored_twice`, in place."""
    twice = [tensor.name for tensor in stored_twice(model)]
    turns = [
        helper.make_node("Transpose", [name.removesuffix(TRANSPOSED)], [name], name=name, perm=[1, 0])
        for name in twice
    ]
    if turns:
        _replace_nodes(model, [*turns, *model.graph.node])
        _replace_weights(model, [tensor for tensor in model.graph.initializer if tensor.name not in twice])


def look_up(model: onnx.ModelProto, nodes: Collection[str], quantise: Quantise) -> onnx.ModelProto:
    """A copy in which some nodes look their rows up in numbers of fewer bits.

    Args:
        model: its products are quantised. nodes: names of ``Gather`` nodes of float32 tables ``[entries, width]``.
        quantise: for tables that are no product's weight.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    numbers = {tensor.name: tensor for tensor in out.graph.initializer}
    graph: list[onnx.NodeProto] = []
    for node in out.graph.node:
        if node.name not in nodes:
            graph.append(node)
            continue
        weight, width = node.input[0] + TRANSPOSED, numbers[node.input[0]].dims[1]
        if not any(weight + end in numbers for end in ("_quantized", "_Q4", "_Q8")):
            alone = quantise(_as_product(numbers[node.input[0]], model), ["product"])
            numbers |= {tensor.name: _by_entry(tensor) for tensor in alone.graph.initializer}
        lookup = _Lookup(node, weight, width)
        graph += lookup.by_row() if f"{weight}_quantized" in numbers else lookup.by_blocks(numbers)
        numbers |= lookup.constants
    _replace_nodes(out, graph)
    _replace_weights(out, list(numbers.values()))
    domains = {entry.domain for entry in out.opset_import}
    if _MICROSOFT not in domains and any(node.domain == _MICROSOFT for node in graph):
        out.opset_import.append(helper.make_opsetid(_MICROSOFT, 1))
    return out


def _as_product(table: onnx.TensorProto, model: onnx.ModelProto) -> onnx.ModelProto:
    entries, width = table.dims
    name = table.name + TRANSPOSED
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", name], ["y"], name="product")],
        "table",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, entries])],
        [numpy_helper.from_array(np.ascontiguousarray(array_of(table).T), name)],
    )
    sets = [entry for entry in model.opset_import if entry.domain in STANDARD]
    return helper.make_model(graph, opset_imports=sets, ir_version=model.ir_version)


def _by_entry(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """Numbers ``[entries, blocks, bytes]`` as those that look them up want them: ``[entries, bytes]``."""
    if len(tensor.dims) == 3:
        tensor.dims[:] = [tensor.dims[0], tensor.dims[1] * tensor.dims[2]]
    return tensor


class _Lookup:
    """Nodes in the place of a ``Gather``, and the constants that they read, named after its result.

    Args:
        weight: name of the table as a product's weight. width: of its rows.
    """

    def __init__(self, node: onnx.NodeProto, weight: str, width: int) -> None:
        self._node, self._weight, self._width = node, weight, width
        self._indices, self._result = node.input[1], node.output[0]
        self.constants: dict[str, onnx.TensorProto] = {}

    def by_row(self) -> list[onnx.NodeProto]:
        """Of numbers ``[width, entries]`` and a scale for each entry, in operators of the standard."""
        flat, here = self._called("indices"), self._called
        return [
            self._make("Reshape", [self._indices, self._constant("flat", [-1])], "indices"),
            self._make("Gather", [f"{self._weight}_quantized", flat], "numbers", axis=1),
            self._make("Gather", [f"{self._weight}_scale", flat], "scales", axis=0),
            self._make("DequantizeLinear", [here("numbers"), here("scales")], "columns", axis=1),
            self._make("Transpose", [here("columns")], "rows", perm=[1, 0]),
            self._make("Shape", [self._indices], "shape"),
            self._make("Concat", [here("shape"), self._constant("width", [self._width])], "wanted", axis=0),
            self._make("Reshape", [here("rows"), here("wanted")]),
        ]

    def by_blocks(self, numbers: dict[str, onnx.TensorProto]) -> list[onnx.NodeProto]:
        """Of numbers in blocks, of which the last may be longer than a row; a product that has them, too, reads them as
        ``[entries, blocks, bytes]``."""
        bits = next(bits for bits in (4, 8) if f"{self._weight}_Q{bits}" in numbers)
        parts = {"data": f"_Q{bits}", "scales": "_scales", "zeros": "_zero_points"}
        shapes = {name: numbers[self._weight + end].dims for name, end in parts.items()}
        entries = shapes["data"][0]
        length, blocks = (int(np.prod(shapes[name])) // entries for name in ("data", "scales"))
        block = length * 8 // bits // blocks
        whole = blocks * block == self._width
        out, read = [], []
        for name, end in parts.items():
            read.append(self._weight + end)
            if len(shapes[name]) != 2:
                out.append(
                    self._make("Reshape", [read.pop(), self._constant("by_entry", [entries, -1])], name)
                )
                read.append(self._called(name))
        data, scales, zeros = read
        out.append(
            self._make(
                "GatherBlockQuantized",
                [data, self._indices, scales, zeros],
                "" if whole else "blocks",
                domain=_MICROSOFT,
                gather_axis=0,
                quantize_axis=1,
                block_size=block,
                bits=bits,
            )
        )
        if not whole:
            ends = [
                self._constant(*each) for each in (("start", [0]), ("width", [self._width]), ("last", [-1]))
            ]
            out.append(self._make("Slice", [self._called("blocks"), *ends]))
        return out

    def _called(self, name: str) -> str:
        return f"{self._result}/{name}" if name else self._result

    def _constant(self, name: str, values: list[int]) -> str:
        there = self._called(f"constant_{name}")
        self.constants[there] = numpy_helper.from_array(np.asarray(values, np.int64), there)
        return there

    def _make(self, op: str, inputs: list[str], name: str = "", **given: Any) -> onnx.NodeProto:
        return helper.make_node(
            op, inputs, [self._called(name)], name=f"{self._node.name}/{name or op}", **given
        )


def _replace_nodes(model: onnx.ModelProto, nodes: Collection[onnx.NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _replace_weights(model: onnx.ModelProto, weights: Collection[onnx.TensorProto]) -> None:
    copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in weights]
    del model.graph.initializer[:]
    model.graph.initializer.extend(copies)
