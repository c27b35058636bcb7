"""Rules for operators that compute: elementwise, products, normalisations, reductions."""

from __future__ import annotations

import onnx_ir as ir

from tsmerge_export.errors import UnsupportedError
from tsmerge_export.rewrite.batch_first import BatchFirst
from tsmerge_export.rewrite.constants import scalar
from tsmerge_export.rewrite.dims import dims
from tsmerge_export.rewrite.rules.core import (
    Barrier,
    Context,
    Outcome,
    constant_ints,
    operand,
    placed,
    refuse_axes,
    refuse_batch,
    rule,
    unify,
)


@rule(
    "Abs", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu",
    "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal",
    "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu",
)  # fmt: skip
def unary(node: ir.Node, context: Context) -> Outcome:
    """Elementwise in input 0; other inputs are settings."""
    value = operand(node, 0)
    return Outcome([dict(context.tags(value)) for _ in node.outputs], rows=context.rows(value))


@rule(
    "Add", "And", "BitwiseAnd", "BitwiseOr", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max",
    "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor",
)  # fmt: skip
def broadcasting(node: ir.Node, context: Context) -> Outcome:
    """Elementwise with broadcasting: trailing axes fit together."""
    operands = [operand(node, index) for index in range(len(node.inputs))]
    ranks = [len(context.base_dims(value)) for value in operands]
    rank = max(ranks)
    labels = [list(range(rank - own, rank)) for own in ranks]
    aligned, stages, rows = unify(context, operands, labels, rank, range(rank))
    tags = {int(axis): stage for axis, stage in stages.items()}  # type: ignore[call-overload]
    return Outcome([tags], dict(enumerate(aligned)), rows=rows)


@rule("MatMul")
def matmul(node: ir.Node, context: Context) -> Outcome:
    """``[..., m, k] @ [..., k, n]``: leading axes broadcast; the contracted axes fit together."""
    left, right = operand(node, 0), operand(node, 1)
    ranks = [len(context.base_dims(value)) for value in (left, right)]
    rank = max(*ranks, 2)
    # A vector counts as its contracted axis alone.
    left_labels: list[object] = [*range(rank - ranks[0], rank - 2), "m", "k"] if ranks[0] > 1 else ["k"]
    right_labels: list[object] = [*range(rank - ranks[1], rank - 2), "k", "n"] if ranks[1] > 1 else ["k"]
    summed = [axis in context.tags(v) for v, axis in ((left, ranks[0] - 1), (right, max(ranks[1] - 2, 0)))]
    if any(summed) and not all(summed):
        # A sum over tokens with fixed weights: a merged token would count once instead of size times.
        raise Barrier("it sums over tokens with weights that were not merged")
    out: list[object] = [*range(rank - 2), *(["m"] if ranks[0] > 1 else []), *(["n"] if ranks[1] > 1 else [])]
    aligned, stages, rows = unify(context, [left, right], [left_labels, right_labels], rank, out)
    tags = {axis: stages[label] for axis, label in enumerate(out) if label in stages}
    return Outcome([tags], dict(enumerate(aligned)), rows=rows)


@rule("Gemm")
def gemm(node: ir.Node, context: Context) -> Outcome:
    """``[m, k] @ [k, n] + c``: weights and a bias for each row, which are tokens of all rows of the batch."""
    value = operand(node, 0)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if any(context.tags(other) for other in node.inputs[1:]) or node.attributes.get_int("transA"):
        raise Barrier("it sums over tokens, or its weights are merged")
    found = [] if bias is None else dims(bias)
    if found is None or (len(found) > 1 and found[0] != 1):
        raise Barrier("it adds something else to each token")
    tags, rows = context.tags(value), context.rows(value)
    refuse_axes(tags, [1], "sums over")
    refuse_batch(rows, [1], "sums over")
    return Outcome([dict(tags)], rows=rows)


@rule("Conv")
def convolution(node: ir.Node, context: Context) -> Outcome:
    """``[B, C, tokens]`` with kernels of width 1: a product for each token (feed-forwards are written so)."""
    value = operand(node, 0)
    rank = len(context.base_dims(value))
    weights = dims(operand(node, 1))
    if weights is None or any(width != 1 for width in weights[2:]):
        raise Barrier("its kernel is wider than one token")
    for name, plain in (("strides", 1), ("pads", 0)):
        if name in node.attributes and any(n != plain for n in node.attributes[name].as_ints()):
            raise Barrier("it pads or strides over the token axis")
    if node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise Barrier("it pads the token axis")
    tags = context.tags(value)
    refuse_axes(tags, [1], "sums over")
    if context.rows(value).axis != 0:
        raise Barrier("its batch is not first")
    if rank < 3 or any(context.tags(other) for other in node.inputs[1:]):
        raise Barrier("its kernel is merged")
    return Outcome([dict(tags)], rows=context.rows(value))


