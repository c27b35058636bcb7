"""Position biases that depend on the distance of two tokens alone: computed once per distance, not once per pair.

T5 (arXiv 1910.10683, section 2.1) buckets the distance ``j - i`` of every pair of tokens and looks the bucket up. An
exporter writes that as some fifteen elementwise operators over ``[N, N]`` in front of a Gather from the learned
embedding. This work is the same however many tokens merging removes, so on a short run it is a large part of what is
left. Here the chain and the lookup run over the 2N - 1 distances; ``tsmerge.DistancePlane`` spreads the result, and the
planes of merged tokens are gathered from that small table as well (``tsmerge.GatherPairs``).

The numbers stay the same to the last bit: each is the result of the same operators on the same distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from tsmerge_export.ops.distance_plane import BLOCK
from tsmerge_export.rewrite.constants import constant, range_behind, scalar
from tsmerge_export.rewrite.dims import Dim, dims
from tsmerge_export.rewrite.emit import Emitter
from tsmerge_export.settings.domain import DOMAIN

_ELEMENTWISE = {
    "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Div", "Equal", "Exp", "Floor", "Greater", "GreaterOrEqual",
    "Identity", "Less", "LessOrEqual", "Log", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Round", "Sign",
    "Sqrt", "Sub", "Where", "Xor",
}  # fmt: skip


@dataclass(frozen=True)
class DistanceTable:
    """``table [2C, H]``: row ``C + j - i`` belongs to tokens i and j; ``centre [1]`` int64 is C >= N.

    C is a multiple of BLOCK. Vector kernels take 16 or fewer elements at a time and the rest one by one with other
    code, whose logarithm may differ in the last bit; a table of whole vectors has no rest.
    """

    table: ir.Value
    centre: ir.Value


def fold_distances(graph: ir.Graph, emit: Emitter) -> dict[ir.Value, DistanceTable]:
    """Rewrite every learned position bias ``[H, N, N]`` that is a function of the distance of two tokens.

    That is a Gather from a constant ``[buckets, H]`` by a chain of elementwise operators on ``j - i``, whose heads a
    Transpose brings to the front.

    Args:
        graph: edited in place; the old nodes are left without a use.
        emit: inserts into ``graph``.

    Returns:
        The table of each new bias ``[H, N, N]``.
    """
    found = {}
    for node in list(graph):
        if (
            node.op_type != "Transpose"
            or node.domain != ""
            or tuple(node.attributes.get_ints("perm", ())) != (2, 0, 1)
        ):
            continue
        lookup = node.inputs[0].producer() if node.inputs[0] is not None else None
        if (
            lookup is None
            or lookup.op_type != "Gather"
            or lookup.domain != ""
            or lookup.attributes.get_int("axis")
        ):
            continue
        data = lookup.inputs[0]
        if data is None or constant(data) is None or len(dims(data) or ()) != 2:
            continue
        old = node.outputs[0]
        if old.is_graph_output():
            continue
        emit.move_before(node)
        chain = _Chain(emit)
        buckets = chain.follow(lookup.inputs[1])
        if buckets is None:
            continue
        table = emit.op(
            "Gather", [data, buckets], {}, data.dtype, [chain.count, (dims(old) or [None])[0]], "by_distance"
        )
        inputs = [table, chain.centre, chain.length]
        new = emit.op("DistancePlane", inputs, {}, old.dtype, dims(old), "distance_plane", domain=DOMAIN)
        old.replace_all_uses_with(new)
        found[new] = DistanceTable(table, chain.centre)
    emit.move_before(None)
    return found


class _Chain:
    """One chain of elementwise operators on ``j - i``, copied to work on all distances in a row."""

    def __init__(self, emit: Emitter) -> None:
        self._emit = emit
        self._copies: dict[ir.Value, ir.Value | None] = {}
        self.positions: ir.Value | None = None  # the Range 0 .. N - 1 that both tokens come from

    def follow(self, value: ir.Value | None) -> ir.Value | None:
        """``value [N, N]`` for every distance, ``[2C]``; None where it is no function of the distance."""
        if value is None:
            return None
        if value not in self._copies:
            self._copies[value] = self._copy(value)
        return self._copies[value]

    def _copy(self, value: ir.Value) -> ir.Value | None:
        node = value.producer()
        if node is None or node.domain != "" or node.op_type not in _ELEMENTWISE or len(node.outputs) != 1:
            return None
        if len(dims(value) or ()) != 2:
            return None
        if node.op_type == "Sub":
            root = self._root(node)
            if root is not None:
                return root
        operands = [self._scalar(operand) or self.follow(operand) for operand in node.inputs]
        if None in operands or self.positions is None:
            return None
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        return self._emit.op(node.op_type, operands, attributes, value.dtype, [self.count], "by_distance")

    def _root(self, node: ir.Node) -> ir.Value | None:
        """All distances, where ``node`` subtracts one token's position from the other's."""
        sides = [_position(operand) for operand in node.inputs]
        first, second = sides
        if first is None or second is None or first[1] == second[1] or first[0] is not second[0]:
            return None
        if self.positions not in (None, first[0]):
            return None
        self.positions = first[0]
        dtype = node.outputs[0].dtype
        vector = self._distances()
        if first[1] == 0:  # i - j
            vector = self._emit.op("Neg", [vector], {}, ir.DataType.INT64, [self.count], "distance")
        if dtype != ir.DataType.INT64:
            vector = self._emit.op("Cast", [vector], {"to": dtype}, dtype, [self.count], "distance")
        return vector

    def _scalar(self, value: ir.Value | None) -> ir.Value | None:
        """The number that a value is full of: a constant, or one that was expanded to the plane."""
        node = value.producer() if value is not None else None
        if (
            value is not None
            and node is not None
            and node.op_type == "Expand"
            and len(dims(value) or ()) == 2
        ):
            value = node.inputs[0]
        if value is None or scalar(value) is None:
            return None
        return value if len(dims(value) or ()) <= 1 else None

    # -- values over all distances ------------------------------------------------------------------------------

    @property
    def count(self) -> Dim:
        """Symbol of the axis."""
        return f"distances_{self._tokens}"

    @property
    def _tokens(self) -> Dim:
        assert self.positions is not None
        return (dims(self.positions) or [None])[0]

    @property
    def length(self) -> ir.Value:
        """N, ``[1]`` int64."""
        assert self.positions is not None
        return self._emit.length(self.positions, 0)

    def _int(self, op_type: str, operands: list[ir.Value], shape: list[Dim]) -> ir.Value:
        return self._emit.op(op_type, operands, {}, ir.DataType.INT64, shape, "distance")

    @property
    def centre(self) -> ir.Value:
        """C, the least multiple of BLOCK that is N or more."""
        block = self._emit.const([BLOCK])
        rounded = self._int("Add", [self.length, self._emit.const([BLOCK - 1])], [1])
        return self._int("Mul", [self._int("Div", [rounded, block], [1]), block], [1])

    def _distances(self) -> ir.Value:
        """``-C .. C - 1``, cut to what occurs, so that a lookup made for N tokens is not asked for more."""
        emit = self._emit
        axes = emit.const([0])
        limit = self._int("Squeeze", [self.centre, axes], [])
        start = self._int("Neg", [limit], [])
        every = self._int("Range", [start, limit, emit.const(1)], [self.count])
        most = self._int("Sub", [self.length, emit.const([1])], [1])
        least = self._int("Neg", [most], [1])
        return self._int("Max", [self._int("Min", [every, most], [self.count]), least], [self.count])


def _position(value: ir.Value | None) -> tuple[ir.Value, int] | None:
    """The Range 0, 1, .. that a value ``[N, 1]``, ``[1, N]`` or ``[N]`` is made of, and its axis in a plane."""
    found = dims(value) if value is not None else None
    if value is None or not found or len(found) > 2:
        return None
    axis = 0 if len(found) == 2 and found[1] == 1 else 1
    if len(found) == 2 and found[1 - axis] != 1:
        return None
    found_range = range_behind(value)
    if found_range is None or (scalar(found_range.inputs[0]), scalar(found_range.inputs[2])) != (0, 1):
        return None
    return found_range.outputs[0], axis
