"""Finds the points of a graph where tokens can be merged: after each self-attention residual, before the feed-forward.

From the graph alone: a Softmax over equal last two dims, its product with the values, the output
projection, and the Add whose other operand has the same shape and is an ancestor of both scores and values. The last
condition rejects cross-attention, whose values do not come from the residual stream.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from tsmerge_export.rewrite.dims import Dim, dims

# Between softmax and the product with the values.
_AFTER_SOFTMAX = {"Identity", "Cast", "Dropout", "Where"}
# Between the product of queries and keys and the softmax.
_ON_SCORES = {"Add", "Cast", "Clip", "Div", "Identity", "Mul", "Sub", "Tanh", "Where"}
# Between that product and the residual Add; MatMul, Add, Mul and Gemm only with a constant.
_PROJECTION = {
    "Transpose",
    "Reshape",
    "Identity",
    "Cast",
    "Dropout",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Expand",
}
_PROJECTION_WITH_CONSTANT = {"MatMul", "Add", "Mul", "Div", "Gemm"}
# From tokens to what an RMS normalisation scales them by, where it is written in plain operators.
_RMS = {"Add", "Cast", "Div", "Mul", "Pow", "Reciprocal", "ReduceMean", "Sqrt"}
_SCATTER = {"ScatterElements", "ScatterND"}
_NORMALISATIONS = {"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"}
_MAX_STEPS = 16  # longest chain known is 8 (fp16 casts around a projection with bias)


@dataclass(frozen=True)
class Point:
    """A merge point.

    Attributes:
        layer: index in order of execution.
        node: the residual Add, or in a post-norm block the normalisation behind it; its output is ``[B, N, D]``, or
            ``[N, B, D]``.
        scope: the exporter's module scope, empty where the file has none.
        keys: right operand of the scores' product, ``[B, .., d, N]``; None where there is no such product.
        hidden: which operand of the Add is what the block computed (the other is the residual); None after attention.
        axis: the axis of the tokens, 1 or 0.
    """

    layer: int
    node: ir.Node
    scope: str
    keys: ir.Value | None = None
    hidden: int | None = None
    axis: int = 1

    @property
    def value(self) -> ir.Value:
        """The residual stream after attention, ``[B, N, D]`` or ``[N, B, D]``."""
        return self.node.outputs[0]

    @property
    def rows(self) -> list[Dim]:
        """Dims of batch and tokens."""
        found = dims(self.value) or [None, None]
        return [found[1 - self.axis], found[self.axis]]


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


def ancestors(values: Sequence[ir.Value | None]) -> set[ir.Value]:
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


def _same_shape(node: ir.Node) -> bool:
    """Whether a node is a Reshape that leaves the shape as it is (a ``view`` for the gradient's sake)."""
    if node.op_type != "Reshape" or node.inputs[0] is None:
        return False
    shape = dims(node.inputs[0])
    return shape is not None and shape == dims(node.outputs[0])


def _value_product(softmax: ir.Node) -> tuple[ir.Node | None, str]:
    """The MatMul of the attention weights with the values."""
    value = softmax.outputs[0]
    for _ in range(_MAX_STEPS):
        uses = list(_consumers(value))
        for node, index in uses:
            if node.op_type == "MatMul" and index == 0:
                return node, ""
        # torch guards fully masked rows: Where(IsNaN(weights), 0, weights)
        onward = {node for node, _ in uses if node.op_type in _AFTER_SOFTMAX or _same_shape(node)}
        if len(onward) != 1:
            return None, "its weights feed no single product with values"
        value = onward.pop().outputs[0]
    return None, "its weights feed no product with values nearby"


def _keys(scores: ir.Value | None, taken: set[ir.Node]) -> ir.Value | None:
    """The keys in scores ``[B, .., N, N]``: right operand of the product that scales, biases and masks start from.

    ``taken``: products of earlier layers, whose scores may be added (RealFormer); that of this one is put to them.
    """
    products: dict[ir.Node, None] = {}
    values = [scores]
    for _ in range(_MAX_STEPS):
        nodes = dict.fromkeys(value.producer() for value in values if value is not None)
        found = [node for node in nodes if node is not None]
        products |= dict.fromkeys(
            n for n in found if n.op_type == "MatMul" and not any(map(_constant, n.inputs))
        )
        values = [operand for node in found if node.op_type in _ON_SCORES for operand in node.inputs]
    product = next((node for node in products if node not in taken), next(iter(products), None))
    if product is None:
        return None
    taken.add(product)
    return product.inputs[1]


def _gated(node: ir.Node, index: int) -> bool:
    """Whether a node multiplies its operand ``index`` with one number per token, such as 0 for padding."""
    other = node.inputs[1 - index] if node.op_type == "Mul" and len(node.inputs) == 2 else None
    shape = dims(other) if other is not None else None
    return bool(shape) and shape[-1] == 1 and dims(node.outputs[0]) == dims(node.inputs[index])  # type: ignore[index, arg-type]


def _normalised(value: ir.Value, uses: list[tuple[ir.Node, int]]) -> ir.Value | None:
    """``value`` divided by the root of its mean square over the features, where that is all that reads it."""
    shape = dims(value)
    for node, index in uses:
        if node.op_type not in ("Mul", "Div") or (node.op_type == "Div" and index != 0) or not shape:
            continue
        factor = node.inputs[1 - index]
        reader = _reader(factor, value)
        if factor is None or reader is None or dims(factor) != [*shape[:-1], 1]:
            continue
        if {user for user, _ in uses} == {node, reader}:
            return node.outputs[0]
    return None


def _reader(factor: ir.Value | None, value: ir.Value) -> ir.Node | None:
    """The node that reads ``value`` at the start of the chain of an RMS normalisation that ``factor`` ends."""
    for _ in range(_MAX_STEPS):
        node = factor.producer() if factor is not None else None
        if factor is None or node is None or node.op_type not in _RMS or len(list(_consumers(factor))) != 1:
            return None
        operands = {operand for operand in node.inputs if operand is not None and not _constant(operand)}
        if len(operands) != 1:
            return None
        factor = operands.pop()
        if factor is value:
            return node
    return None


def _residual(product: ir.Node, softmax: ir.Node) -> tuple[ir.Node | None, str]:
    """The residual Add after the output projection."""
    read = ancestors([softmax.inputs[0]]) & ancestors([product.inputs[1]])
    return _residual_of(product.outputs[0], read)


def _residual_of(value: ir.Value, read: set[ir.Value], parallel: bool = False) -> tuple[ir.Node | None, str]:
    """The Add of ``value`` and one of ``read``, the values that scores and values are both computed from."""
    for _ in range(_MAX_STEPS):
        uses = list(_consumers(value))
        normalised = _normalised(value, uses)
        if normalised is not None:
            value = normalised
            continue
        if len(uses) != 1:
            return None, f"the attention output has {len(uses)} consumers before a residual Add"
        node, index = uses[0]
        other = node.inputs[1 - index] if len(node.inputs) == 2 and index < 2 else None
        if node.op_type == "Add" and not _constant(other):
            if other is None or dims(other) is None or dims(other) != dims(node.outputs[0]):
                return None, "the Add after the projection is no residual: the shapes differ"
            if other in read:
                return node, ""
            # A parallel block adds attention and feed-forward to each other, then the tokens that both started from.
            found = None if parallel else _residual_of(node.outputs[0], read & ancestors([other]), True)[0]
            return (
                found,
                "" if found else "the residual is no ancestor of scores and values (cross-attention)",
            )
        if (
            node.op_type in _SCATTER and index == 2
        ):  # attention of some queries, put among the others' outputs
            value = node.outputs[0]
            continue
        with_constant = node.op_type in _PROJECTION_WITH_CONSTANT and any(_constant(v) for v in node.inputs)
        passes = node.op_type in _PROJECTION or (node.op_type in _NORMALISATIONS and index == 0)
        # Some queries may get something else than what they attend to (ProbSparse attention: the mean of the values).
        passes |= node.op_type == "Where" and index > 0 and dims(value) == dims(node.outputs[0])
        if not passes and not with_constant and not _gated(node, index):
            return None, f"{node.op_type} stands between attention and a residual Add"
        value = node.outputs[0]
    return None, "no residual Add follows nearby"


def _with_post_norm(add: ir.Node) -> ir.Node:
    """The normalisation right behind a residual Add (post-norm blocks), else the Add.

    There the normalised tokens are the residual stream. Runtimes fuse the pair, so that nothing may come between.
    """
    only = _only_user(add)
    if only is not None and only.op_type in _NORMALISATIONS and only.inputs[0] is add.outputs[0]:
        return only
    # Batch normalisation works on axis 1: Transpose, BatchNormalization, Transpose back.
    norm = _only_user(only) if only is not None and only.op_type == "Transpose" else None
    last = _only_user(norm) if norm is not None and norm.op_type == "BatchNormalization" else None
    if last is not None and last.op_type == "Transpose" and dims(last.outputs[0]) == dims(add.outputs[0]):
        return last
    return add


def _only_user(node: ir.Node) -> ir.Node | None:
    users = {user for user, _ in _consumers(node.outputs[0])}
    return users.pop() if len(users) == 1 else None


def find_points(graph: ir.Graph, scope: str | None = None) -> tuple[list[Point], list[Rejected]]:
    """Merge points in order of execution, and the attentions that are none.

    Args:
        graph: dims known on every value (see :mod:`tsmerge_export.rewrite.infer`).
        scope: regular expression a point's module scope must match; ignored for nodes without a scope.
    """
    points: list[Point] = []
    rejected: list[Rejected] = []
    taken: set[ir.Node] = set()
    for node in graph:
        if node.op_type != "Softmax" or node.domain != "":
            continue
        shape = dims(node.inputs[0]) if node.inputs[0] is not None else None
        axis = node.attributes.get_int("axis", -1)
        if shape is None or len(shape) < 3 or axis not in (-1, len(shape) - 1):
            continue
        name = node.name or node.outputs[0].name or "Softmax"
        keys = _keys(node.inputs[0], taken)
        product, reason = _value_product(node)
        add = None
        if product is not None:
            add, reason = _residual(product, node)
        # Sparse attention reads some queries only; its residual stream has the tokens of the keys all the same.
        if shape[-1] in (1, None) or (add is None and shape[-1] != shape[-2]):
            rejected.append(
                Rejected(name, f"query and key lengths differ or are one token: {shape[-2]} and {shape[-1]}")
            )
            continue
        found = dims(add.outputs[0]) if add is not None else None
        if add is None or found is None:
            rejected.append(Rejected(name, reason))
        elif len(found) != 3 or shape[-1] not in found[:2]:
            rejected.append(
                Rejected(
                    name, f"the residual is {found}, not [batch, tokens, features] with {shape[-1]} tokens"
                )
            )
        elif found[0] == found[1]:
            rejected.append(Rejected(name, f"the residual is {found}: batch and tokens cannot be told apart"))
        elif scope is not None and scope_of(add) and not re.search(scope, scope_of(add)):
            rejected.append(Rejected(name, f"its scope does not match {scope!r}"))
        else:
            axis = found.index(shape[-1])
            points.append(Point(len(points), _with_post_norm(add), scope_of(add), keys, axis=axis))
    return points, rejected
