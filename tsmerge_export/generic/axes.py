"""Which axis of a node's output is which axis of its inputs, from the shapes at run time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import onnx
from numpy.typing import NDArray

Shape = Sequence[int]


class _Depth(Protocol):
    @property
    def depth(self) -> int: ...


Tags = Mapping[int, Any]


class CannotFollow(Exception):
    """No rule says where a merged axis goes; the message says why."""


_ELEMENTWISE = {
    "Abs", "Add", "And", "BitwiseAnd", "BitwiseOr", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos", "Div", "Dropout",
    "Elu", "Equal", "Erf", "Exp", "Expand", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish",
    "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul",
    "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus",
    "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "ThresholdedRelu", "Where", "Xor",
}  # fmt: skip
# One axis is special: it must not be merged. The others stay where they are.
_ALONG = {"Concat": 1, "Split": 0, "LogSoftmax": -1}


def _attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _axes(node: onnx.NodeProto, slot: int, ints: Mapping[str, NDArray[Any]], rank: int) -> list[int] | None:
    """Axes from an input (today's opsets) or an attribute; None where neither is given."""
    name = node.input[slot] if slot < len(node.input) else ""
    found = ints[name].reshape(-1).tolist() if name in ints else _attribute(node, "axes")
    return None if found is None else [int(axis) % rank for axis in found]


def summed_axes(node: onnx.NodeProto, shapes: Sequence[Shape]) -> Iterator[tuple[int, int]]:
    """(input, axis) of the sums that merged tokens enter one by one."""
    if node.op_type == "Softmax":
        yield 0, int(_attribute(node, "axis", -1)) % len(shapes[0])
    elif node.op_type == "MatMul":
        yield 0, len(shapes[0]) - 1
        yield 1, max(0, len(shapes[1]) - 2)


def follow(
    node: onnx.NodeProto,
    before: Sequence[Shape],
    after: Sequence[Shape],
    tags: Sequence[Tags],
    ints: Mapping[str, NDArray[Any]],
) -> list[dict[int, Any]]:
    """The merged axes of every output.

    Args:
        before, after: shapes of inputs and outputs. tags: merged axes of every input, with a ``depth`` each.
        ints: values of the inputs that are integers.

    Raises:
        CannotFollow: there is no rule, or a merged axis is used up.
    """
    if node.op_type in _ELEMENTWISE:
        return [_broadcast(before, shape, tags) for shape in after]
    if node.op_type in _ALONG:
        rank = len(before[0])
        along = int(_attribute(node, "axis", _ALONG[node.op_type])) % rank
        if any(along in own for own in tags):
            raise CannotFollow("it works along the merged axis")
        return [_broadcast(before, shape, tags) for shape in after]
    if node.op_type in ("Shape", "Size"):
        return [{} for _ in after]
    rule = _RULES.get(node.op_type) or (_reduced if node.op_type.startswith("Reduce") else None)
    if rule is None:
        raise CannotFollow("no rule for this operator")
    return [rule(node, before, shape, tags, ints) for shape in after]


def _deeper(found: dict[int, Any], axis: int, copies: Any) -> None:
    if axis not in found or copies.depth > found[axis].depth:
        found[axis] = copies


def _broadcast(before: Sequence[Shape], after: Shape, tags: Sequence[Tags]) -> dict[int, Any]:
    """Trailing axes fit together."""
    found: dict[int, Any] = {}
    for shape, own in zip(before, tags, strict=True):
        for axis, copies in own.items():
            _deeper(found, axis + len(after) - len(shape), copies)
    return found


def _matmul(
    node: Any, before: Sequence[Shape], after: Shape, tags: Sequence[Tags], ints: Any
) -> dict[int, Any]:
    found: dict[int, Any] = {}
    ends = [len(shape) for shape in before]
    for slot, own in enumerate(tags):
        for axis, copies in own.items():
            summed = ends[0] - 1 if slot == 0 else max(0, ends[1] - 2)
            if axis == summed:
                other = ends[1] - 2 if slot == 0 else ends[0] - 1
                if other not in tags[1 - slot]:
                    raise CannotFollow("it sums over tokens with weights of the original ones")
                continue
            _deeper(found, axis + len(after) - ends[slot], copies)
    return found


def _transposed(
    node: Any, before: Sequence[Shape], after: Shape, tags: Sequence[Tags], ints: Any
) -> dict[int, Any]:
    perm = _attribute(node, "perm", list(range(len(after)))[::-1])
    return {new: tags[0][old] for new, old in enumerate(perm) if old in tags[0]}


def _unsqueezed(
    node: Any, before: Sequence[Shape], after: Shape, tags: Sequence[Tags], ints: Any
) -> dict[int, Any]:
    new = _axes(node, 1, ints, len(after)) or []
    old = [axis for axis in range(len(after)) if axis not in new]
    return {axis: tags[0][index] for index, axis in enumerate(old) if index in tags[0]}


def _squeezed(
    node: Any, before: Sequence[Shape], after: Shape, tags: Sequence[Tags], ints: Any
) -> dict[int, Any]:
    gone = _axes(node, 1, ints, len(before[0]))
    if gone is None:
        gone = [axis for axis, length in enumerate(before[0]) if length == 1]
    left = [axis for axis in range(len(before[0])) if axis not in gone]
    return {new: tags[0][old] for new, old in enumerate(left) if old in tags[0]}


def _reshaped(
    node: Any, before: Sequence[Shape], after: Shape, tags: Sequence[Tags], ints: Any
) -> dict[int, Any]:
    """An axis stays whole where as many entries lie before it, and it is as long."""
    found = {}
    for axis, copies in tags[0].items():
        lead, length = math.prod(before[0][:axis]), before[0][axis]
        fits = [new for new, size in enumerate(after) if size == length and math.prod(after[:new]) == lead]
        if not fits:
            raise CannotFollow("it folds the merged axis into another")
        # Of several, which then have length 1, the one with as many axes before it.
        found[axis if axis in fits else fits[0]] = copies
    return found


def _reduced(
    node: Any, before: Sequence[Shape], after: Shape, tags: Sequence[Tags], ints: Any
) -> dict[int, Any]:
    rank = len(before[0])
    axes = _axes(node, 1, ints, rank)
    if axes is None:
        axes = [] if _attribute(node, "noop_with_empty_axes", 0) else list(range(rank))
    if any(axis in tags[0] for axis in axes):
        raise CannotFollow("it reduces over the merged axis")
    if _attribute(node, "keepdims", 1):
        return dict(tags[0])
    return {axis - sum(a < axis for a in axes): copies for axis, copies in tags[0].items()}


def _searched(
    node: Any, before: Sequence[Shape], after: Shape, tags: Sequence[Tags], ints: Any
) -> dict[int, Any]:
    along = int(_attribute(node, "axis", 0)) % len(before[0])
    if along in tags[0]:
        raise CannotFollow("it searches the merged axis")
    keep = _attribute(node, "keepdims", 1)
    return {axis - (not keep and along < axis): copies for axis, copies in tags[0].items()}


def _softmax(
    node: Any, before: Sequence[Shape], after: Shape, tags: Sequence[Tags], ints: Any
) -> dict[int, Any]:
    return dict(tags[0])


def _batch_normalised(
    node: Any, before: Sequence[Shape], after: Shape, tags: Sequence[Tags], ints: Any
) -> dict[int, Any]:
    """With the statistics of training."""
    if 1 in tags[0]:
        raise CannotFollow("it scales every place of the merged axis by a number of its own")
    return dict(tags[0])


def _normalised(
    node: Any, before: Sequence[Shape], after: Shape, tags: Sequence[Tags], ints: Any
) -> dict[int, Any]:
    axis = int(_attribute(node, "axis", -1)) % len(before[0])
    if any(own >= axis for own in tags[0]):
        raise CannotFollow("it normalises over the merged axis")
    return dict(tags[0])


def _same_length(
    node: Any, before: Sequence[Shape], after: Shape, tags: Sequence[Tags], ints: Any
) -> dict[int, Any]:
    """Slice and Pad: the merged axes must come out as they went in."""
    axes = _axes(node, 3, ints, len(before[0]))
    if node.op_type == "Slice" and axes is not None and any(axis in tags[0] for axis in axes):
        raise CannotFollow("it slices the merged axis")
    if any(before[0][axis] != after[axis] for axis in tags[0]):
        raise CannotFollow("it changes the length of the merged axis")
    return dict(tags[0])


def _gathered(
    node: Any, before: Sequence[Shape], after: Shape, tags: Sequence[Tags], ints: Any
) -> dict[int, Any]:
    axis = int(_attribute(node, "axis", 0)) % len(before[0])
    if axis in tags[0]:
        raise CannotFollow("it picks from the merged axis")
    shift = len(before[1]) - 1
    found = {own + (shift if own > axis else 0): copies for own, copies in tags[0].items()}
    return found | {own + axis: copies for own, copies in tags[1].items()}


def _convolved(
    node: Any, before: Sequence[Shape], after: Shape, tags: Sequence[Tags], ints: Any
) -> dict[int, Any]:
    """Kernels of width 1 work on each token alone."""
    if any(width != 1 for width in before[1][2:]) or 1 in tags[0] or before[0][2:] != after[2:]:
        raise CannotFollow("it convolves over the merged axis")
    return dict(tags[0])


_RULES: dict[str, Callable[..., dict[int, Any]]] = {
    "ArgMax": _searched,
    "ArgMin": _searched,
    "BatchNormalization": _batch_normalised,
    "Conv": _convolved,
    "Gather": _gathered,
    "LayerNormalization": _normalised,
    "MatMul": _matmul,
    "Pad": _same_length,
    "RMSNormalization": _normalised,
    "Reshape": _reshaped,
    "Slice": _same_length,
    "Softmax": _softmax,
    "Squeeze": _squeezed,
    "Transpose": _transposed,
    "Unsqueeze": _unsqueezed,
}
