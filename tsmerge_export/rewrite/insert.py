"""Inserts merging into a graph: one walk in topological order that carries the state of every token axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from tsmerge_export.errors import UnsupportedError
from tsmerge_export.merge.plan import MergeStep
from tsmerge_export.merge.run import HIDDEN_NEEDS_BLOCKS
from tsmerge_export.ops.schema import DOMAIN, VERSION
from tsmerge_export.rewrite.align import Aligner
from tsmerge_export.rewrite.apart import Apart
from tsmerge_export.rewrite.branches import pass_branches
from tsmerge_export.rewrite.dims import Dim, dims
from tsmerge_export.rewrite.distances import fold_distances
from tsmerge_export.rewrite.emit import Emitter
from tsmerge_export.rewrite.points import Point, ancestors, scope_of
from tsmerge_export.rewrite.rules import FOR_FOLDED, RULES, Barrier, Context, Ends, Outcome
from tsmerge_export.rewrite.stages import FIRST, Rows, Stage, Tags, deepest
from tsmerge_export.rewrite.subgraphs import captured, give_captured
from tsmerge_export.settings.config import Metric, Positions


@dataclass(frozen=True)
class BarrierReport:
    """A node that could not work on merged tokens: its inputs were unmerged, which takes the speed-up away there."""

    node: str
    op_type: str
    scope: str
    reason: str


@dataclass(frozen=True)
class MergeReport:
    """A merge that was inserted. ``before`` and ``after`` are the symbols of the token axis."""

    layer: int
    node: str
    op_type: str
    scope: str
    before: str
    after: str
    attributes: dict[str, int | float]


@dataclass
class RewriteReport:
    """What the rewriter did to one graph. ``ratio``: of one that is chosen at run time, where nobody chooses."""

    merges: list[MergeReport] = field(default_factory=list)
    barriers: list[BarrierReport] = field(default_factory=list)
    ratio: Fraction | None = None


def insert_merges(
    model: ir.Model,
    points: list[Point],
    plan: Mapping[int, MergeStep],
    *,
    token_mask: str | None = None,
    token_log_size: str | None = None,
    apart: str | None = None,
    stay: Mapping[str, int] | None = None,
    positions: Positions = "gather",
    metric: Metric = "x",
    prop_attn: bool = False,
) -> RewriteReport:
    """Merge at the planned points and let everything with a token axis follow. Edits ``model`` in place.

    Args:
        model: plain ONNX, every value with dtype and dims.
        points: all merge points of the graph. plan: step by layer.
        token_mask: name of a graph output ``[B, N]``, 0 where a token is padding.
        token_log_size: name of a graph output ``[B, N]`` float32 that stays merged; under ``prop_attn`` it becomes the
            logarithm of the sizes of the tokens that stay.
        apart: name of a graph output with one entry along axis 0 for each token at the end that no merge is given, see
            :mod:`tsmerge_export.rewrite.apart`.
        stay: outputs that may stay merged, with their token axis. Every other output that had one entry per
            original token is unmerged.
        positions: ``gather`` or ``compact`` for operands that encode positions.
        metric: ``x``, the tokens themselves, or ``key``, the keys of the attention before, averaged over the heads.
        prop_attn: add the logarithm of their sizes to the attention scores of merged tokens.

    Raises:
        UnsupportedError: a point or output cannot be handled.
    """
    return _Walk(
        model, points, plan, token_mask, token_log_size, apart, dict(stay or {}), positions, metric, prop_attn
    ).run()


class _Walk:
    def __init__(
        self,
        model: ir.Model,
        points: list[Point],
        plan: Mapping[int, MergeStep],
        token_mask: str | None,
        token_log_size: str | None,
        apart: str | None,
        stay: dict[str, int],
        positions: Positions,
        metric: Metric,
        prop_attn: bool,
    ) -> None:
        self._model, self._graph = model, model.graph
        self._steps = {point.node: (point, plan[point.layer]) for point in points if point.layer in plan}
        self._points = points
        self._kinds = {tuple(point.rows) for point in points}
        self._stay, self._metric = stay, metric
        self._log_size = token_log_size if prop_attn else None
        self._emit = Emitter(self._graph)
        tables = fold_distances(self._graph, self._emit)
        tokens_apart = None if apart is None else self._output(apart, "the tokens apart")
        self._apart = None if tokens_apart is None else Apart(self._emit, tokens_apart)
        aligner = Aligner(self._emit, compact=positions == "compact", tables=tables)
        upstream = frozenset(ancestors([point.value for point in points]))
        self._context = Context(self._emit, aligner, prop_attn, self._ends(tokens_apart), upstream)
        self._current: dict[ir.Value, ir.Value] = {}
        self._roots: dict[str | int, Stage] = {}
        self._report = RewriteReport()
        self._mask_name = token_mask
        self._mask = None if token_mask is None else self._output(token_mask, "the token mask")

    def _output(self, name: str, what: str) -> ir.Value:
        found = [value for value in self._graph.outputs if value.name == name]
        if not found:
            raise UnsupportedError(f"the graph has no output {name!r} to take {what} from")
        return found[0]

    def _ends(self, apart: ir.Value | None) -> Ends:
        """Tokens at either end that take part in no merge."""
        attributes = [step.attributes for _, step in self._steps.values()]
        first, last = (
            min((int(each.get(name, 0)) for each in attributes), default=0)
            for name in ("protect_first", "protect_last")
        )
        return Ends(first, last, frozenset() if apart is None else frozenset(ancestors([apart])))

    def run(self) -> RewriteReport:
        nodes = list(self._graph)
        for index, node in enumerate(nodes):
            self._emit.move_before(node)
            self._visit(node)
            if node in self._steps:
                self._emit.move_before(nodes[index + 1] if index + 1 < len(nodes) else None)
                self._merge(*self._steps[node])
        self._emit.move_before(None)
        self._finish_outputs()
        if self._report.merges:
            self._model.opset_imports[DOMAIN] = VERSION
        self._graph.sort()  # the token mask may be computed late in the file
        RemoveUnusedNodesPass()(self._model)
        return self._report

    # -- one node ------------------------------------------------------------------------------------------------

    def _visit(self, node: ir.Node) -> None:
        for index, value in enumerate(node.inputs):
            if value is not None and value in self._current:
                node.replace_input_with(index, self._current[value])
        passed = pass_branches(node, self._context, self._current)
        if passed is not None:
            self._apply(node, passed)
            return
        if self._captures_merged(node):
            self._unmerge_inputs(node, "its subgraph reads merged tokens")
            return
        if not any(self._context.tags(value) for value in node.inputs):
            return
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        try:
            if rule is None:
                raise Barrier(f"no rule for {node.domain + '::' if node.domain else ''}{node.op_type}")
            if rule not in FOR_FOLDED and any(self._context.folded(value) for value in node.inputs):
                raise Barrier("tokens and batch share an axis")
            outcome = rule(node, self._context)
            if any(
                tags and dims(value) is None for value, tags in zip(node.outputs, outcome.tags, strict=True)
            ):
                raise Barrier("the dims of its output are unknown")
        except Barrier as barrier:
            self._unmerge_inputs(node, str(barrier))
            return
        self._apply(node, outcome)

    def _captures_merged(self, node: ir.Node) -> bool:
        """Bring what the node's subgraphs read of the graph around them up to date, unmerged; whether any was."""
        merged = False
        for value in captured(node):
            now = self._current.get(value, value)
            merged |= bool(self._context.tags(now))
            give_captured(node, value, self._unmerged(now))
        return merged

    def _apply(self, node: ir.Node, outcome: Outcome) -> None:
        for index, value in outcome.inputs.items():
            node.replace_input_with(index, value)
        for index, value in outcome.replace.items():
            self._current[node.outputs[index]] = value
        for value, tags in zip(node.outputs, outcome.tags, strict=True):
            if tags:
                shape, rows = dims(value) or [], outcome.rows
                new = [tags[a].dim if a in tags else dim for a, dim in enumerate(shape)]
                if rows.axis in tags:
                    new[rows.axis] = f"{tags[rows.axis].dim}_of_{shape[rows.axis]}"  # type: ignore[index]
                value.shape = ir.Shape(new)
                self._context.set(value, tags, rows, shape)

    def _unmerge_inputs(self, node: ir.Node, reason: str) -> None:
        for index, value in enumerate(node.inputs):
            if value is not None and self._context.tags(value):
                node.replace_input_with(index, self._unmerged(value))
        node.metadata_props["tsmerge.barrier"] = reason
        self._report.barriers.append(BarrierReport(node.name or "", node.op_type, scope_of(node), reason))

    def _unmerged(self, value: ir.Value) -> ir.Value:
        if not self._context.tags(value):
            return value
        rows, before = self._context.rows(value), self._context.base_dims(value)
        whole = None if rows.axis is None else before[rows.axis]
        for axis, stage in sorted(self._context.tags(value).items()):
            value = self._context.aligner.unmerge(value, axis, stage, rows, whole)
        return value

    # -- one merge -----------------------------------------------------------------------------------------------

    def _root(self, x: ir.Value) -> Stage:
        shape = dims(x)
        if shape is None or shape[1] is None:
            raise UnsupportedError(f"the number of tokens of {x.name!r} is unknown")
        batch, tokens = shape[0], shape[1]
        if tokens not in self._roots:
            emit, float32 = self._emit, ir.DataType.FLOAT
            if self._mask is not None and self._masks([batch, tokens]):
                real = emit.op(
                    "Cast", [self._mask], {"to": ir.DataType.BOOL}, ir.DataType.BOOL, [batch, tokens], "real"
                )
                size = emit.op("Cast", [real], {"to": float32}, float32, [batch, tokens], "size")
            else:
                rows = emit.op("Shape", [x], {"start": 0, "end": 2}, ir.DataType.INT64, [2], "rows")
                size = emit.op(
                    "Expand", [emit.const(1.0, "float32"), rows], {}, float32, [batch, tokens], "size"
                )
            self._roots[tokens] = Stage(tokens, batch, emit.length(x, 1), size)
        return self._roots[tokens]

    def _masks(self, tokens: list[Dim]) -> bool:
        """Whether the token mask is about these tokens: a decoder has others than its encoder."""
        return len(self._kinds) == 1 or self._mask is None or dims(self._mask) == tokens

    def _merge(self, point: Point, step: MergeStep) -> None:
        x = self._current.get(point.value, point.value)
        tags, axis, plain = self._context.tags(x), point.axis, dims(x)
        if set(tags) - {axis} or (tags and self._context.rows(x) != Rows(1 - axis)):
            raise UnsupportedError(self._two_ways(point, tags))
        x = x if axis else self._emit.transpose(x, [1, 0, 2])
        before = tags.get(axis) or self._root(x)
        shape = dims(x) or []
        symbol, int64 = f"tokens_after_layer_{point.layer}", ir.DataType.INT64
        given, compared, size = x, self._compared(point, x, before), before.size
        if self._apart is not None:
            compared = self._apart.front(compared, before)
            given, size = (self._apart.front(value, before) for value in (x, size))
        alone = symbol if self._apart is None else f"{symbol}_alone"
        rows = [before.batch, alone]
        outputs = [
            (x.dtype, [*rows, shape[2]]),
            (ir.DataType.FLOAT, rows),
            (int64, rows),
            (int64, [before.batch, (dims(given) or [None, before.dim])[1]]),
        ]
        hint = f"merge_layer_{point.layer}"
        node = self._emit.node(
            step.op_type,
            [given, compared, size, *self._emit.share(step)],
            step.attributes,
            outputs,
            hint,
            domain=DOMAIN,
        )
        node.metadata_props["tsmerge.layer"] = str(point.layer)
        if point.scope:
            node.metadata_props["tsmerge.scope"] = point.scope
        made = list(node.outputs)
        y, size, kept, target = made if self._apart is None else self._apart.joined(made, x, before, symbol)
        length, pads = self._emit.length(kept, 1), before.pads or step.pads
        stage = Stage(symbol, before.batch, length, size, before, kept, target, pads)
        y = y if axis else self._emit.transpose(y, [1, 0, 2])
        self._current[point.value] = y
        whole = [before.root.dim if own == axis else dim for own, dim in enumerate(plain or [])]
        self._context.set(y, {axis: stage}, Rows(1 - axis), whole)
        self._report.merges.append(
            MergeReport(
                point.layer,
                node.name or "",
                step.op_type,
                point.scope,
                str(before.dim),
                symbol,
                dict(step.attributes),
            )
        )

    def _two_ways(self, point: Point, tags: Tags) -> str:
        """Why a point cannot merge: what it would merge is merged already along another axis."""
        before = next((stage.root.dim for axis, stage in tags.items() if axis != point.axis), None)
        node = f"node {point.node.name!r}"
        if before is None:
            return (
                f"{node}: its tokens {point.rows[1]} are on axis {point.axis}, and their batch is elsewhere"
            )
        layers = ",".join(str(p.layer) for p in self._points if p.rows[1] == before)
        return (
            f"{node}: merges along {point.rows[1]!r}, where its values are merged along {before!r} already (attention "
            f"over time, then over series, for example); merge along {before!r} alone with --layers {layers}"
        )

    def _compared(self, point: Point, x: ir.Value, before: Stage) -> ir.Value:
        """The metric ``[B, N, Dm]`` at the stage of ``x``."""
        if self._metric == "x":
            return x
        if self._metric == "hidden":
            raise UnsupportedError(HIDDEN_NEEDS_BLOCKS)
        keys = None if point.keys is None else self._current.get(point.keys, point.keys)
        shape = None if keys is None else dims(keys)
        if keys is None or shape is None or len(shape) != 4:
            raise UnsupportedError(
                f"--metric key: found no keys [batch, heads, features, tokens] at node {point.node.name!r}; "
                "use --metric x"
            )
        tags = self._context.tags(keys)
        if set(tags) - {3} or self._context.rows(keys) != FIRST or (tags.get(3) or before.root) is not before:
            raise UnsupportedError(f"--metric key: the keys at node {point.node.name!r} are at another stage")
        axes, out = self._emit.const([1]), [shape[0], shape[2], shape[3]]
        mean = self._emit.op("ReduceMean", [keys, axes], {"keepdims": 0}, keys.dtype, out, "keys")
        return self._emit.transpose(mean, [0, 2, 1])

    # -- outputs -------------------------------------------------------------------------------------------------

    def _without_padding(self, mask: ir.Value, last: Stage) -> ir.Value:
        """The token mask ``[B, M]`` with 0 at the padding that rows end in."""
        real = self._emit.op(
            "Not", [last.padding(self._emit, 2)], {}, ir.DataType.BOOL, [last.batch, last.dim], "real"
        )
        own = self._emit.op("Cast", [real], {"to": mask.dtype}, mask.dtype, [last.batch, last.dim], "real")
        return self._emit.op("Mul", [mask, own], {}, mask.dtype, [last.batch, last.dim], "mask")

    def _finish_outputs(self) -> None:
        finals = [self._current.get(value, value) for value in self._graph.outputs]
        names = [value.name or "" for value in self._graph.outputs]
        found = [
            self._context.tags(value)[self._stay[name]]
            for value, name in zip(finals, names, strict=True)
            if name in self._stay and self._stay[name] in self._context.tags(value)
        ]
        last = deepest(found) if found else None
        if found and last is None:
            raise UnsupportedError("the outputs that stay merged were merged apart")
        for index, (old, value, name) in enumerate(
            zip(list(self._graph.outputs), finals, names, strict=True)
        ):
            tags = self._context.tags(value)
            if name == self._log_size and last is not None:
                value = last.log_size(self._emit, 2, value.dtype)
            elif name in self._stay and last is not None:
                axis = self._stay[name]
                source = tags.get(axis) or last.root
                if source is not last:
                    if self._context.rows(value) != FIRST:
                        raise UnsupportedError(f"output {name!r} cannot stay merged: its batch is not first")
                    value = self._context.aligner.align(value, {axis: (source, last)}, len(dims(value) or ()))
                if name == self._mask_name and last.pads:
                    value = self._without_padding(value, last)
            elif tags:
                value = self._unmerged(value)
            if value is not old:
                old.name, value.name = f"{name}/before_merging", name
                self._graph.outputs[index] = value
