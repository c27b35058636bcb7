"""What a serialised ONNX model says, read without onnx: for code that must not need it, such as running a bundle.

Only what :mod:`.onnx_risk` asks for, under the names that protobuf's classes have. Scalars that are there twice count
by their last, messages by both together, as protobuf has it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tsmerge_export.untrusted.onnx_scan import _Buffer, _text, _varint

_UNSET = b""  # no contents; contents are views


@dataclass
class Tensor:
    """A TensorProto; ``raw_data`` is a view of the file."""

    name: str = ""
    data_type: int = 0
    data_location: int = 0
    dims: list[int] = field(default_factory=list)
    int32_data: list[int] = field(default_factory=list)
    int64_data: list[int] = field(default_factory=list)
    raw_data: _Buffer = _UNSET


@dataclass
class Attribute:
    """An AttributeProto."""

    name: str = ""
    ref_attr_name: str = ""
    i: int = 0
    ints: list[int] = field(default_factory=list)
    t: Tensor = field(default_factory=Tensor)
    g: Graph = field(default_factory=lambda: Graph())
    graphs: list[Graph] = field(default_factory=list)


@dataclass
class Node:
    """A NodeProto."""

    op_type: str = ""
    domain: str = ""
    overload: str = ""
    input: list[str] = field(default_factory=list)
    output: list[str] = field(default_factory=list)
    attribute: list[Attribute] = field(default_factory=list)


@dataclass
class ElementType:
    """A TypeProto.Tensor."""

    elem_type: int = 0


@dataclass
class Type:
    """A TypeProto; of what is no tensor the element type is 0."""

    tensor_type: ElementType = field(default_factory=ElementType)


@dataclass
class Value:
    """A ValueInfoProto."""

    name: str = ""
    type: Type = field(default_factory=Type)


@dataclass
class SparseTensor:
    """A SparseTensorProto."""

    values: Tensor = field(default_factory=Tensor)


@dataclass
class Graph:
    """A GraphProto."""

    node: list[Node] = field(default_factory=list)
    initializer: list[Tensor] = field(default_factory=list)
    sparse_initializer: list[SparseTensor] = field(default_factory=list)
    input: list[Value] = field(default_factory=list)
    output: list[Value] = field(default_factory=list)


@dataclass
class Function:
    """A FunctionProto."""

    name: str = ""
    domain: str = ""
    overload: str = ""
    input: list[str] = field(default_factory=list)
    output: list[str] = field(default_factory=list)
    node: list[Node] = field(default_factory=list)
    attribute_proto: list[Attribute] = field(default_factory=list)


@dataclass
class Model:
    """A ModelProto."""

    graph: Graph = field(default_factory=Graph)
    functions: list[Function] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)


def read_model(path: Path) -> Model:
    """Read a file that :func:`.onnx_scan.check_file` has passed.

    Raises:
        OSError: it cannot be read. IndexError, ValueError: it is no message.
    """
    return model_of(_mapped(path))


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def opsets_of(model: Path | bytes) -> dict[str, int]:
    """The version of each domain that a model, a file or its bytes, imports. Raises as :func:`read_model`."""
    data: _Buffer = model if isinstance(model, bytes) else _mapped(model)
    found: dict[str, int] = {}
    for number, entry, _ in _fields(data):
        if number == 8:
            parts = {part: (content, value) for part, content, value in _fields(entry)}
            found[_text(parts.get(1, (_UNSET, 0))[0])] = parts.get(2, (_UNSET, 0))[1]
    return found


def model_of(data: _Buffer) -> Model:
    """As :func:`read_model`, of bytes."""
    graph: _Buffer = _UNSET
    functions, metadata = [], {}
    for number, value, _ in _fields(data):
        if number == 7:
            graph = _more(graph, value)
        elif number == 14:
            entry = {part: _text(content) for part, content, _ in _fields(value) if part in (1, 2)}
            metadata[entry.get(1, "")] = entry.get(2, "")
        elif number == 25:
            functions.append(_function(value))
    return Model(_graph(graph), functions, metadata)


def _fields(data: _Buffer) -> Iterator[tuple[int, _Buffer, int]]:
    """Field number, contents where it has a length, number where it is a whole one."""
    data, position = memoryview(data), 0
    end = len(data)
    while position < end:
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == 2:
            size, position = _varint(data, position)
            yield tag >> 3, data[position : position + size], 0
            position += size
        elif kind == 0:
            number, position = _varint(data, position)
            yield tag >> 3, _UNSET, _signed(number)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise ValueError("no message")
    if position > end:
        raise ValueError("truncated")


def _signed(number: int) -> int:
    number &= 2**64 - 1
    return number - 2**64 if number >= 2**63 else number


def _numbers(packed: _Buffer, number: int) -> Iterator[int]:
    """Of a repeated field of whole numbers, packed or one by one."""
    if isinstance(packed, bytes):
        yield number
    position = 0
    while position < len(packed):
        value, position = _varint(packed, position)
        yield _signed(value)


def _more(before: _Buffer, value: _Buffer) -> _Buffer:
    return b"".join((before, value)) if len(before) else value


def _graph(data: _Buffer) -> Graph:
    out = Graph()
    for number, value, _ in _fields(data):
        if number == 1:
            out.node.append(_node(value))
        elif number == 5:
            out.initializer.append(_tensor(value))
        elif number == 11:
            out.input.append(_value(value))
        elif number == 12:
            out.output.append(_value(value))
        elif number == 15:
            values: _Buffer = _UNSET
            for inner, content, _ in _fields(value):
                values = _more(values, content) if inner == 1 else values
            out.sparse_initializer.append(SparseTensor(_tensor(values)))
    return out


def _node(data: _Buffer) -> Node:
    out = Node()
    for number, value, _ in _fields(data):
        if number == 1:
            out.input.append(_text(value))
        elif number == 2:
            out.output.append(_text(value))
        elif number == 4:
            out.op_type = _text(value)
        elif number == 5:
            out.attribute.append(_attribute(value))
        elif number == 7:
            out.domain = _text(value)
        elif number == 8:
            out.overload = _text(value)
    return out


def _attribute(data: _Buffer) -> Attribute:
    out = Attribute()
    tensor: _Buffer = _UNSET
    graph: _Buffer = _UNSET
    for number, value, whole in _fields(data):
        if number == 1:
            out.name = _text(value)
        elif number == 3:
            out.i = whole
        elif number == 5:
            tensor = _more(tensor, value)
        elif number == 6:
            graph = _more(graph, value)
        elif number == 8:
            out.ints += _numbers(value, whole)
        elif number == 11:
            out.graphs.append(_graph(value))
        elif number == 21:
            out.ref_attr_name = _text(value)
    out.t, out.g = _tensor(tensor), _graph(graph)
    return out


def _tensor(data: _Buffer) -> Tensor:
    out = Tensor()
    for number, value, whole in _fields(data):
        if number == 1:
            out.dims += _numbers(value, whole)
        elif number == 2:
            out.data_type = whole
        elif number == 5 and len(value) < 2**16:  # more are no constants that say how large something is
            out.int32_data += _numbers(value, whole)
        elif number == 7 and len(value) < 2**16:
            out.int64_data += _numbers(value, whole)
        elif number == 8:
            out.name = _text(value)
        elif number == 9:
            out.raw_data = value
        elif number == 14:
            out.data_location = whole
    return out


def _value(data: _Buffer) -> Value:
    out = Value()
    kind: _Buffer = _UNSET
    tensor: _Buffer = _UNSET
    for number, value, _ in _fields(data):
        if number == 1:
            out.name = _text(value)
        elif number == 2:
            kind = _more(kind, value)
    for number, value, _ in _fields(kind):
        tensor = _more(tensor, value) if number == 1 else tensor
    for number, _, whole in _fields(tensor):
        if number == 1:
            out.type.tensor_type.elem_type = whole
    return out


def _function(data: _Buffer) -> Function:
    out = Function()
    for number, value, _ in _fields(data):
        if number == 1:
            out.name = _text(value)
        elif number == 4:
            out.input.append(_text(value))
        elif number == 5:
            out.output.append(_text(value))
        elif number == 7:
            out.node.append(_node(value))
        elif number == 10:
            out.domain = _text(value)
        elif number == 11:
            out.attribute_proto.append(_attribute(value))
        elif number == 13:
            out.overload = _text(value)
    return out
