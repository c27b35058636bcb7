"""Rules for operators that compute: elementwise, products, normalisations, reductions."""

from __future__ import annotations

import onnx_ir as ir

from tsmerge_export.rewrite.dims import dims
from tsmerge_export.rewrite.rules.core import (
    Barrier,
    Context,
    Outcome,
    constant_ints,
    operand,
    refuse_axes,
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
    return Outcome([dict(context.tags(operand(node, 0))) for _ in node.outputs])


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
    aligned, stages = unify(context, operands, labels, rank)
    return Outcome([{int(axis): stage for axis, stage in stages.items()}], dict(enumerate(aligned)))  # type: ignore[call-overload]


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
    aligned, stages = unify(context, [left, right], [left_labels, right_labels], rank)
    out: list[object] = [*range(rank - 2), *(["m"] if ranks[0] > 1 else []), *(["n"] if ranks[1] > 1 else [])]
    return Outcome(
        [{axis: stages[label] for axis, label in enumerate(out) if label in stages}], dict(enumerate(aligned))
    )


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
    if rank < 3 or any(context.tags(other) for other in node.inputs[1:]):
        raise Barrier("its kernel is merged")
    return Outcome([dict(tags)])


@rule("Softmax", "LogSoftmax")
def softmax(node: ir.Node, context: Context) -> Outcome:
    """Over any one axis: a softmax over merged keys is what merging means.

    With proportional attention the scores of merged keys get the logarithm of the keys' sizes on top.
    """
    scores = operand(node, 0)
    tags, shape = dict(context.tags(scores)), dims(scores) or []
    axis = node.attributes.get_int("axis", -1) % len(context.base_dims(scores))
    if not context.prop_attn or axis not in tags:
        return Outcome([tags])
    if axis != len(shape) - 1 or axis == 0 or shape[0] != tags[axis].batch:
        raise Barrier("its scores are not [batch, .., keys]: proportional attention cannot be added")
    weights = tags[axis].log_size(context.emit, len(shape), scores.dtype)
    weighed = context.emit.op("Add", [scores, weights], {}, scores.dtype, shape, "proportional")
    return Outcome([tags], {0: weighed})


@rule("LayerNormalization", "RMSNormalization")
def normalization(node: ir.Node, context: Context) -> Outcome:
    """Over the axes from ``axis`` on, which must not be tokens."""
    value = operand(node, 0)
    rank = len(context.base_dims(value))
    axis = node.attributes.get_int("axis", -1) % rank
    refuse_axes(context.tags(value), range(axis, rank), "normalises over")
    return Outcome([dict(context.tags(value)) for _ in node.outputs])


@rule("BatchNormalization")
def batch_normalization(node: ir.Node, context: Context) -> Outcome:
    """With the statistics of training, per entry of axis 1, which must not be tokens."""
    value = operand(node, 0)
    refuse_axes(context.tags(value), [1], "normalises each entry of")
    if node.attributes.get_int("training_mode", 0):
        raise Barrier("it computes statistics over tokens")
    return Outcome([dict(context.tags(value)) for _ in node.outputs])


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
    refuse_axes(tags, axes, "reduces over")
    if node.attributes.get_int("keepdims", 1):
        return Outcome([dict(tags)])
    return Outcome([{axis - sum(a < axis for a in axes): stage for axis, stage in tags.items()}])


@rule("ArgMax", "ArgMin")
def arg_reduce(node: ir.Node, context: Context) -> Outcome:
    """Over one axis that is not tokens."""
    value = operand(node, 0)
    axis = node.attributes.get_int("axis", 0) % len(context.base_dims(value))
    tags = context.tags(value)
    refuse_axes(tags, [axis], "searches")
    if node.attributes.get_int("keepdims", 1):
        return Outcome([dict(tags)])
    return Outcome([{own - (axis < own): stage for own, stage in tags.items()}])
