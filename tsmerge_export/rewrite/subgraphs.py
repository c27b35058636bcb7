"""What the subgraphs of a node (branches of an If, the body of a Loop or Scan) read of the graph around them."""

from __future__ import annotations

import onnx_ir as ir


def nodes_inside(node: ir.Node) -> list[ir.Node]:
    """The nodes of a node's subgraphs (the body of a Scan), at any depth."""
    graphs = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
    inner = [item for graph in graphs for item in graph]
    return inner + [deeper for item in inner for deeper in nodes_inside(item)]


def captured(node: ir.Node) -> list[ir.Value]:
    """Values from outside that a node's subgraphs use without its taking them as inputs."""
    inner = nodes_inside(node)
    own = {value for item in inner for value in item.outputs}
    for item in (node, *inner):
        for attribute in item.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                graph = attribute.as_graph()
                own.update(graph.inputs, graph.initializers.values())
    found = dict.fromkeys(v for item in inner for v in item.inputs if v is not None and v not in own)
    return [value for value in found if not value.is_initializer()]


def give_captured(node: ir.Node, old: ir.Value, new: ir.Value) -> None:
    """Let the subgraphs of a node read another value from outside."""
    if new is old:
        return
    for inner in nodes_inside(node):
        for index, given in enumerate(inner.inputs):
            if given is old:
                inner.replace_input_with(index, new)
