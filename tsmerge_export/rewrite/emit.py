"""Adds nodes and constants to a graph: each with a name of its own, a dtype and dims, so that nothing is inferred."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from tsmerge_export.merge.plan import MergeStep
from tsmerge_export.rewrite.dims import Dim, dims
from tsmerge_export.settings.domain import DOMAIN
from tsmerge_export.settings.run_time import INPUT

PREFIX = "tsmerge/"


class Emitter:
    """Inserts nodes before a moving position in the main graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._before: ir.Node | None = None
        self._count = 0
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._values: dict[tuple[Any, ...], ir.Value] = {}
        self._ratio: ir.Value | None = None

    def move_before(self, node: ir.Node | None) -> None:
        """New nodes go before ``node``; None is the end of the graph."""
        self._before = node

    def _name(self, hint: str) -> str:
        self._count += 1
        return f"{PREFIX}{hint}_{self._count}"

    def insert(self, node: ir.Node) -> None:
        """Insert a finished node at the position."""
        if self._before is None:
            self._graph.append(node)
        else:
            self._graph.insert_before(self._before, node)

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any],
        outputs: Sequence[tuple[ir.DataType | None, Sequence[Dim] | None]],
        hint: str,
        domain: str = "",
    ) -> ir.Node:
        """Insert a node whose outputs have the given dtypes and dims."""
        values = [
            ir.Value(
                name=self._name(hint),
                type=None if dtype is None else ir.TensorType(dtype),
                shape=None if shape is None else ir.Shape(list(shape)),
            )
            for dtype, shape in outputs
        ]
        node = ir.node(
            op_type, list(inputs), dict(attributes), domain=domain, outputs=values, name=self._name(hint)
        )
        self.insert(node)
        return node

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any],
        dtype: ir.DataType | None,
        shape: Sequence[Dim] | None,
        hint: str,
        domain: str = "",
    ) -> ir.Value:
        """The output of a pure node; the same node is not inserted twice."""
        key = (
            op_type,
            domain,
            tuple(map(id, inputs)),
            tuple(sorted((k, str(v)) for k, v in attributes.items())),
        )
        if key not in self._values:
            self._values[key] = self.node(
                op_type, inputs, attributes, [(dtype, shape)], hint, domain
            ).outputs[0]
        return self._values[key]

    def const(self, value: Any, dtype: Any = np.int64) -> ir.Value:
        """An initializer; equal ones are shared."""
        array = np.asarray(value, dtype)
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            constant = ir.Value(
                name=self._name("const"),
                type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
                shape=ir.Shape(array.shape),
                const_value=ir.tensor(array),
            )
            self._graph.register_initializer(constant)
            self._constants[key] = constant
        return self._constants[key]

    def transpose(self, value: ir.Value, perm: Sequence[int]) -> ir.Value:
        """``value`` with its axes permuted; itself where nothing moves.

        A transpose of a transpose is one, or none: exporters put heads first, which alignment undoes.
        """
        if list(perm) == sorted(perm):
            return value
        producer = value.producer()
        if producer is not None and producer.op_type == "Transpose" and "perm" in producer.attributes:
            inner, source = producer.attributes["perm"].as_ints(), producer.inputs[0]
            if source is not None and dims(source) is not None:
                return self.transpose(source, [inner[axis] for axis in perm])
        found = dims(value)
        shape = None if found is None else [found[axis] for axis in perm]
        return self.op("Transpose", [value], {"perm": list(perm)}, value.dtype, shape, "transpose")

    def share(self, step: MergeStep) -> list[ir.Value]:
        """What a merge node takes besides tokens, metric and sizes: the fraction, where it is chosen at run time.

        The first one adds the input to the graph.
        """
        if not step.at_run_time:
            return []
        if self._ratio is None:
            self._ratio = ir.Value(name=INPUT, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([]))
            self._graph.inputs.append(self._ratio)
        return [self.op("ExactRatio", [self._ratio], {}, ir.DataType.INT64, [2], "share", DOMAIN)]

    def length(self, value: ir.Value, axis: int) -> ir.Value:
        """``[1]`` int64: the length of one axis at run time."""
        return self.op("Shape", [value], {"start": axis, "end": axis + 1}, ir.DataType.INT64, [1], "length")
