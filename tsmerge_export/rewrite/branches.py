"""Passes stages through an If whose branches treat every token alone, such as one that clamps infinite numbers.

Such a branch computes the same on merged tokens. One that does anything else is a barrier, and so is the body of a
loop.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from tsmerge_export.rewrite.constants import constant
from tsmerge_export.rewrite.dims import Dim, dims
from tsmerge_export.rewrite.rules import RULES, Barrier, Context, Outcome, compute
from tsmerge_export.rewrite.stages import Tags
from tsmerge_export.rewrite.subgraphs import captured, give_captured

_EACH_TOKEN = {compute.unary, compute.broadcasting, compute.normalization}


def pass_branches(node: ir.Node, context: Context, current: Mapping[ir.Value, ir.Value]) -> Outcome | None:
    """Let the branches of an If read merged tokens.

    Args:
        current: what values of the main graph have become.

    Returns:
        The stages of its outputs; None, and nothing is changed, where a branch does more than work on each token.
    """
    graphs = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
    read = captured(node)
    if node.op_type != "If" or not any(context.tags(current.get(value, value)) for value in read):
        return None
    ends = [_Branch(graph, context, current).follow() for graph in graphs]
    if not ends or any(end is None or end != ends[0] for end in ends) or not ends[0]:
        return None
    rows = {context.rows(value) for graph in graphs for value in graph.outputs if context.tags(value)}
    if len(rows) > 1:
        return None
    for value in read:
        give_captured(node, value, current.get(value, value))
    for graph in graphs:  # what is noted about shapes there is about all tokens
        for value in (*graph.outputs, *(value for inner in graph for value in inner.outputs)):
            value.shape = None
    return Outcome([dict(tags) for tags in ends[0]], rows=rows.pop()) if rows else None


class _Branch:
    """One branch; its values' tags are kept with those of the main graph."""

    def __init__(self, graph: ir.Graph, context: Context, current: Mapping[ir.Value, ir.Value]) -> None:
        self._graph, self._context, self._current = graph, context, current
        self._own: dict[ir.Value, list[Dim] | None] = {}

    def follow(self) -> list[Tags] | None:
        """The tags of the outputs; None where the branch cannot be followed."""
        for node in self._graph:
            if not self._visit(node):
                return None
        if any(value not in self._own for value in self._graph.outputs):
            return None
        return [dict(self._context.tags(value)) for value in self._graph.outputs]

    def _now(self, value: ir.Value | None) -> ir.Value | None:
        return None if value is None else self._current.get(value, value)

    def _shape(self, value: ir.Value) -> list[Dim] | None:
        """As without merging; what the file notes inside a branch is not believed."""
        known = constant(value)
        if known is not None:
            return list(known.shape)
        if value in self._own:
            return self._own[value]
        return self._context.base_dims(value) if self._context.tags(value) else dims(value)

    def _visit(self, node: ir.Node) -> bool:
        inputs = [self._now(value) for value in node.inputs]
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        shapes = [None if value is None else self._shape(value) for value in inputs]
        merged = [i for i, value in enumerate(inputs) if self._context.tags(value)]
        shape: list[Dim] | None = None
        if rule is compute.unary and shapes:
            shape = shapes[0]
        elif merged:
            shape = shapes[merged[0]]
        self._own |= dict.fromkeys(node.outputs, shape)
        if any(self._context.tags(self._now(value)) for value in captured(node)):
            return False
        if not merged:
            return True
        first = inputs[merged[0]]
        tags, rows = self._context.tags(first), self._context.rows(first)
        if rule not in _EACH_TOKEN or shape is None:
            return False
        if rule is not compute.broadcasting and merged != [0]:
            return False
        for value, own in zip(inputs, shapes, strict=True):
            if value is None or value is first or rule is not compute.broadcasting:
                continue
            if self._context.tags(value):
                if (self._context.tags(value), self._context.rows(value), own) != (tags, rows, shape):
                    return False
            elif own is None or len(own) > len(shape):
                return False
            else:
                for axis in tags:
                    there = axis - (len(shape) - len(own))
                    if there >= 0 and own[there] != 1:
                        return False
        if rule is compute.normalization:
            try:
                rule(node, self._context)
            except Barrier:
                return False
        for value in node.outputs:
            self._context.set(value, dict(tags), rows, shape)
        return True
