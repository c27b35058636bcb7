"""Which axis of a node's output is which axis of its inputs, from the shapes at run time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray

Shape = Sequence[int]


Tags = Mapping[int, Any]


@dataclass(frozen=True, eq=False)
class Batch:
    """Stands in the tags of a merged value for the axis of the batch; ``each`` entries of it belong to one row.

    With ``copies`` the axis has the tokens too, after the batch or, with ``tokens_first``, before it.
    """

    rows: int
    each: int = 1
    copies: Any = None
    tokens_first: bool = False

    def same_place(self, other: Batch) -> bool:
        """Whether rows and tokens lie on the axis in the same way."""
        return (self.rows, self.each, self.tokens_first) == (other.rows, other.each, other.tokens_first)


class CannotFollow(Exception):
    """No rule says where a merged axis goes; the message says why."""


_ELEMENTWISE = {
    "Abs", "Add", "And", "BitwiseAnd", "BitwiseOr", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos", "Div", "Dropout",
    "Elu", "Equal", "Erf", "Exp", "Expand", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish",
    "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul",
    "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus",
    "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "ThresholdedRelu", "Where", "Xor",
}  # fmt: skip
# Over tokens they see the copies, as what is unmerged does.
_SEE_COPIES = {"ReduceMax", "ReduceMin", "ReduceSum"}
# One axis is special: it must not be merged. The others stay where they are.
_ALONG = {"Concat": 1, "Split": 0, "LogSoftmax": -1}


def _attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _axes(node: onnx.NodeProto, slot: int, ints: Mapping[str, NDArray[Any]], rank: int) -> list[int] | None:
    """Axes from an input (today's opsets) or an attribute; None where neither is given."""
    name = node.input[slot] if slot < len(node.input) else ""
    found = ints[name].reshape(-1).tolist() if name in ints else _attribute(node, "axes")
    return None if found is None else [int(axis) % rank for axis in found]


def reduced_axes(node: onnx.NodeProto, ints: Mapping[str, NDArray[Any]], rank: int) -> list[int]:
    """Axes of input 0 over which a node makes one number of many; none for other nodes."""
    if not node.op_type.startswith("Reduce"):
        return []
    axes = _axes(node, 1, ints, rank)
    if axes is None:
        axes = [] if _attribute(node, "noop_with_empty_axes", 0) else list(range(rank))
    return axes


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
        before, after: shapes of inputs and outputs. tags: merged axes of every input, and the axis of the batch. What
            is on a merged axis has a ``depth`` and tells whether it lies ``within`` another.
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
    """Note what is on an axis. Of tokens of several depths those of the deepest count: they are among the rest."""
    known = found.setdefault(axis, copies)
    if known is copies:
        return
    if isinstance(known, Batch) or isinstance(copies, Batch):
        if not (isinstance(known, Batch) and isinstance(copies, Batch) and known.same_place(copies)):
            raise CannotFollow("its operands have the batch on different axes")
        if known.copies is not copies.copies:
            raise CannotFollow("its operands merged apart, on an axis with the batch")
        return
    shallow, deep = sorted((known, copies), key=lambda own: own.depth)
    if not deep.within(shallow):
        raise CannotFollow("its operands merged apart")
    found[axis] = deep


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
                if isinstance(copies, Batch) or other not in tags[1 - slot]:
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
    if math.prod(after) == 0:
        raise CannotFollow("it is empty")
    found: dict[int, Any] = {}
    whole = {axis: own for axis, own in tags[0].items() if not isinstance(own, Batch)}
    batch = {axis: own for axis, own in tags[0].items() if isinstance(own, Batch)}
    for axis, own in batch.items():
        start = math.prod(before[0][:axis])
        if own.copies is not None:
            # Tokens and batch that shared an axis come apart again, or stay as they are.
            sizes = [own.rows, before[0][axis] // own.rows]
            parts: list[Any] = [Batch(own.rows), own.copies]
            if own.tokens_first:
                sizes, parts = sizes[::-1], parts[::-1]
            together = [
                n
                for n, size in enumerate(after)
                if size == math.prod(sizes) and math.prod(after[:n]) == start
            ]
            for new in [] if together else range(len(after) - 1):
                if list(after[new : new + 2]) == sizes and math.prod(after[:new]) == start:
                    found |= {new: parts[0], new + 1: parts[1]}
            found |= dict.fromkeys(together[:1], own)
            if not found:
                raise CannotFollow("it takes tokens and batch apart in another way")
            continue
        shared = _share(before[0], after, axis, own, whole)
        if shared is not None:
            new, token_axis, first = shared
            found[new] = Batch(own.rows, 1, whole.pop(token_axis), first)
            continue
        starts = [n for n, size in enumerate(after) if math.prod(after[:n]) == start and size % own.rows == 0]
        if not starts and own.rows > 1:
            raise CannotFollow("it folds the batch into another axis")
        if own.rows > 1:
            found[starts[-1]] = Batch(own.rows, after[starts[-1]] // own.rows)
    for axis, copies in whole.items():
        lead, length = math.prod(before[0][:axis]), before[0][axis]
        fits = [new for new, size in enumerate(after) if size == length and math.prod(after[:new]) == lead]
        if not fits:
            raise CannotFollow("it folds the merged axis into another")
        fits = [new for new in fits if new not in found] or fits
        # Of several, which then have length 1, the one with as many axes before it.
        found[axis if axis in fits else fits[0]] = copies
    return found


def _share(
    before: Shape, after: Shape, axis: int, batch: Batch, tokens: Tags
) -> tuple[int, int, bool] | None:
    """(new axis, axis of the tokens, whether these come first) where batch and tokens become one axis."""
    for first, other in ((False, axis + 1), (True, axis - 1)):
        if other not in tokens or (batch.each != 1 and not first) or batch.rows == 1 or before[other] == 1:
            continue
        lead = math.prod(before[: min(axis, other)])
        for new, size in enumerate(after):
            if size == batch.rows * before[other] and math.prod(after[:new]) == lead:
                return new, other, first
    return None


def _weighed(
    node: Any, before: Sequence[Shape], after: Shape, tags: Sequence[Tags], ints: Any
) -> dict[int, Any]:
    """Gemm: rows of input 0 times weights."""
    if 1 in tags[0] or any(tags[1:]) or _attribute(node, "transA", 0):
        raise CannotFollow("it sums over the merged axis")
    return dict(tags[0])


def _reduced(
    node: Any, before: Sequence[Shape], after: Shape, tags: Sequence[Tags], ints: Any
) -> dict[int, Any]:
    axes = reduced_axes(node, ints, len(before[0]))
    if node.op_type not in _SEE_COPIES and any(axis in tags[0] for axis in axes):
        raise CannotFollow("it reduces over the merged axis")
    left = {axis: own for axis, own in tags[0].items() if axis not in axes}
    if any(isinstance(own, Batch) for own in tags[0].values()) != any(
        isinstance(own, Batch) for own in left.values()
    ) and any(not isinstance(own, Batch) or own.copies is not None for own in left.values()):
        raise CannotFollow("it reduces over the batch, but not over the tokens")
    if _attribute(node, "keepdims", 1):
        return left
    return {axis - sum(a < axis for a in axes): copies for axis, copies in left.items()}


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
    if any(isinstance(own, Batch) and axis != 0 for axis, own in tags[0].items()):
        raise CannotFollow("its batch is not first")
    return dict(tags[0])


_RULES: dict[str, Callable[..., dict[int, Any]]] = {
    "ArgMax": _searched,
    "ArgMin": _searched,
    "BatchNormalization": _batch_normalised,
    "Conv": _convolved,
    "Gather": _gathered,
    "Gemm": _weighed,
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
