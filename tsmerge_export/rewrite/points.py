"""Finds the points of a graph where tokens can be merged: after each self-attention residual, before the feed-forward.

From the graph alone (design part 3): a Softmax over equal last two dims, its product with the values, the output
projection, and the Add whose other operand has the same shape and is an ancestor of both scores and values. The last
condition rejects cross-attention, whose values do not come from the residual stream.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from tsmerge_export.rewrite.dims import dims

# Between softmax and the product with the values.
_AFTER_SOFTMAX = {"Identity", "Cast", "Dropout", "Where"}
# Between the product of queries and keys and the softmax.
_ON_SCORES = {"Add", "Cast", "Clip", "Div", "Identity", "Mul", "Sub", "Tanh", "Where"}
# Between that product and the residual Add; MatMul, Add, Mul and Gemm only with a constant.
_PROJECTION = {"Transpose", "Reshape", "Identity", "Cast", "Dropout", "Squeeze", "Unsqueeze", "Flatten"}
_PROJECTION_WITH_CONSTANT = {"MatMul", "Add", "Mul", "Div", "Gemm"}
_NORMALISATIONS = {"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"}
_MAX_STEPS = 16  # longest chain known is 8 (fp16 casts around a projection with bias)


@dataclass(frozen=True)
class Point:
    """A merge point.

    Attributes:
        layer: index in order of execution.
        node: the residual Add, or in a post-norm block the normalisation behind it; its output is ``[B, N, D]``.
        scope: the exporter's module scope, empty where the file has none.
        keys: right operand of the scores' product, ``[B, .., d, N]``; None where there is no such product.
    """

    layer: int
    node: ir.Node
    scope: str
    keys: ir.Value | None = None

    @property
    def value(self) -> ir.Value:
        """The residual stream after attention, ``[B, N, D]``."""
        return self.node.outputs[0]


@dataclass(frozen=True)
class Rejected:
    """A softmax that looked like attention and is no merge point, with the reason."""

    node: str
    reason: str


def scope_of(node: ir.Node) -> str:
    """Module scope that torch's exporter wrote on a node, or ``""``."""
    props = node.metadata_props
    return props.get("namespace", "") or props.get("pkg.torch.onnx.name_scopes", "")


def _constant(value: ir.Value | None) -> bool:
    if value is None:
        return False
    producer = value.producer()
    return value.is_initializer() or (producer is not None and producer.op_type == "Constant")


def _ancestors(values: list[ir.Value | None]) -> set[ir.Value]:
    """What a value is computed from; that it has another's shape does not count."""
    seen: set[ir.Value] = set()
    stack = [value for value in values if value is not None]
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        seen.add(value)
        producer = value.producer()
        if producer is not None and producer.op_type not in ("Shape", "Size"):
            stack.extend(v for v in producer.inputs if v is not None)
    return seen


