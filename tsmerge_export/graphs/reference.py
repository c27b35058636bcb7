"""The reference for models without an eager module: merging simulated in the *original* graph, at full length.

The original graph runs node by node and keeps all N tokens. After a merge point every token holds a copy of the token
it went into; of these copies one, the *kept* one, counts, the others are left out of every later sum over tokens:
their scores are -inf, their addends 0. Masks, biases and rotations of a kept token are those of its own place, as with
``--positions gather``. What mixes tokens in any other way sees the copies, which is what unmerging gives it.

Nothing here knows how the rewriter aligns operands, and no code is shared with it but two facts of the plan: at which
values tokens merge, and at which nodes they are unmerged (barriers). Which axis of a value is which is followed by
rules of its own, on the shapes at run time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from tsmerge_export.errors import UnsupportedError
from tsmerge_export.families.base import Arrays
from tsmerge_export.graphs.axes import Batch, CannotFollow, follow, reduced_axes, summed_axes
from tsmerge_export.graphs.nodes import NodeRunner, names_used
from tsmerge_export.merge.plan import MergeStep
from tsmerge_export.merge.run import StepRecord
from tsmerge_export.onnx_model.weights import array_of
from tsmerge_export.verify import decisions
from tsmerge_export.verify.decisions import Decision

Array = NDArray[Any]


@dataclass(frozen=True)
class Where:
    """A merge of the plan: at which value of the original graph, and whose keys are compared (None: the tokens).

    ``axis``: that of the tokens, 1, or 0 with the batch behind it. ``masked``: its tokens are those that the token mask
    is about; a decoder has others than its encoder.
    """

    value: str
    step: MergeStep
    keys: str | None = None
    axis: int = 1
    masked: bool = True


@dataclass(frozen=True, eq=False)
class Copies:
    """A token axis after some merges, at full length N.

    Attributes:
        kept: ``[B, M]`` int64, the places that count. target: ``[B, N]`` int64, index in ``kept`` of each token.
        size: ``[B, M]`` float32. depth: number of merges.
    """

    kept: Array
    target: Array
    size: Array
    depth: int

    def within(self, other: Copies) -> bool:
        """Whether every place that counts here counts there too, and the others went the same way."""
        if self.target.shape != other.target.shape:
            return False
        kept = all(np.isin(own, theirs).all() for own, theirs in zip(self.kept, other.kept, strict=True))
        # What was one token stays one token.
        return kept and bool((np.take_along_axis(self.place, other.place, 1) == self.place).all())

    @property
    def place(self) -> Array:
        """``[B, N]``: the place whose value each token has."""
        return np.take_along_axis(self.kept, self.target, 1)

    def spread(self, value: Array, axis: int, at: int | None = 0, each: int = 1) -> Array:
        """``value`` with the copies along ``axis`` made equal to the one that counts; ``at``: axis of the batch."""
        if at is None or at != 0 or each != 1:
            first, axis = _batch_first(value, len(self.kept), axis, at, each)
            spread = self.spread(first, axis)
            return (spread if at is None else np.moveaxis(spread, 0, at)).reshape(value.shape)
        place = self.place
        if value.shape[0] != len(place) or value.shape[axis] != place.shape[1]:
            raise CannotFollow(
                f"a value {list(value.shape)} with merged axis {axis} has another batch or length"
            )
        return np.stack([np.take(row, index, axis - 1) for row, index in zip(value, place, strict=True)])

    def counts(self, rank: int, axis: int, at: int | None = 0, each: int = 1) -> Array:
        """Booleans that broadcast to ``rank`` axes: which places along ``axis`` count; ``at``: axis of the batch."""
        found: Array = np.zeros(self.target.shape, bool)
        np.put_along_axis(found, self.kept, True, 1)
        return _placed(found, rank, axis, at, each)

    def log_size(self, rank: int, axis: int, at: int | None = 0, each: int = 1) -> Array:
        """As :meth:`counts`, the logarithm of the sizes (0 for padding)."""
        found: Array = np.zeros(self.target.shape, np.float32)
        np.put_along_axis(found, self.kept, np.log(np.maximum(self.size, 1)), 1)
        return _placed(found, rank, axis, at, each)


class _Values(dict[str, Array]):
    """Values of a run by name; what is not among them is a constant, which is only asked for."""

    def __init__(self, constants: Mapping[str, Array], values: Mapping[str, Array]) -> None:
        super().__init__(values)
        self.constants = constants

    def __missing__(self, name: str) -> Array:
        return self.constants[name]


class Reference:
    """Evaluates the original graph with merging simulated.

    Args:
        model: the original; every node has a name. merges: the plan. barriers: names of the nodes before which tokens
            are unmerged. token_mask: input ``[B, N]`` that is 0 where a token is padding. prop_attn: proportional
            attention.

    Attributes:
        model, threads: as given. constants: initializers by name.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        merges: Sequence[Where],
        barriers: Sequence[str],
        *,
        token_mask: str | None = None,
        prop_attn: bool = False,
        threads: int | None = None,
    ) -> None:
        self.model, self.threads = model, threads
        self._graph = model.graph
        self._merges = {where.value: where for where in merges}
        self._barriers = set(barriers)
        self._mask, self._prop_attn = token_mask, prop_attn
        self.constants: Mapping[str, Array] = {
            tensor.name: array_of(tensor) for tensor in model.graph.initializer
        }
        self._runner = NodeRunner(model, self.constants, threads)
        keys = {where.keys for where in merges if where.keys}
        self._last_use = self._last_uses(keys)

    def _last_uses(self, keys: set[str]) -> dict[str, int]:
        last: dict[str, int] = {}
        for index, node in enumerate(self._graph.node):
            for name in names_used(node):
                last[name] = index
        for name in (*keys, *(value.name for value in self._graph.output)):
            last[name] = len(self._graph.node)
        return last

    def otherwise(self, constants: Mapping[str, Array], runner: NodeRunner) -> Reference:
        """The same with other weights, and with what runs nodes in another way."""
        other = copy(self)
        other.constants, other._runner = constants, runner
        return other

    def run(self, inputs: Arrays) -> tuple[Arrays, list[Decision]]:
        """Outputs by name, and the decision of every merge in order of execution.

        Raises:
            UnsupportedError: merged tokens reach an operator that the reference has no rule for.
        """
        outputs, steps = self.traced(inputs)
        return outputs, decisions.from_steps(steps)

    def traced(
        self, inputs: Arrays, follow: Sequence[StepRecord] | None = None
    ) -> tuple[Arrays, list[StepRecord]]:
        """Outputs by name, and a record of every merge in order of execution.

        Args:
            follow: records of another run at the same sizes: every merge decides by what that one compared.

        Raises:
            UnsupportedError: as for :meth:`run`.
        """
        values = _Values(self.constants, inputs)
        state: dict[str, dict[int, Any]] = {}
        steps: list[StepRecord] = []
        for index, node in enumerate(self._graph.node):
            used = names_used(node)
            try:
                outputs, tags = self._run_node(node, used, values, state)
            except CannotFollow as error:
                raise UnsupportedError(
                    f"node {node.name!r} ({node.op_type}): the reference that proves the result cannot follow merged "
                    f"tokens here ({error})"
                ) from error
            for name, value, own in zip(node.output, outputs, tags, strict=True):
                if not name or value is None:
                    continue
                values[name] = value
                if own:
                    state[name] = own
                if name in self._merges:
                    told = None if follow is None else follow[len(steps)].compared
                    steps.append(self._merge(self._merges[name], values, state, inputs, told))
            for name in used:
                if self._last_use.get(name) == index:
                    values.pop(name, None)
        found = {value.name: values[value.name] for value in self._graph.output}
        return {name: _spread(value, state.get(name, {})) for name, value in found.items()}, steps

    def _run_node(
        self,
        node: onnx.NodeProto,
        used: Sequence[str],
        values: _Values,
        state: Mapping[str, dict[int, Any]],
    ) -> tuple[list[Array | None], list[dict[int, Any]]]:
        tags = [state.get(name, {}) for name in node.input]
        nothing: list[dict[int, Any]] = [{} for _ in node.output]
        if not any(state.get(name) for name in used):
            return self._runner.run(node, values), nothing
        if node.name in self._barriers:
            spread = {name: _spread(values[name], state.get(name, {})) for name in used}
            return self._runner.run(node, spread), nothing
        if node.op_type == "If":
            return self._run_branch(node, values, state)
        operands = {name: values[name] for name in used}
        shapes = [tuple(operands[name].shape) if name else () for name in node.input]
        ints = {name: value for name, value in operands.items() if value.dtype.kind == "i"}
        for slot, axis in summed_axes(node, shapes):
            copies = tags[slot].get(axis)
            if isinstance(copies, Copies):
                name = node.input[slot]
                operands[name] = self._without_copies(node, operands[name], axis, copies, tags[slot])
        if any(axis in tags[0] for axis in reduced_axes(node, ints, len(shapes[0]))):
            operands[node.input[0]] = _spread(values[node.input[0]], tags[0])
        outputs = self._runner.run(node, operands)
        after = follow(node, shapes, [() if o is None else o.shape for o in outputs], tags, ints)
        if node.op_type == "MatMul":  # a query that does not count may see no key at all, and be NaN
            outputs = [None if o is None else _spread(o, own) for o, own in zip(outputs, after, strict=True)]
        return outputs, after

    def _run_branch(
        self, node: onnx.NodeProto, values: _Values, state: Mapping[str, dict[int, Any]]
    ) -> tuple[list[Array | None], list[dict[int, Any]]]:
        """The branch that the condition asks for, node by node."""
        side = "then_branch" if values[node.input[0]].reshape(-1)[0] else "else_branch"
        graph = next(attribute.g for attribute in node.attribute if attribute.name == side)
        own = _Values(values.constants, values)
        own |= {tensor.name: self._runner.value_of(tensor) for tensor in graph.initializer}
        tags = dict(state)
        for index, inner in enumerate(graph.node):
            named = onnx.NodeProto()
            named.CopyFrom(inner)
            named.name = f"{node.name}/{side}/{index}"
            outputs, found = self._run_node(named, names_used(named), own, tags)
            own |= {
                name: value for name, value in zip(named.output, outputs, strict=True) if value is not None
            }
            tags |= dict(zip(named.output, found, strict=True))
        names = [value.name for value in graph.output]
        return [own[name] for name in names], [tags.get(name, {}) for name in names]

    def _without_copies(
        self, node: onnx.NodeProto, value: Array, axis: int, copies: Copies, tags: Mapping[int, Any]
    ) -> Array:
        at, each = _batch_of(tags)
        counts = copies.counts(value.ndim, axis, at, each)
        rows = 1 if at is None else value.shape[at]
        if rows != len(copies.kept) * each or value.shape[axis] != copies.target.shape[1]:
            raise CannotFollow(f"an operand {list(value.shape)} has another batch or length")
        if node.op_type != "Softmax":
            return np.where(counts, value, np.zeros((), value.dtype))
        if self._prop_attn:
            value = value + copies.log_size(value.ndim, axis, at, each).astype(value.dtype)
        return np.where(counts, value, np.asarray(-np.inf, value.dtype))

    def _merge(
        self,
        where: Where,
        values: _Values,
        state: dict[str, dict[int, Any]],
        inputs: Arrays,
        told: torch.Tensor | None,
    ) -> StepRecord:
        """``told``: what another run compared, which decides here too."""
        swapped, dense = where.axis == 0, values[where.value]
        dense = np.ascontiguousarray(np.swapaxes(dense, 0, 1)) if swapped else dense
        before = state.get(where.value, {}).get(where.axis)
        before = before or self._all(dense, inputs if where.masked else {})
        x = _gather(dense, before.kept, 1)
        metric = None
        if where.keys is not None:
            keys = _gather(np.moveaxis(values[where.keys], 3, 1), before.kept, 1)  # [B, M, H, d]
            metric = torch.from_numpy(np.ascontiguousarray(keys)).mean(2)
        size = torch.from_numpy(before.size)
        with torch.no_grad():
            tokens = torch.from_numpy(np.ascontiguousarray(x))
            metric = metric if told is None else told
            single = tokens.dtype == torch.float32  # in float64 nothing asks for the scores
            evidence = where.step.evidence(tokens, size, metric) if single else None
            made = where.step(tokens, size, metric)
        kept, target = made.kept.numpy(), made.target.numpy()
        after = Copies(
            np.take_along_axis(before.kept, kept, 1),
            np.take_along_axis(target, before.target, 1),
            made.size.numpy(),
            before.depth + 1,
        )
        merged = _gather(made.y.numpy(), after.target, 1)
        values[where.value] = np.ascontiguousarray(np.swapaxes(merged, 0, 1)) if swapped else merged
        state[where.value] = {where.axis: after, 1 - where.axis: Batch(len(dense))}
        removed = x.shape[1] - made.y.shape[1]
        compared = tokens if metric is None else metric
        return StepRecord(where.step.layer, removed, made.kept, made.target, made.size, evidence, compared)

    def _all(self, dense: Array, inputs: Arrays) -> Copies:
        """Every token as it is."""
        batch, tokens = dense.shape[:2]
        own = np.broadcast_to(np.arange(tokens), (batch, tokens)).copy()
        size = np.ones((batch, tokens), np.float32)
        if self._mask in inputs and inputs[self._mask].shape == (batch, tokens):
            size = (inputs[self._mask] != 0).astype(np.float32)
        return Copies(own, own, size, 0)


