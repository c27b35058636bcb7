"""Which nodes behind the last block of a state-space model treat every token alone, so that they work on merged tokens.

Inside a block anything may mix tokens: the block is meant to run on fewer of them. Behind the last block a node that
mixes or picks tokens (a mean, a flattening head, a slice) is meant for the original ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from tsmerge_export.rewrite.constants import constant, scalar
from tsmerge_export.rewrite.dims import dims

_UNARY = {
    *("Abs", "Cast", "Ceil", "Clip", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"),
    *("Identity", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign"),
    *("Softplus", "Softsign", "Sqrt", "Swish", "Tanh"),
}  # fmt: skip
_BINARY = {"Add", "And", "Div", "Max", "Min", "Mul", "Or", "Pow", "Sub", "Where"}
_REDUCTIONS = {
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "ReduceL2",
}
_LAST_AXIS = {"LayerNormalization": -1, "RMSNormalization": -1, "SimplifiedLayerNormalization": -1}


def works_token_by_token(node: ir.Node, merged: Callable[[ir.Value], bool], keeps_last: bool) -> bool:
    """Whether a node gives for each merged token ``[B, M, ...]`` what it gives for an original one.

    Args:
        merged: whether a value has one entry per merged token, on axis 1.
        keeps_last: the last token is never merged: picking it is as good.
    """
    tokens = [value for value in node.inputs if value is not None and merged(value)]
    others = [value for value in node.inputs if value is not None and not merged(value)]
    x = tokens[0] if tokens else None
    shape = None if x is None else dims(x)
    if node.domain not in ("", "ai.onnx") or x is None or shape is None:
        return False
    rank, op = len(shape), node.op_type
    if op in _UNARY or op in _BINARY:
        # A smaller rank than that of the tokens, or a one on their axis: the same for all tokens.
        alike = all(_same_for_all(dims(value), rank) for value in others)
        return alike and all(len(dims(value) or ()) == rank for value in tokens)
    if op == "MatMul":
        weight = dims(others[0]) if len(tokens) == 1 and others else None
        return node.inputs[0] is x and weight is not None and len(weight) <= 2
    if op in _REDUCTIONS:
        axes = _ints(node, "axes", 1)
        return node.inputs[0] is x and bool(axes) and all(axis % rank > 1 for axis in axes)
    if op in ("Softmax", "LogSoftmax") or op in _LAST_AXIS:
        return node.inputs[0] is x and node.attributes.get_int("axis", -1) % rank > 1
    if op not in ("Gather", "Slice") or node.inputs[0] is not x:
        return False
    return _picks_features(node, rank) or (keeps_last and _picks_the_last(node, rank))


def _same_for_all(shape: Sequence[object] | None, rank: int) -> bool:
    return shape is not None and (
        len(shape) < rank - 1 or (len(shape) <= rank and shape[len(shape) - rank + 1] == 1)
    )


def _ints(node: ir.Node, name: str, index: int) -> list[int]:
    """An axes-like setting, as input or, before opset 18, as attribute; empty where it is neither."""
    value = constant(node.inputs[index]) if len(node.inputs) > index else None
    if value is not None:
        return [int(item) for item in value.reshape(-1)]
    attribute = node.attributes.get(name)
    return [] if attribute is None else [int(item) for item in attribute.as_ints()]


def _picks_the_last(node: ir.Node, rank: int) -> bool:
    """Of Gather and Slice: nothing but the last token."""
    if node.op_type == "Gather":
        index = constant(node.inputs[1])
        on_tokens = node.attributes.get_int("axis", 0) % rank == 1
        return on_tokens and index is not None and index.size > 0 and bool((index == -1).all())
    if len(node.inputs) < 4:
        return False
    start, end, axis = (scalar(value) for value in node.inputs[1:4])
    step = 1.0 if len(node.inputs) < 5 else scalar(node.inputs[4])
    if start is None or end is None or axis is None or step != 1:
        return False
    # Exporters write "to the end" as the largest number of int64 or int32.
    return start == -1 and end >= np.iinfo(np.int32).max and axis % rank == 1


def _picks_features(node: ir.Node, rank: int) -> bool:
    if node.op_type == "Gather":
        return node.attributes.get_int("axis", 0) % rank > 1
    axes = _ints(node, "axes", 3)
    return bool(axes) and all(axis % rank > 1 for axis in axes)