def _consumers(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    for use in value.uses():
        if use.node.op_type != "Shape":
            yield use.node, use.idx


def _value_product(softmax: ir.Node) -> tuple[ir.Node | None, str]:
    """The MatMul of the attention weights with the values."""
    value = softmax.outputs[0]
    for _ in range(_MAX_STEPS):
        uses = list(_consumers(value))
        for node, index in uses:
            if node.op_type == "MatMul" and index == 0:
                return node, ""
        # torch guards fully masked rows: Where(IsNaN(weights), 0, weights)
        onward = {node for node, _ in uses if node.op_type in _AFTER_SOFTMAX}
        if len(onward) != 1:
            return None, "its weights feed no single product with values"
        value = onward.pop().outputs[0]
    return None, "its weights feed no product with values nearby"


def _keys(value: ir.Value | None, depth: int = 0) -> ir.Value | None:
    """The keys in scores ``[B, .., N, N]``: right operand of the product that scales, biases and masks start from."""
    node = value.producer() if value is not None else None
    if node is None or depth > _MAX_STEPS:
        return None
    if node.op_type == "MatMul":
        return None if any(_constant(operand) for operand in node.inputs) else node.inputs[1]
    if node.op_type not in _ON_SCORES:
        return None
    found = (_keys(operand, depth + 1) for operand in node.inputs)
    return next((keys for keys in found if keys is not None), None)


def _residual(product: ir.Node, softmax: ir.Node) -> tuple[ir.Node | None, str]:
    """The residual Add after the output projection."""
    value = product.outputs[0]
    scores, values = _ancestors([softmax.inputs[0]]), _ancestors([product.inputs[1]])
    for _ in range(_MAX_STEPS):
        uses = list(_consumers(value))
        if len(uses) != 1:
            return None, f"the attention output has {len(uses)} consumers before a residual Add"
        node, index = uses[0]
        other = node.inputs[1 - index] if len(node.inputs) == 2 and index < 2 else None
        if node.op_type == "Add" and not _constant(other):
            if other is None or dims(other) is None or dims(other) != dims(node.outputs[0]):
                return None, "the Add after the projection is no residual: the shapes differ"
            if other not in scores or other not in values:
                return None, "the residual is no ancestor of scores and values (cross-attention)"
            return node, ""
        with_constant = node.op_type in _PROJECTION_WITH_CONSTANT and any(_constant(v) for v in node.inputs)
        # Some queries may get something else than what they attend to (ProbSparse attention: the mean of the values).
        with_constant |= node.op_type == "Where" and index > 0 and dims(value) == dims(node.outputs[0])
        if node.op_type not in _PROJECTION and not with_constant:
            return None, f"{node.op_type} stands between attention and a residual Add"
        value = node.outputs[0]
    return None, "no residual Add follows nearby"


def _with_post_norm(add: ir.Node) -> ir.Node:
    """The normalisation right behind a residual Add (post-norm blocks), else the Add.

    There the normalised tokens are the residual stream. Runtimes fuse the pair, so that nothing may come between.
    """
    users = {node for node, _ in _consumers(add.outputs[0])}
    only = users.pop() if len(users) == 1 else None
    if only is not None and only.op_type in _NORMALISATIONS and only.inputs[0] is add.outputs[0]:
        return only
    return add


def find_points(graph: ir.Graph, scope: str | None = None) -> tuple[list[Point], list[Rejected]]:
    """Merge points in order of execution, and the attentions that are none.

    Args:
        graph: dims known on every value (see :mod:`tsmerge_export.rewrite.infer`).
        scope: regular expression a point's module scope must match; ignored for nodes without a scope.
    """
    points: list[Point] = []
    rejected: list[Rejected] = []
    for node in graph:
        if node.op_type != "Softmax" or node.domain != "":
            continue
        shape = dims(node.inputs[0]) if node.inputs[0] is not None else None
        axis = node.attributes.get_int("axis", -1)
        if shape is None or len(shape) < 3 or axis not in (-1, len(shape) - 1):
            continue
        name = node.name or node.outputs[0].name or "Softmax"
        if shape[-1] != shape[-2] or shape[-1] in (1, None):
            rejected.append(
                Rejected(name, f"query and key lengths differ or are one token: {shape[-2]} and {shape[-1]}")
            )
            continue
        product, reason = _value_product(node)
        add = None
        if product is not None:
            add, reason = _residual(product, node)
        found = dims(add.outputs[0]) if add is not None else None
        if add is None or found is None:
            rejected.append(Rejected(name, reason))
        elif len(found) != 3 or found[1] != shape[-1]:
            rejected.append(Rejected(name, f"the residual is {found}, not [batch, tokens, features]"))
        elif scope is not None and scope_of(add) and not re.search(scope, scope_of(add)):
            rejected.append(Rejected(name, f"its scope does not match {scope!r}"))
        else:
            keys = _keys(node.inputs[0])
            points.append(Point(len(points), _with_post_norm(add), scope_of(add), keys))
    return points, rejected
