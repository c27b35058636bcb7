"""Rules for shape arithmetic. Shapes stay in original coordinates; what uses them as an operand gets a patched copy.

A graph computes masks and positions from the length it was given, so ``Shape`` of a merged value answers with the
original number of tokens. ``Reshape`` and ``Expand`` of merged values get the merged number put in.
"""

from __future__ import annotations

import onnx_ir as ir

from tsmerge_export.rewrite.dims import dims
from tsmerge_export.rewrite.regroup import CannotRegroup, regroup
from tsmerge_export.rewrite.rules.core import Barrier, Context, Outcome, constant, operand, rule
from tsmerge_export.rewrite.stages import Stage


@rule("Shape")
def shape_of(node: ir.Node, context: Context) -> Outcome:
    """The shape with the original number of tokens on merged axes."""
    value = operand(node, 0)
    rank = len(context.base_dims(value))
    start = node.attributes.get_int("start", 0)
    end = node.attributes.get_int("end", rank)
    axes = list(range(rank))[start:end]
    parts: list[ir.Value] = []
    for axis in axes:
        stage = context.tags(value).get(axis)
        parts.append(context.emit.length(value, axis) if stage is None else stage.root.length)
    if len(parts) == 1:
        return Outcome([{}], replace={0: parts[0]})
    whole = context.emit.op("Concat", parts, {"axis": 0}, ir.DataType.INT64, [len(parts)], "shape")
    return Outcome([{}], replace={0: whole})


def _patched(
    target: ir.Value, where: dict[int, Stage], context: Context, allow_zero: bool, shared: int | None = None
) -> ir.Value:
    """A copy of a shape operand with the merged number of tokens at the given entries.

    Operands are shared between layers, so none is edited in place; equal copies are made once. The entry ``shared`` is
    of tokens and batch together: their number is left to Reshape.
    """
    emit = context.emit
    values = constant(target)

    def length(axis: int) -> ir.Value:
        return emit.const([-1]) if axis == shared else where[axis].length

    if values is not None:
        entries = [int(number) for number in values.reshape(-1)]
        needed = {axis: stage for axis, stage in where.items() if entries[axis] not in (-1,)}
        if not needed:
            return target
        if shared in needed and -1 in entries:
            raise Barrier("its target shape leaves another number open")
        parts = [
            length(axis) if axis in needed else emit.const([entry]) for axis, entry in enumerate(entries)
        ]
        if not allow_zero and 0 in entries:
            # An entry 0 copies the input's dim at that index, which stays true: merged axes keep their index here.
            parts = [part if entries[axis] != 0 else emit.const([0]) for axis, part in enumerate(parts)]
        return emit.op("Concat", parts, {"axis": 0}, ir.DataType.INT64, [len(parts)], "sizes")
    size = dims(target)
    if size is None or not isinstance(size[0], int):
        raise Barrier("its target shape has unknown length")
    producer = target.producer()
    if producer is not None and producer.op_type == "Concat" and all(_is_single(v) for v in producer.inputs):
        parts = [length(axis) if axis in where else operand(producer, axis) for axis in range(size[0])]
        others = [constant(part) for axis, part in enumerate(parts) if axis not in where]
        if shared is not None and any(part is not None and -1 in part for part in others):
            raise Barrier("its target shape leaves another number open")
    else:
        if shared is not None:
            raise Barrier("its target shape may leave another number open")
        parts = []
        for axis in range(size[0]):
            bounds = [emit.const([number]) for number in (axis, axis + 1, 0)]
            entry = emit.op("Slice", [target, *bounds], {}, ir.DataType.INT64, [1], "entry")
            parts.append(length(axis) if axis in where else entry)
    return emit.op("Concat", parts, {"axis": 0}, ir.DataType.INT64, [len(parts)], "sizes")


def _is_single(value: ir.Value | None) -> bool:
    return value is not None and dims(value) == [1]


@rule("Reshape")
def reshape(node: ir.Node, context: Context) -> Outcome:
    """A reshape that tells tokens and batch from other entries: each whole, on one axis, or the two together."""
    value, target = operand(node, 0), operand(node, 1)
    before, after = context.base_dims(value), dims(node.outputs[0])
    if after is None or not after or any(dim is None for dim in after):
        raise Barrier("its result has unknown dims")
    try:
        where, rows, moved = regroup(before, after, context.tags(value), context.rows(value))
    except CannotRegroup as error:
        raise Barrier(str(error)) from error
    allow_zero = bool(node.attributes.get_int("allowzero", 0))
    entries = constant(target)
    if entries is not None and not allow_zero:
        # A 0 at another index than the token axis had would copy the wrong dim; exporters do not write that.
        for new, axis in moved.items():
            if entries.reshape(-1)[new] == 0 and axis != new:
                raise Barrier("its target shape copies another axis")
    shared = rows.axis if rows.axis in where else None
    return Outcome([where], {1: _patched(target, where, context, allow_zero, shared)}, rows=rows)


@rule("Expand")
def expand(node: ir.Node, context: Context) -> Outcome:
    """Broadcast to a computed shape: the merged axes get the merged number of tokens."""
    value, target = operand(node, 0), operand(node, 1)
    after = dims(node.outputs[0])
    if after is None:
        raise Barrier("its result has unknown dims")
    shift = len(after) - len(context.base_dims(value))
    if shift:
        raise Barrier("it adds leading axes")
    tags = dict(context.tags(value))
    # An entry 1 keeps the operand's length; everything else was the original number of tokens.
    entries = constant(target)
    where = {axis: s for axis, s in tags.items() if entries is None or int(entries.reshape(-1)[axis]) != 1}
    patched = {1: _patched(target, where, context, True)} if where else {}
    return Outcome([tags], patched, rows=context.rows(value))
