"""A graph at fixed shapes of its inputs: types of all values known, what follows from shapes alone computed once.

Nodes are visited in order. Of each, the shapes of its outputs are inferred from those of its inputs and from the values
of inputs that are constant; a node whose inputs are all constant is run once, in ONNX Runtime itself, so that the bits
are those that it would compute in the file. A call of a model-local function gets a body of its own for the types of
its inputs, treated alike; so merge nodes stay nodes, and native operators take them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.onnx_model import weights as onnx_weights

Array = NDArray[Any]
Shape = Sequence[int]

#: Results of more bytes are computed by the graph as before: a file should not hold weights once more, transposed.
MOST_BYTES = 2**20
_STANDARD = ("", "ai.onnx")
#: What gives other values every time.
_RANDOM = {
    "Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
}  # fmt: skip


def fixed(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> onnx.ModelProto:
    """A copy for inputs of these shapes alone.

    Args:
        model: with its weights in memory; calls of functions of its own are allowed.
        shapes: of every input.

    Returns:
        The same computation, the shapes of all values that could be inferred in ``value_info``, also of functions.
        What could not be folded is still there, see :mod:`.check`.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for value in out.graph.input:
        _set_shape(value.type, shapes[value.name])
    types = {value.name: value.type for value in out.graph.input}
    constants: dict[str, Array] = {}
    for tensor in out.graph.initializer:
        types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        constants[tensor.name] = numpy_helper.to_array(tensor)
    functions = _Functions(out)
    block = _Block(out.opset_import, functions, types, constants, {value.name for value in out.graph.output})
    nodes = block.run(out.graph.node)
    kept = _needed(nodes, [value.name for value in out.graph.output])
    read = {name for node in kept for name in _reads(node)} | {value.name for value in out.graph.output}
    made = {name for node in kept for name in node.output}
    weights = {tensor.name: tensor for tensor in out.graph.initializer}
    left = [tensor for name, tensor in weights.items() if name in read]
    left += [
        numpy_helper.from_array(array, name)
        for name, array in constants.items()
        if name in read and name not in weights and name not in made
    ]
    for value in out.graph.output:
        if value.name in types:
            value.type.CopyFrom(types[value.name])
    ends = {value.name for value in (*out.graph.input, *out.graph.output)}
    _replace(out.graph.node, kept)
    _replace(out.graph.initializer, left)
    _replace(out.graph.value_info, _infos(kept, types, ends))
    _replace(out.functions, functions.used(kept))
    return out


def _set_shape(kind: onnx.TypeProto, shape: Shape) -> None:
    dims = kind.tensor_type.shape.dim
    del dims[:]
    for size in shape:
        dims.add().dim_value = int(size)


def known(kind: onnx.TypeProto | None) -> tuple[int, ...] | None:
    """The shape of a type, None where it or one of its dims is not a number."""
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    return tuple(d.dim_value for d in dims) if all(d.HasField("dim_value") for d in dims) else None