def _gather(value: Array, index: Array, axis: int) -> Array:
    return np.stack([np.take(row, own, axis - 1) for row, own in zip(value, index, strict=True)])


def _batch_of(tags: Mapping[int, Any]) -> tuple[int | None, int]:
    """Axis of the batch and its entries per row; no axis where a batch of one has none."""
    return next(((axis, own.each) for axis, own in tags.items() if isinstance(own, Batch)), (None, 1))


def _batch_first(value: Array, rows: int, axis: int, at: int | None, each: int) -> tuple[Array, int]:
    """``value`` with the batch as its first axis, what is folded behind it apart, and where ``axis`` is then."""
    if at is None:
        if rows != 1:
            raise CannotFollow(f"a value {list(value.shape)} has lost its batch")
        return value[None], axis + 1
    if value.shape[at] != rows * each:
        raise CannotFollow(f"a value {list(value.shape)} has another batch")
    apart = value.reshape(*value.shape[:at], rows, each, *value.shape[at + 1 :])
    return np.moveaxis(apart, at, 0), axis + 1


def _placed(found: Array, rank: int, axis: int, at: int | None, each: int) -> Array:
    """``[B, N]`` with N at ``axis`` and B, every row ``each`` times, at ``at`` of ``rank`` axes."""
    if at is None:
        return found.reshape([found.shape[1] if a == axis else 1 for a in range(rank)])
    found = np.repeat(found, each, 0)
    found = found if at < axis else found.T
    return found.reshape([found.shape[int(a > min(at, axis))] if a in (at, axis) else 1 for a in range(rank)])


def _spread(value: Array, tags: Mapping[int, Any]) -> Array:
    at, each = _batch_of(tags)
    for axis, own in tags.items():
        if isinstance(own, Copies):
            value = own.spread(value, axis, at, each)
        elif own.copies is not None:
            rows, tokens = own.rows, value.shape[axis] // own.rows
            sizes = [tokens, rows] if own.tokens_first else [rows, tokens]
            apart = value.reshape(*value.shape[:axis], *sizes, *value.shape[axis + 1 :])
            whole = own.copies.spread(apart, axis + (not own.tokens_first), axis + own.tokens_first)
            value = whole.reshape(value.shape)
    return value
