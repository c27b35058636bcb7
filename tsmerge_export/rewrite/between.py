"""Inserts merging between the blocks of a state-space model.

Such a block mixes tokens by convolution and scan, and works at any length: nothing in it belongs to one token but the
stream itself. So no operand is gathered. What follows a merge is left as it is, fed with fewer tokens; only what was
computed *from the length* (reshape targets, pads, triangular masks) is computed again from the new one. A value of the
old length from another source is no such thing, and is refused. Behind the last block tokens stay merged while each is
treated alone (:mod:`tsmerge_export.rewrite.tail`), and are unmerged before anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from tsmerge_export.errors import UnsupportedError
from tsmerge_export.merge.plan import MergeStep
from tsmerge_export.ops.schema import DOMAIN, VERSION
from tsmerge_export.rewrite.dims import Dim, dims
from tsmerge_export.rewrite.emit import Emitter
from tsmerge_export.rewrite.insert import BarrierReport, MergeReport, RewriteReport
from tsmerge_export.rewrite.lengths import symbols_of, token_counts
from tsmerge_export.rewrite.points import Point, scope_of
from tsmerge_export.rewrite.subgraphs import captured, give_captured
from tsmerge_export.rewrite.tail import works_token_by_token
from tsmerge_export.settings.config import Metric


class _Kind(IntEnum):
    FIXED = 0  # constants, and what follows from other lengths than that of the tokens
    LENGTH = 1  # follows from the number of tokens alone
    DATA = 2


@dataclass(frozen=True)
class _Stage:
    number: int
    dim: str
    length: ir.Value
    size: ir.Value
    target: ir.Value


def insert_between_blocks(
    model: ir.Model,
    points: list[Point],
    plan: Mapping[int, MergeStep],
    *,
    stay: Mapping[str, int] | None = None,
    metric: Metric = "x",
) -> RewriteReport:
    """Merge at the planned points, all tokens real. Edits ``model`` in place.

    Args:
        model: plain ONNX, every value with dtype and dims.
        points: from :func:`~tsmerge_export.rewrite.blocks.find_blocks`. plan: step by layer.
        stay: outputs that may stay merged. Every other output with one entry per token is unmerged.
        metric: ``x``, the tokens themselves, or ``hidden``, what the block computed before its residual was added.

    Raises:
        UnsupportedError: the number of tokens is fixed, or a later block uses something else with one entry per token.
    """
    return _Walk(model, points, plan, set(stay or {}), metric).run()


class _Walk:
    def __init__(
        self,
        model: ir.Model,
        points: list[Point],
        plan: Mapping[int, MergeStep],
        stay: set[str],
        metric: Metric,
    ) -> None:
        self._model, self._graph, self._stay, self._metric = model, model.graph, stay, metric
        self._steps = {point.node: (point, plan[point.layer]) for point in points if point.layer in plan}
        shape = dims(points[0].value)
        if shape is None or not isinstance(shape[1], str):
            raise UnsupportedError("merging between blocks needs a model with a dynamic number of tokens")
        self._tokens, self._batch = shape[1], shape[0]
        self._symbols = symbols_of(self._tokens) - symbols_of(self._batch)
        # A number of patches is an expression of the input's length, which blocks do not read from their tokens.
        self._counts = token_counts(self._graph, self._tokens) if self._tokens not in self._symbols else set()
        self._names: dict[tuple[str, int], str] = {}
        self._emit = Emitter(self._graph)
        self._dims = {value: dims(value) for node in self._graph for value in node.outputs}
        self._dims.update({value: dims(value) for value in self._graph.inputs})
        self._kinds: dict[ir.Value, _Kind] = {}
        self._stages: list[_Stage] = []
        self._stage_of: dict[ir.Value, _Stage] = {}  # values that come from merged tokens
        self._current: dict[ir.Value, ir.Value] = {}
        self._again: dict[tuple[ir.Value, int], ir.Value] = {}
        self._report = RewriteReport()
        self._last, self._behind = points[-1].node, False
        self._keeps_last = all(step.attributes.get("protect_last", 0) for step in plan.values())

    def run(self) -> RewriteReport:
        nodes = list(self._graph)
        for index, node in enumerate(nodes):
            self._emit.move_before(node)
            if self._stages and any(
                v in self._current or v in self._stage_of for v in (*node.inputs, *captured(node))
            ):
                self._feed(node)
            if node in self._steps:
                self._emit.move_before(nodes[index + 1] if index + 1 < len(nodes) else None)
                self._merge(*self._steps[node])
            self._behind = self._behind or node is self._last
        self._emit.move_before(None)
        self._finish_outputs()
        if self._report.merges:
            self._model.opset_imports[DOMAIN] = VERSION
        self._graph.sort()
        RemoveUnusedNodesPass()(self._model)
        return self._report

    # -- what a value follows from ---------------------------------------------------------------------------------

    def _depends(self, dim: Dim) -> bool:
        """Behind the first block, what has a symbol of the number of tokens in it follows from that number."""
        return not self._symbols.isdisjoint(symbols_of(dim))

    def _kind(self, value: ir.Value | None) -> _Kind:
        if value is None or value.is_initializer():
            return _Kind.FIXED
        if value not in self._kinds:
            self._kinds[value] = self._find_kind(value)
        return self._kinds[value]

    def _find_kind(self, value: ir.Value) -> _Kind:
        node = value.producer()
        if node is None or any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
            return _Kind.DATA
        if node.op_type != "Shape":
            return max((self._kind(v) for v in node.inputs), default=_Kind.FIXED)
        shape = None if node.inputs[0] is None else self._dims.get(node.inputs[0])
        if shape is None:
            return (
                _Kind.FIXED if node.inputs[0] is not None and node.inputs[0].is_initializer() else _Kind.DATA
            )
        return _Kind.LENGTH if any(self._depends(shape[axis]) for axis in _axes(node, shape)) else _Kind.FIXED

    # -- one node --------------------------------------------------------------------------------------------------

    def _feed(self, node: ir.Node) -> None:
        """Give a node behind a merge inputs of the current length."""
        stage = self._stages[-1]
        if self._behind and not self._treats_tokens_alone(node):
            self._unmerge_inputs(node)
            return
        if all(self._kind(value) != _Kind.DATA for value in node.outputs):
            # Computed again where it is needed; a length that is read from the merged stream is right as it is.
            source = self._at_stage(node.inputs[0], node) if node.op_type == "Shape" else None
            if source is not None and self._stage_of.get(source) is stage:
                node.replace_input_with(0, source)
                self._again[(node.outputs[0], stage.number)] = node.outputs[0]
            return
        for index, value in enumerate(node.inputs):
            node.replace_input_with(index, self._at_stage(value, node))
        for value in captured(node):
            brought = self._at_stage(value, node)
            assert brought is not None  # as only what is not there would be
            give_captured(node, value, brought)
        for value in node.outputs:
            shape = self._dims.get(value)
            if shape is not None:
                value.shape = ir.Shape([self._renamed(dim, stage) for dim in shape])
            self._stage_of[value] = stage

    def _unmerge_inputs(self, node: ir.Node) -> None:
        before = list(node.inputs)
        for index, value in enumerate(before):
            if value is not None:
                node.replace_input_with(index, self._unmerged(self._current.get(value, value)))
        if node.op_type != "Shape" and any(
            old is not None and new is not self._current.get(old, old)
            for old, new in zip(before, node.inputs, strict=True)
        ):
            reason = "behind the last block, and does not treat every token alone"
            node.metadata_props["tsmerge.barrier"] = reason
            self._report.barriers.append(BarrierReport(node.name or "", node.op_type, scope_of(node), reason))

    def _treats_tokens_alone(self, node: ir.Node) -> bool:
        return not captured(node) and works_token_by_token(
            node, lambda v: self._tokens_at(self._current.get(v, v)) == [1], self._keeps_last
        )

    def _tokens_at(self, value: ir.Value) -> list[int]:
        """The axes of merged tokens."""
        stage = self._stage_of.get(value)
        shape = dims(value) or []
        return (
            [] if stage is None else [a for a, d in enumerate(shape) if isinstance(d, str) and stage.dim in d]
        )

    def _renamed(self, dim: Dim, stage: _Stage) -> Dim:
        if not self._depends(dim):
            return dim
        if dim == self._tokens:
            return stage.dim
        # A symbol of its own: equal dims stay equal, and no other is.
        return self._names.setdefault((str(dim), stage.number), f"{stage.dim}_{len(self._names)}")

    def _at_stage(self, value: ir.Value | None, user: ir.Node) -> ir.Value | None:
        if value is None:
            return None
        if value in self._current:
            return self._current[value]
        stage = self._stages[-1]
        if self._stage_of.get(value) is stage:
            return value
        kind = self._kind(value)
        if kind == _Kind.LENGTH:
            return self._computed_again(value, stage)
        if kind == _Kind.DATA and any(self._depends(dim) for dim in self._dims.get(value) or ()):
            raise UnsupportedError(
                f"node {user.name!r} uses {value.name!r}, which has one entry per token and does not pass the merge; "
                "merging between blocks follows the residual stream only"
            )
        return value

    def _computed_again(self, value: ir.Value, stage: _Stage) -> ir.Value:
        """A value that follows from the length, from that of ``stage``."""
        key = (value, stage.number)
        if key in self._again:
            return self._again[key]
        if value in self._counts:
            scalar = dims(value) == []
            self._again[key] = (
                self._emit.op(
                    "Squeeze", [stage.length, self._emit.const([0])], {}, ir.DataType.INT64, [], "count"
                )
                if scalar
                else stage.length
            )
            return self._again[key]
        node = value.producer()
        if self._kind(value) != _Kind.LENGTH or node is None:
            return value
        if node.op_type == "Shape":
            self._again[key] = self._shape_again(node, stage)
            return self._again[key]
        inputs = [None if v is None else self._computed_again(v, stage) for v in node.inputs]
        outputs = [
            (
                out.dtype,
                None if (shape := self._dims.get(out)) is None else [self._renamed(d, stage) for d in shape],
            )
            for out in node.outputs
        ]
        twin = self._emit.node(
            node.op_type, inputs, {}, outputs, f"length_{node.op_type}", domain=node.domain
        )
        twin.attributes.update(node.attributes)
        for old, new in zip(node.outputs, twin.outputs, strict=True):
            self._again[(old, stage.number)] = new
        return self._again[key]

    def _shape_again(self, node: ir.Node, stage: _Stage) -> ir.Value:
        source = node.inputs[0]
        assert source is not None
        shape = self._dims[source] or []
        parts = []
        for axis in _axes(node, shape):
            dim = shape[axis]
            if dim == self._tokens:
                parts.append(stage.length)
            elif self._depends(dim):
                raise UnsupportedError(f"node {node.name!r} reads a length {dim} of {source.name!r}")
            else:
                parts.append(
                    self._emit.const([dim]) if isinstance(dim, int) else self._emit.length(source, axis)
                )
        if len(parts) == 1:
            return parts[0]
        return self._emit.op("Concat", parts, {"axis": 0}, ir.DataType.INT64, [len(parts)], "shape")

    # -- one merge -------------------------------------------------------------------------------------------------

    def _merge(self, point: Point, step: MergeStep) -> None:
        x = self._current.get(point.value, point.value)
        emit, int64, float32 = self._emit, ir.DataType.INT64, ir.DataType.FLOAT
        before = self._stages[-1].dim if self._stages else self._tokens
        if self._stages:
            size = self._stages[-1].size
        else:
            rows = emit.op("Shape", [x], {"start": 0, "end": 2}, int64, [2], "rows")
            size = emit.op(
                "Expand", [emit.const(1.0, "float32"), rows], {}, float32, [self._batch, before], "size"
            )
        symbol = f"tokens_after_layer_{point.layer}"
        rows_out = [self._batch, symbol]
        features = (dims(x) or [None])[-1]
        outputs = [
            (x.dtype, [*rows_out, features]),
            (float32, rows_out),
            (int64, rows_out),
            (int64, [self._batch, before]),
        ]
        hint = f"merge_layer_{point.layer}"
        # The Add's operands are at the current length: it was fed before.
        compared = x if self._metric == "x" or point.hidden is None else point.node.inputs[point.hidden]
        inputs = [x, compared, size, *emit.share(step)]
        node = emit.node(step.op_type, inputs, step.attributes, outputs, hint, domain=DOMAIN)
        node.metadata_props["tsmerge.layer"] = str(point.layer)
        if point.scope:
            node.metadata_props["tsmerge.scope"] = point.scope
        y, size_out, kept, target = node.outputs
        stage = _Stage(len(self._stages), symbol, emit.length(kept, 1), size_out, target)
        self._stages.append(stage)
        self._current[point.value] = y
        self._stage_of[y] = stage
        self._report.merges.append(
            MergeReport(
                point.layer, node.name or "", step.op_type, point.scope, before, symbol, dict(step.attributes)
            )
        )

    # -- outputs ---------------------------------------------------------------------------------------------------

    def _finish_outputs(self) -> None:
        for index, old in enumerate(list(self._graph.outputs)):
            value, name = self._current.get(old, old), old.name or ""
            if name not in self._stay:
                value = self._unmerged(value)
            if value is not old:
                old.name, value.name = f"{name}/before_merging", name
                self._graph.outputs[index] = value

    def _unmerged(self, value: ir.Value) -> ir.Value:
        """``value``, where it has one entry per merged token, with one per original token."""
        stage, shape = self._stage_of.get(value), dims(value) or []
        at = self._tokens_at(value)
        if stage is None or not at:
            return value
        if at != [1] or shape[1] != stage.dim:
            raise UnsupportedError(f"{value.name!r} has its tokens elsewhere than on axis 1: {shape}")
        for step in reversed(self._stages[: stage.number + 1]):
            before = self._stages[step.number - 1].dim if step.number else self._tokens
            out = [shape[0], before, *shape[2:]]
            value = self._emit.op("Unmerge", [value, step.target], {}, value.dtype, out, "unmerged", DOMAIN)
        return value


def _axes(node: ir.Node, shape: list[Dim]) -> range:
    """The axes whose lengths a Shape node gives."""
    rank = len(shape)
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", rank)
    return range(rank)[slice(start, end)]
