"""Weights of ONNX models that are too large for a protobuf message, which ends at 2 GiB: they stay in files.

A model that is read here and holds more than ``LIMIT`` bytes keeps its large initializers where they are: each is an
external tensor whose location is an absolute path, so that a copy of the model, of whatever part, still finds it. What
is small, or belongs to a branch or a loop, is read. protobuf cannot tell the size: ``ByteSize()`` raises above 2 GiB.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from tsmerge_export.errors import UsageError
from tsmerge_export.files.paths import beside

LIMIT = 1_500_000_000
"""Bytes of weights from which on a model is written and run with its weights in a file."""
_LEAST = 1024  # smaller tensors stay in the graph: shape inference and constant folding read them
_ALIGNMENT = 4096  # ONNX Runtime maps pages
_IN_FILES = {
    onnx.TensorProto.BOOL, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16,
    onnx.TensorProto.INT16, onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.INT8,
    onnx.TensorProto.UINT16, onnx.TensorProto.UINT32, onnx.TensorProto.UINT64, onnx.TensorProto.UINT8,
}  # fmt: skip


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those inside its nodes, at any depth."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from graphs(inner)


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model: initializers and attributes, those of subgraphs and functions included."""
    nodes = [node for function in model.functions for node in function.node]
    for graph in graphs(model.graph):
        yield from graph.initializer
        nodes.extend(graph.node)
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _bytes_of(tensor: onnx.TensorProto) -> int:
    """From type and dims: to read a field of raw data copies it."""
    if tensor.data_type in (onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED):
        return 0
    width = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return width * math.prod(tensor.dims)


def is_large(model: onnx.ModelProto) -> bool:
    """Whether a model's weights are more than belongs into one message, or are in files already."""
    return any(map(uses_external_data, model.graph.initializer)) or (
        sum(map(_bytes_of, tensors(model))) >= LIMIT
    )


def array_of(tensor: onnx.TensorProto) -> NDArray[Any]:
    """A tensor's values; those that are in a file are mapped, not read."""
    if not uses_external_data(tensor):
        return onnx.numpy_helper.to_array(tensor)
    info, dims = ExternalDataInfo(tensor), tuple(tensor.dims)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if not math.prod(dims):
        return np.empty(dims, dtype)
    return np.memmap(str(info.location), dtype, "r", int(info.offset or 0), dims)


def read(path: Path, model: onnx.ModelProto | None = None) -> onnx.ModelProto:
    """A model with its weights in memory, or in files as the head of this module says.

    Args:
        model: what the file holds, where that is read already.

    Raises:
        UsageError: external data are missing, truncated, or not in the folder of ``path`` (see :func:`.paths.beside`).
    """
    model = onnx.load(path, load_external_data=False) if model is None else model
    external = [tensor for tensor in tensors(model) if uses_external_data(tensor)]
    if not external:
        return model
    files = [_Part.of(tensor, path) for tensor in external]
    large = sum(map(_bytes_of, tensors(model))) >= LIMIT
    weights = list(model.graph.initializer)
    for tensor, part in zip(external, files, strict=True):
        inner = not any(tensor is weight for weight in weights)
        if large and not inner and part.length >= _LEAST and tensor.data_type in _IN_FILES:
            refer(tensor, str(part.file), part.offset, part.length)
        else:
            _inline(tensor, part.read())
    return model


class _Part:
    """Where the external data of a tensor are: a part of a file beside the model."""

    def __init__(self, file: Path, offset: int, length: int) -> None:
        self.file, self.offset, self.length = file, offset, length

    @classmethod
    def of(cls, tensor: onnx.TensorProto, path: Path) -> _Part:
        """Raises UsageError where it is none, or has not as many bytes as the tensor."""
        info: Any
        try:
            info = ExternalDataInfo(tensor)
            offset, length = int(info.offset or 0), int(info.length or 0)
            needed = _bytes_of(tensor)
        except (KeyError, TypeError, ValueError):
            raise UsageError(
                f"{path}: the external data of {tensor.name!r} are not described correctly"
            ) from None
        location = str(info.location)
        file = beside(path, location)
        if file is None:
            raise UsageError(
                f"{path}: external data {location!r} leave the model's folder; put them beside the model"
            )
        try:
            size = file.stat().st_size if file.is_file() else None
        except OSError as error:
            raise UsageError(
                f"{path}: external data {location!r} cannot be read ({error.strerror})"
            ) from None
        if size is None:
            raise UsageError(f"{path}: external data {location!r} are missing; put them beside the model")
        if offset < 0 or length < 0 or offset + length > size:
            raise UsageError(f"{path}: external data {location!r} are truncated")
        length = length or size - offset
        if tensor.data_type in _IN_FILES and length != needed:
            raise UsageError(
                f"{path}: external data {location!r} hold {length} bytes for {tensor.name!r}, which needs {needed}"
            )
        return cls(file, offset, length)

    def read(self) -> bytes:
        with self.file.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