@dataclass
class _Block:
    """The nodes of a graph or a function. ``types`` and ``constants`` grow with its values."""

    opsets: Iterable[onnx.OperatorSetIdProto]
    functions: _Functions
    types: dict[str, onnx.TypeProto]
    constants: dict[str, Array]
    outputs: set[str]

    def run(self, nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """The nodes that are left; a result that is a constant is a node of its own."""
        left = []
        for node in nodes:
            if self._folded(node):
                left += [
                    _constant(name, self.constants[name]) for name in node.output if name in self.outputs
                ]
            else:
                left.append(node)
        return left

    def _folded(self, node: onnx.NodeProto) -> bool:
        """Whether all outputs of a node are constants now; else their types are, as far as they can be told."""
        if node.domain not in _STANDARD:
            self.functions.call(node, self)
            return False
        if node.op_type == "CastLike":
            self._cast(node)
        if node.op_type in ("Shape", "Size") and (shape := known(self.types.get(node.input[0]))) is not None:
            found: list[Array] | None = [_of_shape(node, shape)]
        else:
            self._infer(node)
            found = self._computed(node) if self._may_fold(node) else None
        if found is None:
            return False
        for name, array in zip(node.output, found, strict=True):
            self.constants[name] = array
            self.types[name] = helper.make_tensor_type_proto(
                helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
        return True

    def _infer(self, node: onnx.NodeProto) -> None:
        try:
            schema = onnx.defs.get_schema(node.op_type, self._version, "")
            small = {
                name: numpy_helper.from_array(self.constants[name], name)
                for name in node.input
                if name in self.constants and self.constants[name].nbytes <= MOST_BYTES
            }
            read = {name: self.types[name] for name in _reads(node) if name}
            found = onnx.shape_inference.infer_node_outputs(
                schema, node, read, small, opset_imports=list(self.opsets)
            )
            if not set(node.output) - {""} <= set(found):
                found |= self._inferred_by_body(node, read, small)
        except (KeyError, RuntimeError, onnx.shape_inference.InferenceError, onnx.defs.SchemaError):
            return  # said by the check, where it matters
        self.types |= found

    def _inferred_by_body(
        self,
        node: onnx.NodeProto,
        read: Mapping[str, onnx.TypeProto],
        small: Mapping[str, onnx.TensorProto],
    ) -> dict[str, onnx.TypeProto]:
        """Types of the outputs of an operator that the standard defines by others (GreaterOrEqual): of such a node onnx
        1.18 tells nothing, of a model of it alone it does."""
        model = self._alone(
            node, {name: kind for name, kind in read.items() if name not in small}, small.values()
        )
        told = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output
        return {value.name: value.type for value in told if value.type.tensor_type.elem_type}

    def _alone(
        self,
        node: onnx.NodeProto,
        fed: Mapping[str, onnx.TypeProto],
        weights: Iterable[onnx.TensorProto] = (),
    ) -> onnx.ModelProto:
        """A model of one node."""
        inputs = [helper.make_value_info(name, kind) for name, kind in fed.items()]
        outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
        graph = helper.make_graph([node], "node", inputs, outputs, list(weights))
        return helper.make_model(graph, opset_imports=list(self.opsets), ir_version=_IR_VERSION)

    def _cast(self, node: onnx.NodeProto) -> None:
        """The cast that a node to the type of another value is, where that type is known."""
        like = self.types.get(node.input[1])
        if like is None:
            return
        node.op_type = "Cast"
        del node.input[1:]
        node.attribute.append(helper.make_attribute("to", like.tensor_type.elem_type))

    @property
    def _version(self) -> int:
        return next(entry.version for entry in self.opsets if entry.domain in _STANDARD)

    def _may_fold(self, node: onnx.NodeProto) -> bool:
        if node.op_type in _RANDOM or any(a.HasField("g") or a.graphs for a in node.attribute):
            return False
        if any(name and name not in self.constants for name in node.input):
            return False
        return node.op_type == "Constant" or all(
            self._bytes(name) <= MOST_BYTES for name in node.output if name
        )

    def _bytes(self, name: str) -> float:
        kind, shape = self.types.get(name), known(self.types.get(name))
        if kind is None or shape is None:
            return float("inf")
        width = helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type).itemsize
        return float(width * np.prod(shape, dtype=np.float64))

    def _computed(self, node: onnx.NodeProto) -> list[Array] | None:
        names = list(dict.fromkeys(name for name in node.input if name))
        model = self._alone(node, {name: self.types[name] for name in names})
        try:
            session = open_session(model, 1, level=ort.GraphOptimizationLevel.ORT_DISABLE_ALL, arena=False)
            found = session.run(None, {name: self.constants[name] for name in names})
        except (
            Exception
        ):  # ONNX Runtime has no kernel for it, or an input is wrong: the file itself will say so
            return None
        values = iter(found)
        return [next(values) if name else np.empty(0) for name in node.output]


#: Of the one-node models that constants are computed by.
_IR_VERSION = 10


def _constant(name: str, array: Array) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))


def _of_shape(node: onnx.NodeProto, shape: tuple[int, ...]) -> Array:
    if node.op_type == "Size":
        return np.array(np.prod(shape, dtype=np.int64), np.int64)
    bounds = {a.name: a.i for a in node.attribute}
    return np.array(shape[slice(bounds.get("start"), bounds.get("end"))], np.int64)


