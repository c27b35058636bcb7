"""Runs single nodes of a graph in float64 instead of float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx

from tsmerge_export.graphs.nodes import Array, NodeRunner, names_used
from tsmerge_export.onnx_model.weights import array_of

# ONNX Runtime has kernels for float32 alone; onnx's evaluator takes them without loops over single numbers.
_EVALUATED = {
    "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Celu", "Conv", "Cosh", "Elu", "Erf", "Gelu", "HardSigmoid",
    "HardSwish", "InstanceNormalization", "LeakyRelu", "Mean", "Mish", "Mod", "PRelu", "Selu", "Sinh", "Softplus",
    "Softsign", "Tan", "ThresholdedRelu",
}  # fmt: skip
# Attributes that say of what type an output is: a number, or the value of a tensor.
_TYPED = {"Cast": "to", "ConstantOfShape": "value", "EyeLike": "dtype"}

_Way = Callable[[onnx.NodeProto, Mapping[str, Array]], list[Array | None]]


def widened(value: Array) -> Array:
    """Float32 as float64; what is of another type as it is."""
    return value.astype(np.float64) if value.dtype == np.float32 else value


class WideRunner(NodeRunner):
    """As :class:`~tsmerge_export.graphs.nodes.NodeRunner`, with float64 wherever the graph says float32.

    What neither ONNX Runtime nor onnx's evaluator computes in float64, and what has a body of its own, runs in float32
    between two casts.

    Args:
        model: where the nodes are from. constants: its initializers by name, as they are there. single: runs nodes in
            float32.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        constants: Mapping[str, Array],
        single: NodeRunner,
        threads: int | None = None,
    ) -> None:
        super().__init__(model, constants, threads, moving=True)
        self._single = single
        self._ways: dict[str, _Way] = {}
        self._evaluators: dict[str, tuple[Any, list[str]]] = {}

    def value_of(self, tensor: onnx.TensorProto) -> Array:
        """See :class:`~tsmerge_export.graphs.nodes.NodeRunner`."""
        return widened(array_of(tensor))

    def run(self, node: onnx.NodeProto, values: Mapping[str, Array]) -> list[Array | None]:
        """See :class:`~tsmerge_export.graphs.nodes.NodeRunner`."""
        if node.name not in self._ways:
            return self._first(node, values)
        return self._ways[node.name](node, values)

    def _first(self, node: onnx.NodeProto, values: Mapping[str, Array]) -> list[Array | None]:
        """By the first way that runs, which is the one from then on."""
        for way in (self._in_float64, self._evaluated):
            try:
                outputs = way(node, values)
            except Exception:  # neither has a common base class
                continue
            self._ways[node.name] = way
            return outputs
        outputs = self._in_float32(node, values)
        self._ways[node.name] = self._in_float32
        return outputs

    def _in_float64(self, node: onnx.NodeProto, values: Mapping[str, Array]) -> list[Array | None]:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise TypeError("what is inside says of what type it is")
        return _all_widened(super().run(_typed(node), values))

    def _evaluated(self, node: onnx.NodeProto, values: Mapping[str, Array]) -> list[Array | None]:
        if node.op_type not in _EVALUATED:
            raise TypeError("it may take long")
        if node.name not in self._evaluators:
            from onnx.reference import ReferenceEvaluator

            model, feeds = self._alone(node, values)
            self._evaluators[node.name] = ReferenceEvaluator(model), feeds
        evaluator, feeds = self._evaluators[node.name]
        found = iter(evaluator.run(None, {name: values[name] for name in feeds}))
        return _all_widened([next(found) if name else None for name in node.output])

    def _in_float32(self, node: onnx.NodeProto, values: Mapping[str, Array]) -> list[Array | None]:
        used = {name: values[name] for name in names_used(node)}
        narrow = {
            name: value.astype(np.float32) if value.dtype == np.float64 else value
            for name, value in used.items()
        }
        return _all_widened(self._single.run(node, narrow))


def _typed(node: onnx.NodeProto) -> onnx.NodeProto:
    """The node itself, or a copy that makes float64 where it makes float32."""
    name = _TYPED.get(node.op_type)
    if name is None:
        return node
    out = onnx.NodeProto()
    out.CopyFrom(node)
    for attribute in out.attribute:
        if attribute.name == name and attribute.HasField("t"):
            attribute.t.CopyFrom(onnx.numpy_helper.from_array(widened(array_of(attribute.t))))
        elif attribute.name == name and attribute.i == onnx.TensorProto.FLOAT:
            attribute.i = onnx.TensorProto.DOUBLE
    return out


def _all_widened(outputs: list[Array | None]) -> list[Array | None]:
    return [None if value is None else widened(value) for value in outputs]
