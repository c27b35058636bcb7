"""Finds the points between the blocks of a state-space model: after the residual Add that closes a block.

From the graph alone: a depthwise Conv over the tokens (Mamba's short convolution), and behind it the first Add whose
other operand has the same shape ``[batch, tokens, features]``, does not come from the Conv, and is an ancestor of it.
"""

from __future__ import annotations

import onnx_ir as ir

from tsmerge_export.rewrite.dims import dims
from tsmerge_export.rewrite.points import Point, scope_of


def _depthwise(node: ir.Node) -> bool:
    """Whether a node is a Conv over one axis with one filter for each channel."""
    if node.op_type != "Conv" or node.domain not in ("", "ai.onnx") or node.inputs[0] is None:
        return False
    shape, groups = dims(node.inputs[0]), node.attributes.get_int("group", 1)
    return shape is not None and len(shape) == 3 and groups > 1 and shape[1] == groups


def find_blocks(graph: ir.Graph) -> list[Point]:
    """Points after the blocks of a state-space model, in order of execution; none in any other graph.

    Args:
        graph: dims known on every value, nodes in topological order.
    """
    nodes = list(graph)
    points: list[Point] = []
    for index, conv in enumerate(nodes):
        if not _depthwise(conv):
            continue
        before = _ancestors(conv)
        behind = set(conv.outputs)
        for node in nodes[index + 1 :]:
            mine = [value in behind for value in node.inputs]
            if not any(mine):
                continue
            shape = dims(node.outputs[0])
            if node.op_type == "Add" and sum(mine) == 1 and shape is not None and len(shape) == 3:
                other = node.inputs[mine.index(False)]
                if other is not None and other in before and dims(other) == shape:
                    points.append(Point(len(points), node, scope_of(node), hidden=mine.index(True)))
                    break
            behind.update(node.outputs)
    return points


def _ancestors(node: ir.Node) -> set[ir.Value]:
    seen: set[ir.Value] = set()
    stack = [value for value in node.inputs if value is not None]
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        seen.add(value)
        producer = value.producer()
        if producer is not None:
            stack.extend(v for v in producer.inputs if v is not None)
    return seen