def external_bytes(model: onnx.ModelProto, path: Path) -> int:
    """How much of other files a model reads. What is read counts: many tensors may name one part of a file.

    Raises:
        UsageError: as :func:`read`.
    """
    return sum(_Part.of(tensor, path).length for tensor in tensors(model) if uses_external_data(tensor))


def _inline(tensor: onnx.TensorProto, content: bytes) -> None:
    tensor.raw_data = content
    tensor.ClearField("data_location")
    del tensor.external_data[:]


def refer(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    """Let a tensor's content be that part of a file."""
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(field)
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def apart(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """A copy without its large initializers, which are marked as external, and their values by name."""
    arrays = {
        tensor.name: array_of(tensor)
        for tensor in model.graph.initializer
        if uses_external_data(tensor) or (tensor.data_type in _IN_FILES and _bytes_of(tensor) >= _LEAST)
    }
    out = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _copy(out, field, value)
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            _copy(out.graph, field, value)
    for tensor in model.graph.initializer:
        if tensor.name not in arrays:
            out.graph.initializer.append(tensor)
            continue
        new = out.graph.initializer.add(name=tensor.name, data_type=tensor.data_type)
        new.dims.extend(tensor.dims)
        refer(new, tensor.name, 0, arrays[tensor.name].nbytes)
    return out, arrays


def _copy(message: Any, field: Any, value: Any) -> None:
    if hasattr(value, "MergeFrom"):  # a message, or a list of messages or numbers
        getattr(message, field.name).MergeFrom(value)
    else:
        setattr(message, field.name, value)


def write(model: onnx.ModelProto, path: Path) -> None:
    """Write a model; where its weights are large they go to ``<name>.data`` beside it, one after the other.

    Raises:
        OSError: it cannot be written.
    """
    if not is_large(model):
        onnx.save_model(model, path)
        return
    light, arrays = apart(model)
    name = f"{path.name}.data"
    with path.with_name(name).open("wb") as out:
        for tensor in light.graph.initializer:
            if tensor.name in arrays:
                out.write(bytes(-out.tell() % _ALIGNMENT))
                array = arrays.pop(tensor.name)
                refer(tensor, name, out.tell(), array.nbytes)
                np.ascontiguousarray(array).tofile(out)
    onnx.save_model(light, path)


def to_files(model: ir.Model, folder: Path) -> ir.Model:
    """The model itself, its large initializers now in a file in ``folder`` where they are more than ``LIMIT`` bytes.

    Raises:
        OSError: the file cannot be written.
    """
    weights = [value for value in model.graph.initializers.values() if value.const_value is not None]
    if sum(value.const_value.nbytes for value in weights if value.const_value is not None) < LIMIT:
        return model
    path = folder / "weights.data"
    with path.open("ab") as out:
        for value in weights:
            tensor = value.const_value
            if tensor is None or tensor.nbytes < _LEAST or tensor.dtype.value not in _IN_FILES:
                continue
            out.write(bytes(-out.tell() % _ALIGNMENT))
            offset = out.tell()
            out.write(tensor.tobytes())
            value.const_value = ir.ExternalTensor(
                str(path.resolve()), offset, out.tell() - offset, tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()), name=value.name or "",
            )  # fmt: skip
    return model


def write_model(proto: onnx.ModelProto, path: Path) -> None:
    """Write a model; weights beyond what a protobuf message holds go to a file beside it. UsageError: it cannot."""
    proto.producer_name = "tsmerge-export"
    try:
        write(proto, path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from error
