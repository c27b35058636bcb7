"""What an exported file does: where it merges, how many tokens before and after, what that saves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from tsmerge_export import ops
from tsmerge_export.bundle import Bundle, ComponentInfo
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.inspection import flops
from tsmerge_export.untrusted import trial
from tsmerge_export.untrusted.isolated import within_memory

_LENGTHS = (512, 256, 128, 64, 32, 16)


def inspect_path(path: str | Path, *, batch: int = 1, length: int | None = None) -> dict[str, Any]:
    """Inspect an ONNX file or every component of a bundle.

    Args:
        path: an ``.onnx`` file or a bundle's folder (whose hashes are verified).
        batch, length: input size at which tokens and FLOPs are counted; by default the first of 512, 256, 128, ..
            that each file runs at.

    Returns:
        JSON-ready: ``path`` and ``components``, a list of what :func:`inspect_file` gives.

    Raises:
        UsageError: no such file, no ONNX file, or no bundle.
        UnsupportedError: it does not run at this size.
    """
    where = Path(path)
    if where.is_dir():
        bundle = Bundle.open(where)
        components = [_inspect_component(component, batch, length) for component in bundle.components]
    elif where.is_file():
        components = [inspect_file(where, batch=batch, length=length)]
    else:
        raise UsageError(f"{path}: no such file or folder; give an ONNX file or a bundle")
    return {"path": str(path), "components": components}


def _inspect_component(component: ComponentInfo, batch: int, length: int | None) -> dict[str, Any]:
    """The file's own findings, with what the manifest knows: layers, scopes, barriers, merges that are inlined."""
    found = inspect_file(component.file, batch=batch, length=length)
    known = {merge.get("node"): merge for merge in component.merges}
    for merge in found["merges"]:
        for key in ("layer", "scope"):
            if merge[key] is None:
                merge[key] = known.get(merge["name"], {}).get(key)
    return found | {
        "name": component.name,
        "described": len(component.merges),
        "barriers": list(component.barriers),
    }


def inspect_file(path: Path, *, batch: int = 1, length: int | None = None) -> dict[str, Any]:
    """Inspect one ONNX file; see :func:`inspect_path` for ``length``.

    Returns:
        JSON-ready: ``name``, ``file``, ``opset``, ``size`` in bytes, ``batch``, ``length``; ``merges`` (per merge node:
        name, op_type, layer, scope, tokens ``before`` and ``after``, whether ``after`` is ``data_dependent``,
        attributes), ``described`` (how many merges there are), ``barriers``, ``nodes`` (count by op type, ``domain::``
        first for other domains);
        ``flops`` (``unmerged``, ``merged``, ``merge_nodes``, ``ratio``, ``uncounted``; ``unmerged`` is None where the
        file has no merge nodes left, as in the inlined form, or was made for one shape, which is then ``batch`` and
        ``length``).

    Raises:
        UsageError: not an ONNX file. UnsupportedError: it does not run at this size.
    """
    model = flops.load_graph(path)
    request = {"path": str(path), "batch": batch, "length": length}
    apart = trial.check(model, "tsmerge_export.inspection.inspect:task", str(path), request)
    if apart is not None:
        return apart
    refused: UnsupportedError | None = None
    for size in _LENGTHS if length is None else (length,):
        try:
            with within_memory():
                return _inspected(model, path, batch, size)
        except UnsupportedError as error:  # many models have as many positions as they were made for
            refused = refused or error
    assert refused is not None
    raise refused


def task(request: dict[str, Any]) -> dict[str, Any]:
    """:func:`inspect_file` for a process of its own."""
    return inspect_file(Path(request["path"]), batch=request["batch"], length=request["length"])


def _inspected(model: onnx.ModelProto, path: Path, batch: int, length: int) -> dict[str, Any]:
    nodes = [
        node
        for node in model.graph.node
        if node.domain == ops.DOMAIN and node.op_type in ops.merge_op_types()
    ]
    if not all(node.input and node.output and node.input[0] and node.output[0] for node in nodes):
        raise UnsupportedError(f"{path}: has merge nodes without tokens, which are none of this project's")
    inputs = flops.feeds(model, batch, length)
    one_shape = flops.of_one_shape(model)
    if one_shape:
        batch, length = next(
            (value.shape[:2] for value in inputs.values() if value.ndim > 1), (batch, length)
        )
    ends = [name for node in nodes for name in (node.input[0], node.output[0])]
    products, shapes = flops.savings(model, inputs, ends, merges=bool(nodes) and not one_shape)
    return {
        "name": path.stem,
        "file": path.name,
        "size": path.stat().st_size,
        "batch": batch,
        "length": length,
        "opset": max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=None),
        "merges": [_merge(node, shapes) for node in nodes],
        "described": len(nodes),
        "barriers": [_barrier(node) for node in model.graph.node if "barrier" in _metadata(node)],
        "nodes": dict(sorted(Counter(map(_kind, model.graph.node)).items())),
        "flops": products,
    }


def _kind(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def _metadata(node: onnx.NodeProto) -> dict[str, str]:
    """What the rewriter noted on a node, keys without their ``tsmerge.`` prefix."""
    prefix = f"{ops.DOMAIN}."
    return {p.key.removeprefix(prefix): p.value for p in node.metadata_props if p.key.startswith(prefix)}


def _barrier(node: onnx.NodeProto) -> dict[str, str]:
    notes = _metadata(node)
    return {
        "node": node.name,
        "op_type": node.op_type,
        "scope": notes.get("scope", ""),
        "reason": notes["barrier"],
    }


def _merge(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    notes = _metadata(node)
    before, after = shapes[node.input[0]], shapes[node.output[0]]
    if min(len(before), len(after)) < 2:
        raise UnsupportedError(f"merge node {node.name!r} does not take tokens [batch, tokens, ..]")
    return {
        "name": node.name,
        "op_type": node.op_type,
        "layer": int(notes["layer"]) if notes.get("layer", "").isdecimal() else None,
        "scope": notes.get("scope"),
        "before": before[1],
        "after": after[1],
        "attributes": ops.attributes_of(node),
        "data_dependent": ops.schema(node.op_type).data_dependent,
    }
