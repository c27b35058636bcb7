"""Rules for shape arithmetic. Shapes stay in original coordinates; what uses them as an operand gets a patched copy.

A graph computes masks and positions from the length it was given, so ``Shape`` of a merged value answers with the
original number of tokens. ``Reshape`` and ``Expand`` of merged values get the merged number put in.
"""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from tsmerge_export.rewrite.dims import Dim, dims
from tsmerge_export.rewrite.rules.core import Barrier, Context, Outcome, constant, operand, rule
from tsmerge_export.rewrite.stages import Stage, Tags


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


def _match_axes(before: list[Dim], after: list[Dim], axes: list[int]) -> dict[int, int]:
    """Where each of ``axes`` goes in a reshape that leaves it whole: the same dim behind the same product of dims."""
    found = {}
    for axis in axes:
        for new, dim in enumerate(after):
            if dim == before[axis] and _product(before[:axis]) == _product(after[:new]):
                found[axis] = new
                break
        else:
            raise Barrier("it folds the token axis into another")
    return found


def _product(factors: list[Dim]) -> tuple[int, Counter[Dim]]:
    number, symbols = 1, Counter[Dim]()
    for dim in factors:
        if isinstance(dim, int):
            number *= dim
        else:
            symbols[dim] += 1
    return number, symbols


def _patched(target: ir.Value, where: dict[int, Stage], context: Context, allow_zero: bool) -> ir.Value:
    """A copy of a shape operand with the merged number of tokens at the given entries.

    Operands are shared between layers, so none is edited in place; equal copies are made once.
    """
    emit = context.emit
    values = constant(target)
    if values is not None:
        entries = [int(number) for number in values.reshape(-1)]
        needed = {axis: stage for axis, stage in where.items() if entries[axis] not in (-1,)}
        if not needed:
            return target
        parts = [
            needed[axis].length if axis in needed else emit.const([entry])
            for axis, entry in enumerate(entries)
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
        parts = [where[axis].length if axis in where else operand(producer, axis) for axis in range(size[0])]
    else:
        parts = []
        for axis in range(size[0]):
            bounds = [emit.const([number]) for number in (axis, axis + 1, 0)]
            entry = emit.op("Slice", [target, *bounds], {}, ir.DataType.INT64, [1], "entry")
            parts.append(where[axis].length if axis in where else entry)
    return emit.op("Concat", parts, {"axis": 0}, ir.DataType.INT64, [len(parts)], "sizes")


def _is_single(value: ir.Value | None) -> bool:
    return value is not None and dims(value) == [1]


@rule("Reshape")
def reshape(node: ir.Node, context: Context) -> Outcome:
    """A reshape that leaves batch and token axes whole."""
    value, target = operand(node, 0), operand(node, 1)
    before, after = context.base_dims(value), dims(node.outputs[0])
    if after is None or not after or any(dim is None for dim in after):
        raise Barrier("its result has unknown dims")
    if before[0] != after[0]:
        raise Barrier("it changes the batch axis")
    tags = context.tags(value)
    moved = _match_axes(before, after, sorted(tags))
    where: Tags = {moved[axis]: stage for axis, stage in tags.items()}
    allow_zero = bool(node.attributes.get_int("allowzero", 0))
    entries = constant(target)
    if entries is not None and not allow_zero:
        # A 0 at another index than the token axis had would copy the wrong dim; exporters do not write that.
        for axis, new in moved.items():
            if entries.reshape(-1)[new] == 0 and axis != new:
                raise Barrier("its target shape copies another axis")
    return Outcome([where], {1: _patched(target, where, context, allow_zero)})


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
    return Outcome([tags], {1: _patched(target, where, context, True)} if where else {})