@dataclass
class _Functions:
    """The functions of a model, and bodies of theirs for the types that they are called with."""

    model: onnx.ModelProto
    made: dict[tuple[Any, ...], tuple[onnx.FunctionProto, list[onnx.TypeProto | None]]] = field(
        default_factory=dict
    )

    def call(self, node: onnx.NodeProto, block: _Block) -> None:
        """Let a node call a body for the types that it has; the types of its outputs are known then."""
        of = next(
            (
                one
                for one in self.model.functions
                if (one.domain, one.name, one.overload) == (node.domain, node.op_type, node.overload)
            ),
            None,
        )
        if of is None:
            return
        given = [block.types.get(name) for name in node.input]
        if any(known(kind) is None for name, kind in zip(node.input, given, strict=True) if name):
            return
        values = {
            own: block.constants[name]
            for own, name in zip(of.input, node.input, strict=False)
            if name in block.constants and block.constants[name].nbytes <= MOST_BYTES
        }
        attributes = {a.name: a for a in (*of.attribute_proto, *node.attribute)}
        key = (
            node.op_type, node.overload,
            tuple(sorted((name, a.SerializeToString(deterministic=True)) for name, a in attributes.items())),
            tuple(None if kind is None else kind.SerializeToString(deterministic=True) for kind in given),
            tuple((name, array.tobytes()) for name, array in values.items()),
        )  # fmt: skip
        if key not in self.made:
            self.made[key] = self._body(of, attributes, given, values)
        body, types = self.made[key]
        node.overload = body.overload
        block.types |= {
            name: kind for name, kind in zip(node.output, types, strict=False) if name and kind is not None
        }

    def _body(
        self,
        of: onnx.FunctionProto,
        attributes: Mapping[str, onnx.AttributeProto],
        given: Sequence[onnx.TypeProto | None],
        values: Mapping[str, Array],
    ) -> tuple[onnx.FunctionProto, list[onnx.TypeProto | None]]:
        out = onnx.FunctionProto()
        out.CopyFrom(of)
        out.overload = f"{of.overload}_{len(self.made)}"
        for node in out.node:
            _bind(node, attributes)
        types = {name: kind for name, kind in zip(of.input, given, strict=False) if kind is not None}
        constants = dict(values)
        block = _Block(of.opset_import, self, types, constants, set(of.output))
        nodes = _needed(block.run(out.node), list(of.output))
        read = {name for node in nodes for name in _reads(node)}
        made = {name for node in nodes for name in node.output}
        front = [
            _constant(name, array)
            for name, array in constants.items()
            if name in read and name not in made and name not in of.input
        ]
        _replace(out.node, [*front, *nodes])
        inputs = [helper.make_value_info(name, types[name]) for name in of.input if name in types]
        _replace(out.value_info, [*inputs, *_infos(out.node, types, set())])
        return out, [types.get(name) for name in of.output]

    def used(self, nodes: Iterable[onnx.NodeProto]) -> list[onnx.FunctionProto]:
        """Those that are called, by nodes or by one another."""
        every = {(one.domain, one.name, one.overload): one for one in self.model.functions}
        every |= {(one.domain, one.name, one.overload): one for one, _ in self.made.values()}
        found: dict[tuple[str, str, str], onnx.FunctionProto] = {}
        todo = list(nodes)
        while todo:
            node = todo.pop(0)
            key = (node.domain, node.op_type, node.overload)
            if key in every and key not in found:
                found[key] = every[key]
                todo += every[key].node
        return list(found.values())


def _bind(node: onnx.NodeProto, attributes: Mapping[str, onnx.AttributeProto]) -> None:
    """Write the attributes of a call in place of references to them."""
    bound = []
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            bound.append(attribute)
        elif attribute.ref_attr_name in attributes:
            value = onnx.AttributeProto()
            value.CopyFrom(attributes[attribute.ref_attr_name])
            value.name = attribute.name
            bound.append(value)
    _replace(node.attribute, bound)


def _needed(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]) -> list[onnx.NodeProto]:
    """Those that outputs follow from, in order."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(_reads(node))
    return kept[::-1]


def _reads(node: onnx.NodeProto) -> list[str]:
    """Inputs of a node, and what graphs inside it read."""
    inner = [
        name
        for attribute in node.attribute
        for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
        for graph in onnx_weights.graphs(body)
        for name in (*(name for own in graph.node for name in own.input), *(v.name for v in graph.output))
    ]
    return [*node.input, *inner]


def _infos(
    nodes: Iterable[onnx.NodeProto], types: Mapping[str, onnx.TypeProto], but: set[str]
) -> list[onnx.ValueInfoProto]:
    names = [name for node in nodes for name in node.output if name in types and name not in but]
    return [helper.make_value_info(name, types[name]) for name in names]


def _replace(field: Any, items: Iterable[Any]) -> None:
    """Let a repeated field hold these items, which may be in it."""
    kept = []
    for item in items:
        copy = type(item)()
        copy.CopyFrom(item)
        kept.append(copy)
    del field[:]
    field.extend(kept)
