"""Whether every length in a graph is a constant: what a file of one shape must be, and what it is refused for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx

from tsmerge_export.backends.onnxruntime.static.fold import known

#: How long their results are follows from values, or their bodies run by turns that the CPU counts.
_VARYING = {
    "Compress", "If", "Loop", "NonMaxSuppression", "NonZero", "Range", "Scan", "SequenceLength", "Shape", "Size",
    "SplitToSequence", "Unique",
}  # fmt: skip
#: Inputs that a GPU's kernel reads on the CPU: where they are computed, it waits for the GPU.
_ON_CPU: Mapping[str, tuple[int, ...]] = {
    "Clip": (1, 2), "ConstantOfShape": (0,), "CumSum": (1,), "Expand": (1,), "OneHot": (1,), "Pad": (1, 2, 3),
    "Reshape": (1,), "Resize": (1, 2, 3), "Slice": (1, 2, 3, 4), "Split": (1,), "Squeeze": (1,), "Tile": (1,),
    "TopK": (1,), "Unsqueeze": (1,),
}  # fmt: skip


@dataclass(frozen=True)
class Block:
    """The nodes of the graph, or of a function.

    Attributes:
        key: domain, name and overload of the function; None of the graph.
        types: of values, where they are known. constants: names of values that are.
    """

    key: tuple[str, str, str] | None
    nodes: list[onnx.NodeProto]
    types: Mapping[str, onnx.TypeProto]
    constants: frozenset[str]


def blocks(model: onnx.ModelProto) -> Iterator[Block]:
    """The graph, then the functions."""
    graph = model.graph
    types = {value.name: value.type for value in (*graph.input, *graph.output, *graph.value_info)}
    types |= {
        tensor.name: onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        for tensor in graph.initializer
    }
    yield _block(None, list(graph.node), types, {tensor.name for tensor in graph.initializer})
    for one in model.functions:
        key = (one.domain, one.name, one.overload)
        yield _block(key, list(one.node), {value.name: value.type for value in one.value_info}, set())


def _block(
    key: tuple[str, str, str] | None,
    nodes: list[onnx.NodeProto],
    types: Mapping[str, onnx.TypeProto],
    constants: set[str],
) -> Block:
    constants = constants | {node.output[0] for node in nodes if node.op_type == "Constant"}
    for node in nodes:
        if node.input and all(name in constants for name in node.input if name):
            constants |= set(node.output)
    return Block(key, nodes, types, frozenset(constants))


def faults(model: onnx.ModelProto) -> list[str]:
    """Nodes whose lengths are not constant, a line each; none where all are.

    Args:
        model: from :func:`~.fold.fixed`.
    """
    found = []
    for block in blocks(model):
        for node in block.nodes:
            if node.output[0] in block.constants:
                continue
            reads = [node.input[at] for at in _ON_CPU.get(node.op_type, ()) if at < len(node.input)]
            if node.op_type.startswith("Reduce"):
                reads = list(node.input[1:])
            varies = node.op_type in _VARYING or any(name and name not in block.constants for name in reads)
            if varies or any(name and known(block.types.get(name)) is None for name in node.output):
                named = f" {node.name!r}" if node.name else ""
                found.append(f"{node.op_type}{named}: its lengths follow from what is computed before it")
    return found
