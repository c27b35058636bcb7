"""Rules for operators that move axes or pick along them: transposes, slices, gathers, concatenations."""

from __future__ import annotations

import onnx_ir as ir

from tsmerge_export.rewrite.constants import scalar
from tsmerge_export.rewrite.rules.core import (
    Barrier,
    Context,
    Outcome,
    constant,
    constant_ints,
    operand,
    placed,
    refuse_axes,
    refuse_batch,
    rule,
    unify,
)

# Exporters write the end of an axis as the largest int64, some as the largest int32.
_FAR = 2**31 - 1
_SAME_NUMBER = {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"}


@rule("Transpose")
def transpose(node: ir.Node, context: Context) -> Outcome:
    """Tags and batch move with their axes."""
    value = operand(node, 0)
    rank = len(context.base_dims(value))
    perm = list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else list(range(rank))[::-1]
    return placed(context.tags(value), context.rows(value), perm)


@rule("Unsqueeze")
def unsqueeze(node: ir.Node, context: Context) -> Outcome:
    """New axes of length 1."""
    value = operand(node, 0)
    axes = constant_ints(node, 1, "axes") or []
    rank = len(context.base_dims(value)) + len(axes)
    new = {axis % rank for axis in axes}
    old = iter(range(rank))
    order = [None if axis in new else next(old) for axis in range(rank)]
    return placed(context.tags(value), context.rows(value), order)


@rule("Squeeze")
def squeeze(node: ir.Node, context: Context) -> Outcome:
    """Axes of length 1 go away."""
    value = operand(node, 0)
    shape = context.base_dims(value)
    axes = constant_ints(node, 1, "axes")
    gone = (
        {axis % len(shape) for axis in axes} if axes else {axis for axis, dim in enumerate(shape) if dim == 1}
    )
    rows = context.rows(value)
    refuse_axes(context.tags(value), sorted(gone), "squeezes")
    if rows.axis in gone and shape[rows.axis] != 1:  # type: ignore[index]
        raise Barrier("it squeezes the batch axis")
    left = [axis for axis in range(len(shape)) if axis not in gone]
    return placed(context.tags(value), rows, left)


@rule("Split")
def split(node: ir.Node, context: Context) -> Outcome:
    """Along an axis that is not tokens."""
    value = operand(node, 0)
    axis = node.attributes.get_int("axis", 0) % len(context.base_dims(value))
    refuse_axes(context.tags(value), [axis], "splits")
    refuse_batch(context.rows(value), [axis], "splits")
    return Outcome([dict(context.tags(value)) for _ in node.outputs], rows=context.rows(value))


@rule("Slice")
def slice_(node: ir.Node, context: Context) -> Outcome:
    """Along axes that are not tokens: an index among tokens means an original one.

    Protected tokens at either end are an exception: they are all there, and counted from their end at the same index.
    """
    value = operand(node, 0)
    rank = len(context.base_dims(value))
    axes = constant_ints(node, 3, "axes")
    if axes is None:
        starts = constant_ints(node, 1, "starts")
        axes = list(range(len(starts))) if starts is not None else list(range(rank))
    axes = [axis % rank for axis in axes]
    tags = dict(context.tags(value))
    rows = context.rows(value)
    refuse_batch(rows, axes, "slices")
    if len(axes) == 1 and axes[0] in tags and _takes_ends_alone(node, context):
        del tags[axes[0]]
        return Outcome([tags], rows=rows)
    refuse_axes(tags, axes, "slices")
    return Outcome([tags], rows=rows)


def _takes_ends_alone(node: ir.Node, context: Context) -> bool:
    """Whether a Slice of tokens takes none but those that no merge touches, by its indices."""
    start, end = operand(node, 1), scalar(operand(node, 2))
    ends, step = context.ends, scalar(node.inputs[4]) if len(node.inputs) > 4 else 1
    if step != 1 or end is None:
        return False
    first = scalar(start)
    if first is None:
        most = _most_from_the_end(start)
        known = (most is not None and most <= ends.last) or _is_apart(start, context)
        return end >= _FAR and known
    if first >= 0:
        return 0 <= end <= ends.first
    return -ends.last <= first and (end >= _FAR or first <= end < 0)


def _is_apart(start: ir.Value, context: Context) -> bool:
    """Whether a computed start -m has an m that the number of tokens apart is computed from: these and more (R13.9)."""
    minus = _behind(start)
    least = _behind(minus.inputs[0]) if minus is not None and minus.op_type == "Neg" else None
    return least is not None and least.op_type == "Min" and least.outputs[0] in context.ends.apart


def _behind(value: ir.Value | None) -> ir.Node | None:
    """What computes an index, casts and changes of shape left out."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in _SAME_NUMBER:
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    return node


def _most_from_the_end(start: ir.Value) -> int | None:
    """The largest m of a computed start -m, where that is the smaller one of lengths and a constant; else None."""
    minus = _behind(start)
    least = _behind(minus.inputs[0]) if minus is not None and minus.op_type == "Neg" else None
    if least is None or least.op_type != "Min":
        return None
    bounds = [scalar(value) for value in least.inputs]
    known = [bound for bound in bounds if bound is not None]
    lengths = [value for value, bound in zip(least.inputs, bounds, strict=True) if bound is None]
    sources = [_behind(value) for value in lengths]
    if not known or min(known) < 1 or any(node is None or node.op_type != "Shape" for node in sources):
        return None
    return int(min(known))


@rule("Pad")
def pad(node: ir.Node, context: Context) -> Outcome:
    """Along axes that are not tokens."""
    value = operand(node, 0)
    rank = len(context.base_dims(value))
    amounts = constant_ints(node, 1, "pads") or []
    axes = constant_ints(node, 3)
    axes = list(range(rank)) if axes is None else [axis % rank for axis in axes]
    padded = [axis for index, axis in enumerate(axes) if amounts[index] or amounts[index + len(axes)]]
    refuse_axes(context.tags(value), padded, "pads")
    refuse_batch(context.rows(value), padded, "pads")
    return Outcome([dict(context.tags(value))], rows=context.rows(value))


@rule("Concat")
def concat(node: ir.Node, context: Context) -> Outcome:
    """Along an axis that is not tokens; the other axes fit together."""
    operands = [operand(node, index) for index in range(len(node.inputs))]
    rank = len(context.base_dims(operands[0]))
    along = node.attributes["axis"].as_int() % rank
    for value in operands:
        refuse_axes(context.tags(value), [along], "concatenates along")
        if context.tags(value):
            refuse_batch(context.rows(value), [along], "concatenates along")
    labels = [
        [("along", index) if axis == along else axis for axis in range(rank)]
        for index in range(len(operands))
    ]
    out = [("along", 0) if axis == along else axis for axis in range(rank)]
    aligned, stages, rows = unify(context, operands, labels, rank, out)
    for value, new in zip(operands, aligned, strict=True):
        if new is not value and rows.axis is not None and context.base_dims(value)[rows.axis] == 1:
            raise Barrier("an operand without a batch would have to get one")
    tags = {axis: stages[axis] for axis in range(rank) if axis in stages}
    if node.outputs[0] not in context.upstream and _several_layers(operands, aligned, context):
        raise Barrier("it collects what several layers made, for no attention to read")
    return Outcome([tags], dict(enumerate(aligned)), rows=rows)


def _several_layers(operands: list[ir.Value], aligned: list[ir.Value], context: Context) -> bool:
    """Whether tokens would be brought from an earlier layer to a later one, which loses what the earlier one had."""
    lagging = [old for old, new in zip(operands, aligned, strict=True) if new is not old]
    return any(context.tags(value) or value in context.upstream for value in lagging)


@rule("Gather")
def gather(node: ir.Node, context: Context) -> Outcome:
    """Merged indices look up per token; merged data may be picked from along any axis that is not tokens.

    Of tokens only protected ones may be picked, which keep their place from their end.
    """
    data, indices = operand(node, 0), operand(node, 1)
    axis = node.attributes.get_int("axis", 0) % len(context.base_dims(data))
    picked = context.tags(indices)
    tags = context.tags(data)
    if picked and (tags or axis != 0):
        raise Barrier("it looks up merged indices in merged data")
    if picked:
        return Outcome([dict(picked)], rows=context.rows(indices))
    index = constant(indices)
    # Protected tokens are all there, and counted from their end at the same index.
    if index is None or not ((-context.ends.last <= index) & (index < context.ends.first)).all():
        refuse_axes(tags, [axis], "picks from")
    refuse_batch(context.rows(data), [axis], "picks from")
    found = len(context.base_dims(indices)) if index is None else index.ndim
    rank = len(context.base_dims(data))
    return placed(tags, context.rows(data), [*range(axis), *[None] * found, *range(axis + 1, rank)])
