"""ONNX files: read whole, external data from the model's own folder only, sizes capped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from onnx import external_data_helper, inliner

from tsmerge_export.checkpoint.limits import check_model_bytes
from tsmerge_export.errors import UnsupportedError, UsageError

_STANDARD = ("", "ai.onnx")
_RUNTIME_DOMAINS = ("com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")


def read_onnx(path: Path) -> onnx.ModelProto:
    """A model with its weights in memory and its local functions inlined: standard operators only.

    Raises:
        UsageError: missing, truncated, above the size cap, or with external data that is missing or lies elsewhere.
        UnsupportedError: operators outside the ONNX standard, or weights in a sparse format.
    """
    try:
        check_model_bytes(str(path), path.stat().st_size)
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception:  # protobuf and onnx raise errors of several unrelated classes
        raise UsageError(f"{path}: truncated or not an ONNX file") from None
    if not model.graph.node:
        raise UsageError(f"{path}: truncated or not an ONNX file (it has no operators)")
    _check_external(model, path)
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # as above
        reason = " ".join(str(error).split())[:160]
        raise UsageError(f"{path}: its external data cannot be read: {reason}") from None
    _check_operators(model, path)
    return inliner.inline_local_functions(model) if model.functions else model


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    nodes = [node for function in model.functions for node in function.node]
    for graph in _graphs(model.graph):
        yield from graph.initializer
        nodes.extend(graph.node)
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _check_external(model: onnx.ModelProto, path: Path) -> None:
    """Refuse external data that is not a file in the model's folder, or that is too much."""
    folder = path.parent.resolve()
    used: dict[Path, int] = {}
    for tensor in _tensors(model):
        if not external_data_helper.uses_external_data(tensor):
            continue
        try:
            info = external_data_helper.ExternalDataInfo(tensor)
            offset, length = int(info.offset or 0), int(info.length or 0)
        except (TypeError, ValueError):
            raise UsageError(
                f"{path}: the external data of {tensor.name!r} are not described correctly"
            ) from None
        location = str(info.location)
        posix, windows = PurePosixPath(location), PureWindowsPath(location)
        inside = (
            bool(location)
            and "\\" not in location
            and "\0" not in location
            and not posix.is_absolute()
            and not windows.drive
            and ".." not in posix.parts
        )
        file = path.parent / location if inside else path
        if not inside or not file.resolve().is_relative_to(folder):
            raise UsageError(
                f"{path}: external data {location!r} leave the model's folder; put them beside the model"
            )
        if not file.is_file():
            raise UsageError(f"{path}: external data {location!r} are missing; put them beside the model")
        size = file.stat().st_size
        if offset < 0 or length < 0 or offset + length > size:
            raise UsageError(f"{path}: external data {location!r} are truncated")
        used[file] = used.get(file, 0) + (length or size - offset)
    # What is read counts: many tensors may point at one part of a file.
    check_model_bytes(str(path), sum(used.values()))


def _check_operators(model: onnx.ModelProto, path: Path) -> None:
    if any(graph.sparse_initializer for graph in _graphs(model.graph)):
        raise UnsupportedError(f"{path}: sparse weights are not supported")
    if any(entry.domain == "tsmerge" for entry in model.opset_import):  # inlined or not
        raise UnsupportedError(f"{path}: merges tokens already; give the unmerged model")
    local = {(function.domain, function.name) for function in model.functions}
    nodes = [node for graph in _graphs(model.graph) for node in graph.node]
    nodes += [node for function in model.functions for node in function.node]
    foreign = sorted(
        {
            f"{node.domain}::{node.op_type}"
            for node in nodes
            if node.domain not in _STANDARD and (node.domain, node.op_type) not in local
        }
    )
    if not foreign:
        return
    what = f"{path}: holds operators outside the ONNX standard ({', '.join(foreign[:4])})"
    if any(name.partition("::")[0] in _RUNTIME_DOMAINS for name in foreign):
        raise UnsupportedError(
            f"{what}: the file was optimised for one runtime; give the plain export it was made from"
        )
    raise UnsupportedError(what)
