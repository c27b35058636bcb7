"""What a transfer rule is: given merged inputs, how a node's inputs change and which output axes are merged."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from tsmerge_export.rewrite.align import Aligner, CannotAlign
from tsmerge_export.rewrite.constants import constant
from tsmerge_export.rewrite.dims import Dim, dims
from tsmerge_export.rewrite.emit import Emitter
from tsmerge_export.rewrite.stages import FIRST, Rows, Stage, Tags, deepest


class Barrier(Exception):
    """The node cannot work on merged tokens; its inputs are unmerged first. The message says why."""


@dataclass
class Outcome:
    """Result of a rule.

    Attributes:
        tags: merged axes of each output.
        inputs: inputs to replace, by index.
        replace: outputs to replace by another value, by index (the node itself then has no use left).
        rows: where the batch is in the outputs.
    """

    tags: list[Tags]
    inputs: dict[int, ir.Value] = field(default_factory=dict)
    replace: dict[int, ir.Value] = field(default_factory=dict)
    rows: Rows = FIRST


@dataclass(frozen=True)
class Ends:
    """How many tokens at either end no merge touches: counted from their end, they stay where they are.

    ``apart``: what a number of tokens that stand apart at the end is computed from, where it is no constant.
    """

    first: int = 0
    last: int = 0
    apart: frozenset[ir.Value] = frozenset()


@dataclass
class Context:
    """The state of the walk that rules read: which axes are merged, and the tools to mend operands.

    ``prop_attn``: add the logarithm of the tokens' sizes to attention scores. ``ends``: what merging never touches.
    ``upstream``: values that some attention still reads, of itself or what is made of them.
    """

    emit: Emitter
    aligner: Aligner
    prop_attn: bool = False
    ends: Ends = field(default_factory=Ends)
    upstream: frozenset[ir.Value] = frozenset()
    state: dict[ir.Value, Tags] = field(default_factory=dict)
    layout: dict[ir.Value, Rows] = field(default_factory=dict)
    unmerged_dims: dict[ir.Value, list[Dim]] = field(default_factory=dict)

    def tags(self, value: ir.Value | None) -> Tags:
        """Merged axes of a value."""
        return {} if value is None else self.state.get(value, {})

    def set(self, value: ir.Value, tags: Tags, rows: Rows, unmerged: Sequence[Dim]) -> None:
        """Note what is merged in a value, where its batch is, and what its dims were."""
        self.state[value], self.layout[value], self.unmerged_dims[value] = tags, rows, list(unmerged)

    def rows(self, value: ir.Value | None) -> Rows:
        """Where the batch is in a merged value."""
        return FIRST if value is None else self.layout.get(value, FIRST)

    def folded(self, value: ir.Value | None) -> bool:
        """Whether tokens and batch share an axis."""
        return self.rows(value).axis in self.tags(value)

    def base_dims(self, value: ir.Value) -> list[Dim]:
        """Dims as they were before merging. Raises Barrier where the rank is unknown."""
        if value in self.unmerged_dims:
            return self.unmerged_dims[value]
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
    context: Context,
    operands: Sequence[ir.Value],
    labels: Sequence[Sequence[Hashable]],
    rank: int,
    out: Sequence[Hashable],
) -> tuple[list[ir.Value], dict[Hashable, Stage], Rows]:
    """Bring operands whose axes must have the same length to the same stage.

    Args:
        operands: the values. labels: one label per axis of each; axes with the same label must fit together
            (an axis of length 1 fits everything).
        rank: number of axes that the operands broadcast to. out: labels of the result.

    Returns:
        The operands, aligned where they lag, the stage of each merged label, and where the batch is in the result.

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
    batch, rows, whole = _common_rows(context, operands, labels)
    if batch is not None and batch not in out:
        raise Barrier("it sums over the batch")
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
            if label == batch:
                raise Barrier("an operand would have to follow tokens that share an axis with the batch")
            if source is None and fixed and shape[axis] != root.dim:
                raise Barrier(f"an operand has {shape[axis]} entries where the tokens are {root.dim}")
            moves[axis] = (source or root, stage)
        if not moves:
            result.append(value)
            continue
        try:
            at = rows if batch is None else replace(rows, axis=_place(batch, axes, rank))
            result.append(context.aligner.align(value, moves, rank, at, whole))
        except CannotAlign as error:
            raise Barrier(str(error)) from error
    return result, stages, rows if batch is None else replace(rows, axis=list(out).index(batch))


def _common_rows(
    context: Context, operands: Sequence[ir.Value], labels: Sequence[Sequence[Hashable]]
) -> tuple[Hashable | None, Rows, Dim]:
    """Label of the axis of the batch (None: a batch of one without an axis), how it is there, and its dim."""
    found: dict[tuple[Hashable, Rows], Dim] = {}
    for value, axes in zip(operands, labels, strict=True):
        if not context.tags(value):
            continue
        rows = context.rows(value)
        if rows.axis is not None:
            found[axes[rows.axis], replace(rows, axis=0)] = context.base_dims(value)[rows.axis]
    if len(found) > 1:
        raise Barrier("its operands have the batch on different axes")
    for (label, rows), dim in found.items():
        return label, rows, dim
    merged = any(context.tags(value) for value in operands)
    return None, Rows(None) if merged else FIRST, None


def _place(batch: Hashable, axes: Sequence[Hashable], rank: int) -> int:
    """Where the batch is among ``rank`` axes of which the last are an operand's."""
    if batch in axes:
        return rank - len(axes) + list(axes).index(batch)
    if isinstance(batch, int):
        return batch
    raise Barrier("the batch is no axis that an operand broadcasts along")


def placed(tags: Tags, rows: Rows, order: Sequence[int | None]) -> Outcome:
    """Axes in another order: for each new one the old one, or None."""
    at = None if rows.axis is None else list(order).index(rows.axis) if rows.axis in order else None
    new = {axis: tags[old] for axis, old in enumerate(order) if old in tags}
    return Outcome([new], rows=replace(rows, axis=at))  # type: ignore[arg-type]


def refuse_batch(rows: Rows, axes: Sequence[int], what: str) -> None:
    """Raise Barrier where one of ``axes`` is that of the batch."""
    if rows.axis in axes:
        raise Barrier(f"it {what} the batch axis")


def refuse_axes(tags: Tags, axes: Sequence[int], what: str) -> None:
    """Raise Barrier where one of ``axes`` is merged."""
    if any(axis in tags for axis in axes):
        raise Barrier(f"it {what} the token axis")