@rule("Softmax", "LogSoftmax")
def softmax(node: ir.Node, context: Context) -> Outcome:
    """Over any one axis: a softmax over merged keys is what merging means.

    With proportional attention the scores of merged keys get the logarithm of the keys' sizes on top; those of padding
    that rows end in are hidden.
    """
    scores = operand(node, 0)
    tags, shape = dict(context.tags(scores)), dims(scores) or []
    axis = node.attributes.get_int("axis", -1) % len(context.base_dims(scores))
    rows = context.rows(scores)
    refuse_batch(rows, [axis], "sums over")
    if axis not in tags or not (context.prop_attn or tags[axis].pads):
        return Outcome([tags], rows=rows)
    if axis != len(shape) - 1 or axis == 0 or rows.axis not in (0, None):
        what = "padding cannot be hidden" if tags[axis].pads else "proportional attention cannot be added"
        raise Barrier(f"its scores are not [batch, .., keys]: {what}")
    if tags[axis].pads and scores.dtype == ir.DataType.FLOAT16:
        raise UnsupportedError("--per-series: padding cannot be hidden in scores of float16; leave it out")
    layout = BatchFirst(len(shape), rows, tags[axis].batch)
    weights = tags[axis].scores(
        context.emit,
        len(shape) + (rows.each > 1 or rows.axis is None),
        scores.dtype,
        context.prop_attn,
    )
    weights = layout.back(weights, context.emit, shape[0])
    weighed = context.emit.op("Add", [scores, weights], {}, scores.dtype, shape, "proportional")
    return Outcome([tags], {0: weighed}, rows=rows)


@rule("LayerNormalization", "RMSNormalization")
def normalization(node: ir.Node, context: Context) -> Outcome:
    """Over the axes from ``axis`` on, which must not be tokens."""
    value = operand(node, 0)
    rank = len(context.base_dims(value))
    axis = node.attributes.get_int("axis", -1) % rank
    refuse_axes(context.tags(value), range(axis, rank), "normalises over")
    refuse_batch(context.rows(value), range(axis, rank), "normalises over")
    return Outcome([dict(context.tags(value)) for _ in node.outputs], rows=context.rows(value))


@rule("BatchNormalization")
def batch_normalization(node: ir.Node, context: Context) -> Outcome:
    """With the statistics of training, per entry of axis 1, which must not be tokens."""
    value = operand(node, 0)
    refuse_axes(context.tags(value), [1], "normalises each entry of")
    refuse_batch(context.rows(value), [1], "normalises each entry of")
    if node.attributes.get_int("training_mode", 0):
        raise Barrier("it computes statistics over tokens")
    return Outcome([dict(context.tags(value)) for _ in node.outputs], rows=context.rows(value))


@rule(
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
def reduce(node: ir.Node, context: Context) -> Outcome:
    """Over axes that are not tokens. A mean over tokens after an unmerge is exact, so that is what happens there."""
    value = operand(node, 0)
    rank = len(context.base_dims(value))
    axes = constant_ints(node, 1, "axes")
    if not axes:
        axes = [] if node.attributes.get_int("noop_with_empty_axes", 0) else list(range(rank))
    axes = [axis % rank for axis in axes]
    tags = context.tags(value)
    rows = context.rows(value)
    if _ignores_copies(node):
        tags = {axis: stage for axis, stage in tags.items() if axis not in axes}
        if not tags:
            return Outcome([{}])
    refuse_axes(tags, axes, "reduces over")
    refuse_batch(rows, axes, "reduces over")
    if node.attributes.get_int("keepdims", 1):
        return Outcome([dict(tags)], rows=rows)
    left = [axis for axis in range(rank) if axis not in axes]
    return placed(tags, rows, left)


def _ignores_copies(node: ir.Node) -> bool:
    """Whether the result is the same however often a token is there: extremes, and whether any condition holds.

    Exporters write the latter as a sum of zeros and ones that is only asked whether it is above 0.
    """
    if node.op_type in ("ReduceMax", "ReduceMin"):
        return True
    value = node.inputs[0]
    while value is not None and value.dtype != ir.DataType.BOOL:
        producer = value.producer()
        value = producer.inputs[0] if producer is not None and producer.op_type == "Cast" else None
    uses = list(node.outputs[0].uses())
    return (
        node.op_type == "ReduceSum"
        and value is not None
        and bool(uses)
        and not node.outputs[0].is_graph_output()
        and all(
            use.node.op_type == "Greater" and use.idx == 0 and scalar(use.node.inputs[1]) == 0 for use in uses
        )
    )


@rule("ArgMax", "ArgMin")
def arg_reduce(node: ir.Node, context: Context) -> Outcome:
    """Over one axis that is not tokens."""
    value = operand(node, 0)
    axis = node.attributes.get_int("axis", 0) % len(context.base_dims(value))
    tags = context.tags(value)
    rows = context.rows(value)
    refuse_axes(tags, [axis], "searches")
    refuse_batch(rows, [axis], "searches")
    if node.attributes.get_int("keepdims", 1):
        return Outcome([dict(tags)], rows=rows)
    return placed(tags, rows, [own for own in range(len(context.base_dims(value))) if own != axis])
