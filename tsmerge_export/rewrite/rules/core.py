"""What a transfer rule is: given merged inputs, how a node's inputs change and which output axes are merged."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from tsmerge_export.rewrite.align import Aligner, CannotAlign
from tsmerge_export.rewrite.constants import constant
from tsmerge_export.rewrite.dims import Dim, dims
from tsmerge_export.rewrite.emit import Emitter
from tsmerge_export.rewrite.stages import Stage, Tags, deepest


class Barrier(Exception):
    """The node cannot work on merged tokens; its inputs are unmerged first. The message says why."""


@dataclass
class Outcome:
    """Result of a rule.

    Attributes:
        tags: merged axes of each output.
        inputs: inputs to replace, by index.
        replace: outputs to replace by another value, by index (the node itself then has no use left).
    """

    tags: list[Tags]
    inputs: dict[int, ir.Value] = field(default_factory=dict)
    replace: dict[int, ir.Value] = field(default_factory=dict)


@dataclass
class Context:
    """The state of the walk that rules read: which axes are merged, and the tools to mend operands.

    ``prop_attn``: add the logarithm of the tokens' sizes to attention scores. ``protect_first``, ``protect_last``:
    tokens at either end that no merge touches.
    """

    emit: Emitter
    aligner: Aligner
    prop_attn: bool = False
    protect_first: int = 0
    protect_last: int = 0
    state: dict[ir.Value, Tags] = field(default_factory=dict)

    def tags(self, value: ir.Value | None) -> Tags:
        """Merged axes of a value."""
        return {} if value is None else self.state.get(value, {})

    def base_dims(self, value: ir.Value) -> list[Dim]:
        """Dims as they were before merging. Raises Barrier where the rank is unknown."""
        found = dims(value)
        if found is None:
            raise Barrier("an operand has unknown dims")
        tags = self.tags(value)
        return [tags[axis].root.dim if axis in tags else dim for axis, dim in enumerate(found)]


Rule = Callable[[ir.Node, Context], Outcome]
RULES: dict[str, Rule] = {}


def rule(*op_types: str) -> Callable[[Rule], Rule]:
    """Register a rule for operators of the default ONNX domain."""

    def register(function: Rule) -> Rule:
        for op_type in op_types:
            RULES[op_type] = function
        return function

    return register


def operand(node: ir.Node, index: int) -> ir.Value:
    """A required input."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise Barrier(f"input {index} is missing")
    return value


def constant_ints(node: ir.Node, index: int, attribute: str | None = None) -> list[int] | None:
    """Whole numbers from an input (today's opsets) or an attribute (older ones); None where absent."""
    if index < len(node.inputs) and node.inputs[index] is not None:
        array = constant(node.inputs[index])
        if array is None:
            raise Barrier(f"input {index} is computed at run time")
        return [int(number) for number in array.reshape(-1)]
    if attribute is not None and attribute in node.attributes:
        return list(node.attributes[attribute].as_ints())
    return None


def unify(
    context: Context, operands: Sequence[ir.Value], labels: Sequence[Sequence[Hashable]], rank: int
) -> tuple[list[ir.Value], dict[Hashable, Stage]]:
    """Bring operands whose axes must have the same length to the same stage.

    Args:
        operands: the values. labels: one label per axis of each; axes with the same label must fit together
            (an axis of length 1 fits everything).
        rank: number of axes that the operands broadcast to.

    Returns:
        The operands, aligned where they lag, and the stage of each merged label.

    Raises:
        Barrier: they cannot be brought together.
    """
    stages: dict[Hashable, Stage] = {}
    for label in dict.fromkeys(label for axes in labels for label in axes):
        found = [
            context.tags(value)[axis]
            for value, axes in zip(operands, labels, strict=True)
            for axis, own in enumerate(axes)
            if own == label and axis in context.tags(value)
        ]
        if found:
            last = deepest(found)
            if last is None:
                raise Barrier("its operands were merged apart")
            stages[label] = last
    result = []
    for value, axes in zip(operands, labels, strict=True):
        tags, shape = context.tags(value), context.base_dims(value)
        moves: dict[int, tuple[Stage, Stage]] = {}
        for axis, label in enumerate(axes):
            stage = stages.get(label)
            source = tags.get(axis)
            if stage is None or source is stage or (source is None and shape[axis] == 1):
                continue
            root = stage.root
            fixed = isinstance(shape[axis], int) or isinstance(root.dim, int)
            if source is None and fixed and shape[axis] != root.dim:
                raise Barrier(f"an operand has {shape[axis]} entries where the tokens are {root.dim}")
            moves[axis] = (source or root, stage)
        try:
            result.append(context.aligner.align(value, moves, rank) if moves else value)
        except CannotAlign as error:
            raise Barrier(str(error)) from error
    return result, stages


def refuse_axes(tags: Tags, axes: Sequence[int], what: str) -> None:
    """Raise Barrier where one of ``axes`` is merged."""
    if any(axis in tags for axis in axes):
        raise Barrier(f"it {what} the token axis")
