"""A float32 file with some of its products as a quantised file has them.

The quantiser takes a second for a small file. To try many choices it runs once, on all products, and what it made of
one is taken over as it is.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx


def mixed(twin: onnx.ModelProto, low: onnx.ModelProto, nodes: Collection[str]) -> onnx.ModelProto:
    """A copy of ``twin`` that computes the results of some products as ``low`` does.

    Args:
        twin: as :func:`.quantise.as_products` gives it. low: :func:`.quantise.quantised` of it, all products that are
            in ``nodes`` among those that were quantised. nodes: names of products.
    """
    there = {tensor.name for tensor in twin.graph.initializer} | {value.name for value in twin.graph.input}
    there |= {name for node in twin.graph.node for name in node.output}
    made = {name: node for node in low.graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in low.graph.initializer}
    out = onnx.ModelProto()
    out.CopyFrom(twin)
    fresh: dict[str, onnx.TensorProto] = {}
    taken: set[str] = set()
    graph: list[onnx.NodeProto] = []

    def take(result: str) -> None:
        """The nodes of ``low`` that make a value of what both files have, in their order."""
        node = made[result]
        if node.output[0] in taken:
            return
        taken.add(node.output[0])
        for name in node.input:
            if name in weights and name not in there:
                fresh[name] = weights[name]
            elif name and name not in there:
                take(name)
        graph.append(node)

    for node in twin.graph.node:
        if node.name in nodes:
            take(node.output[0])
        else:
            graph.append(node)
    del out.graph.node[:]
    out.graph.node.extend(graph)
    out.graph.initializer.extend(fresh.values())
    known = {entry.domain for entry in out.opset_import}
    out.opset_import.extend(entry for entry in low.opset_import if entry.domain not in known)
    return out
