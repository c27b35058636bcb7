"""Brings an ONNX file to the form that the rewriter works on: opset 18 or newer, attention in single operators."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import onnx
from onnx import version_converter

from tsmerge_export.compile.onnx_export import MAX_OPSET, MIN_OPSET
from tsmerge_export.errors import UnsupportedError, first_line
from tsmerge_export.graphs.layer_norm import join_layer_norms
from tsmerge_export.graphs.nodes import names_used
from tsmerge_export.graphs.unfuse import unfuse

OLDEST_OPSET = 13
_RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operator set that a model uses (0: none)."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def prepare(model: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """A copy that computes the same with the operators the rewriter knows, every node with a name of its own.

    Whether it does compute the same is proved where it is run, not here.

    Raises:
        UnsupportedError: an opset below 13 or above 23, random numbers, a conversion that fails.
    """
    opset = opset_of(model)
    if not OLDEST_OPSET <= opset <= MAX_OPSET:
        raise UnsupportedError(
            f"{source}: opset {opset} is not supported; export it with opset {OLDEST_OPSET} to {MAX_OPSET}"
        )
    drawn = sorted({node.op_type for node in model.graph.node if node.op_type in _RANDOM})
    if drawn:
        raise UnsupportedError(
            f"{source}: draws random numbers ({', '.join(drawn)}), so that nothing can be proved about its outputs; "
            "export it with a fixed choice instead"
        )
    out = onnx.ModelProto()
    out.CopyFrom(model)
    # Older formats want every weight among the inputs, and the converter insists on it.
    out.ir_version = max(out.ir_version, 4)
    _sort(out, source)
    if opset < MIN_OPSET:
        out = _converted(out, source, opset)
    constants = {tensor.name for tensor in out.graph.initializer}
    inputs = [value for value in out.graph.input if value.name not in constants]
    del out.graph.input[:]
    out.graph.input.extend(inputs)  # older files list every weight as an input
    if not inputs or not out.graph.output:
        raise UnsupportedError(f"{source}: has no inputs or no outputs")
    _fold_copies(out)
    unfuse(out)
    join_layer_norms(out)
    # Shapes that other tools noted are often wrong by name: equal dims with two names, or two dims with one.
    del out.graph.value_info[:]
    taken: set[str] = set()
    for index, node in enumerate(out.graph.node):
        if not node.name or node.name in taken:
            node.name = f"node_{index}" if f"node_{index}" not in taken else f"node_{index}_{len(taken)}"
        taken.add(node.name)
    return out


def _sort(model: onnx.ModelProto, source: str) -> None:
    """Put every node behind those it reads from: the standard asks for it, ONNX Runtime does not."""
    made_by = {name: index for index, node in enumerate(model.graph.node) for name in node.output if name}
    needs = {
        index: {made_by[name] for name in names_used(node) if name in made_by}
        for index, node in enumerate(model.graph.node)
    }
    if all(first < index for index, found in needs.items() for first in found):
        return
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError:
        raise UnsupportedError(f"{source}: its operators form a cycle") from None
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes[index] for index in order)


def _fold_copies(model: onnx.ModelProto) -> None:
    """Take out Identity nodes of weights: the old exporter writes equal weights so, and hides what they are.

    A Concat of one value is an Identity too (a key-value cache that begins empty).
    """
    for node in model.graph.node:
        if node.op_type == "Concat" and len(node.input) == 1:
            node.op_type = "Identity"
            del node.attribute[:]
    constants = {tensor.name for tensor in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    renamed: dict[str, str] = {}
    nodes = []
    for node in model.graph.node:
        source = renamed.get(node.input[0], node.input[0]) if node.input else ""
        if node.op_type == "Identity" and source in constants and node.output[0] not in outputs:
            renamed[node.output[0]] = source
        else:
            nodes.append(node)
    if not renamed:
        return
    kept = list(nodes)
    for node in kept:
        _rename(node, renamed)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _rename(node: onnx.NodeProto, names: dict[str, str]) -> None:
    for index, name in enumerate(node.input):
        node.input[index] = names.get(name, name)
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for inner in graph.node:
                _rename(inner, names)
            for value in graph.output:
                value.name = names.get(value.name, value.name)


def _converted(model: onnx.ModelProto, source: str, opset: int) -> onnx.ModelProto:
    try:
        return version_converter.convert_version(model, MIN_OPSET)
    except Exception as error:  # the converter raises RuntimeError, or whatever an adapter raises
        reason = first_line(error)
        raise UnsupportedError(
            f"{source}: opset {opset} cannot be brought to {MIN_OPSET} ({reason}); export it with opset {MIN_OPSET} "
            "or newer"
        ) from error
