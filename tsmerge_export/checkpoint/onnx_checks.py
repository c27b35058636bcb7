"""Whether an ONNX graph is well formed, as far as code that reads it must be able to rely on it.

Runtimes check much of this, but only when they open the graph, and what prepares it for them comes first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import onnx

from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.onnx_model.weights import graphs
from tsmerge_export.untrusted.onnx_scan import STANDARD

MAX_DIMS = 32  # numpy's own limit up to version 1
_KINDS = {
    "sequence_type": "a sequence",
    "optional_type": "optional",
    "map_type": "a map",
    "sparse_tensor_type": "a sparse tensor",
    "opaque_type": "opaque",
}
_ELEMENTS = set(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}
# Fields of a tensor that hold its numbers, by element type; several small ones share int32_data.
_TYPED: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float_data",
    onnx.TensorProto.DOUBLE: "double_data",
    onnx.TensorProto.INT64: "int64_data",
    onnx.TensorProto.UINT64: "uint64_data",
    onnx.TensorProto.UINT32: "uint64_data",
    onnx.TensorProto.STRING: "string_data",
}
_PACKED = {"int4", "uint4", "float4e2m1", "int2", "uint2"}  # several numbers to a byte


def check_model(model: onnx.ModelProto, source: str) -> None:
    """Refuse what is malformed, before anything looks closer.

    Args:
        source: for the messages.

    Raises:
        UsageError: text that is no text, a tensor without its data, a node without the inputs or attributes that its
            operator needs, two nodes that compute one value.
        UnsupportedError: inputs that are no tensors, element types that do not exist, more than 32 dims.
    """
    if not _is_text(model):
        raise UsageError(f"{source}: corrupt (a name in it is no text)")
    opset = max((entry.version for entry in model.opset_import if entry.domain in STANDARD), default=0)
    for graph in graphs(model.graph):
        _check_values(graph, source, inner=graph is not model.graph)
        for tensor in graph.initializer:
            _check_tensor(tensor, f"{source}: weight {tensor.name[:80]!r}")
        _check_nodes(graph.node, source, opset, inner=False)
    for function in model.functions:
        own = max(
            (entry.version for entry in function.opset_import if entry.domain in STANDARD), default=opset
        )
        _check_nodes(function.node, source, own, inner=True)


def _is_text(message: Any) -> bool:
    """Whether all text inside is UTF-8: protobuf gives bytes where it is not. The numbers of tensors are left alone."""
    stack: list[Any] = [message]
    while stack:
        found = stack.pop()
        if isinstance(found, onnx.TensorProto):
            named: tuple[object, ...] = (found.name, found.doc_string)
            if not all(isinstance(text, str) for text in named):
                return False
            stack += found.external_data
            continue
        for field, value in found.ListFields():
            if field.type == field.TYPE_MESSAGE:
                stack += [value] if hasattr(value, "ListFields") else value
            elif field.type == field.TYPE_STRING:
                texts = [value] if isinstance(value, str | bytes) else value
                if not all(isinstance(text, str) for text in texts):
                    return False
    return True


def _check_values(graph: onnx.GraphProto, source: str, inner: bool) -> None:
    constants = {tensor.name for tensor in graph.initializer}
    for what, values in (("input", graph.input), ("output", graph.output), ("value", graph.value_info)):
        for value in values:
            name = f"{source}: {what} {value.name[:80]!r}"
            kind = value.type.WhichOneof("value")
            if kind is None:
                if what == "input" and not inner and value.name not in constants:
                    raise UnsupportedError(f"{name} has no type; export it with one")
                continue
            if kind in _KINDS:
                if what == "value" or inner:
                    continue
                raise UnsupportedError(f"{name} is {_KINDS[kind]}; only tensors can be inputs and outputs")
            tensor = value.type.tensor_type
            if tensor.elem_type not in _ELEMENTS and not (
                tensor.elem_type == 0 and (what != "input" or inner)
            ):
                raise UnsupportedError(f"{name} has element type {tensor.elem_type}, which does not exist")
            dims = [dim.dim_value for dim in tensor.shape.dim if dim.HasField("dim_value")]
            if what != "value":
                _check_dims(dims, len(tensor.shape.dim), name)


def _check_dims(dims: Iterable[int], rank: int, name: str) -> None:
    if rank > MAX_DIMS:
        raise UnsupportedError(f"{name} has {rank} dims, more than {MAX_DIMS}")
    negative = next((dim for dim in dims if dim < 0), None)
    if negative is not None:
        raise UnsupportedError(f"{name} has a dim of {negative}; give dynamic dims a name instead")


def _check_tensor(tensor: onnx.TensorProto, name: str) -> None:
    """Its dims and the data that it holds must agree: nothing is made up, and nothing is read behind the end."""
    kind = tensor.data_type
    if kind not in _ELEMENTS:
        raise UnsupportedError(f"{name} has element type {kind}, which does not exist")
    _check_dims(tensor.dims, len(tensor.dims), name)
    if tensor.HasField("segment"):
        raise UnsupportedError(f"{name} is a segment of a larger tensor")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return
    count = math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        held, wanted = len(tensor.raw_data), _bytes(kind, count)
    else:
        field = _TYPED.get(kind, "int32_data")
        field = "float_data" if kind == onnx.TensorProto.COMPLEX64 else field
        field = "double_data" if kind == onnx.TensorProto.COMPLEX128 else field
        held, wanted = len(getattr(tensor, field)), count
        if kind in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
            wanted = 2 * count
        elif onnx.TensorProto.DataType.Name(kind).lower() in _PACKED:
            wanted = _bytes(kind, count)
    if held != wanted:
        raise UsageError(f"{name} {list(tensor.dims)} does not hold as many numbers as its dims say")


def _bytes(kind: int, count: int) -> int:
    """Bytes that ``count`` numbers take; -1 for text, which has none."""
    name = onnx.TensorProto.DataType.Name(kind).lower()
    if kind == onnx.TensorProto.STRING:
        return -1
    if name in _PACKED:
        each = 4 if name.endswith("2") and name != "float4e2m1" else 2
        return -(-count // each)
    try:
        return count * onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize
    except (KeyError, ValueError, TypeError):
        return -1


def _check_nodes(nodes: Iterable[onnx.NodeProto], source: str, opset: int, inner: bool) -> None:
    made: set[str] = set()
    for node in nodes:
        name = f"{source}: node {(node.name or node.op_type)[:80]!r} ({node.op_type[:40]})"
        for output in node.output:
            if output and output in made:
                raise UsageError(f"{name} computes {output[:80]!r}, which another node computes too")
            made.add(output)
        if not any(node.output):
            raise UsageError(f"{name} has no output")
        for attribute in node.attribute:
            if attribute.ref_attr_name and not inner:
                raise UsageError(f"{name} refers to an attribute of a function, and is in none")
            for tensor in (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors):
                _check_tensor(tensor, f"{name}, attribute {attribute.name[:40]!r}")
        if node.domain in STANDARD:
            _check_against_schema(node, name, opset)


@dataclass(frozen=True)
class _Operator:
    """What the standard says: number of inputs and outputs, which inputs are needed, attributes with their types."""

    inputs: tuple[int, int]
    outputs: int
    needed: tuple[bool, ...]
    attributes: dict[str, int]
    required: frozenset[str]


@cache
def _operator(op_type: str, opset: int) -> _Operator | None:
    try:
        schema: Any = onnx.defs.get_schema(op_type, min(opset, onnx.defs.onnx_opset_version()), "")
    except onnx.defs.SchemaError:
        return None
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    attributes = schema.attributes
    return _Operator(
        (schema.min_input, schema.max_input),
        schema.max_output,
        tuple(formal.option != optional for formal in schema.inputs),
        {name: own.type.value for name, own in attributes.items()},
        frozenset(name for name, own in attributes.items() if own.required),
    )


def _check_against_schema(node: onnx.NodeProto, name: str, opset: int) -> None:
    operator = _operator(node.op_type, max(1, opset))
    if operator is None:
        raise UnsupportedError(f"{name} is no operator of the standard's opset {opset}")
    given = list(node.input)
    least, most = operator.inputs
    fits = least <= len(given) <= most and len(node.output) <= operator.outputs
    if not fits or any(needs and not value for needs, value in zip(operator.needed, given, strict=False)):
        raise UsageError(
            f"{name} has {sum(map(bool, given))} inputs and {len(node.output)} outputs; {node.op_type} has others"
        )
    for attribute in node.attribute:
        wanted = operator.attributes.get(attribute.name)
        if wanted is None or (wanted != attribute.type and not attribute.ref_attr_name):
            raise UsageError(
                f"{name} has an attribute {attribute.name[:40]!r} that {node.op_type} does not have"
            )
    missing = operator.required - {attribute.name for attribute in node.attribute}
    if missing:
        raise UsageError(f"{name} has no attribute {min(missing)!r}")
