"""Puts layer normalisation back together: files of opset 16 and older spell it out in nine operators.

In a post-norm block tokens merge behind the normalisation, which runtimes fuse with the residual before it. So it has
to be seen as one.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tsmerge_export.onnx_model.weights import array_of

_MAX_EPSILON = 1e-2


def join_layer_norms(model: onnx.ModelProto) -> int:
    """Replace ``(x - mean) / sqrt(var + eps) * scale + bias`` over the last axis, in place, from opset 17 on.

    Returns:
        How many were replaced.
    """
    found = _Finder(model.graph)
    nodes = []
    count = 0
    for node in model.graph.node:
        joined = found.join(node)
        if joined is not None:
            count += 1
        nodes.append(joined or node)
    if count:
        kept = _used(nodes, {value.name for value in model.graph.output})
        del model.graph.node[:]
        model.graph.node.extend(kept)
    return count


def _used(nodes: list[onnx.NodeProto], needed: set[str]) -> list[onnx.NodeProto]:
    """The nodes that an output needs; subgraphs may read anything, so that nothing they name is dropped."""
    kept = []
    for node in reversed(nodes):
        inner = [g for a in node.attribute for g in (*([a.g] if a.HasField("g") else []), *a.graphs)]
        if inner:
            return nodes
        if any(name in needed for name in node.output):
            kept.append(node)
            needed.update(node.input)
    return kept[::-1]


class _Finder:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self._by_output = {name: node for node in graph.node for name in node.output}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}

    def join(self, add: onnx.NodeProto) -> onnx.NodeProto | None:
        """The normalisation that ends with ``add``."""
        split = self._constant_operand(add, "Add")
        if split is None:
            return None
        bias, scaled = split
        split = self._constant_operand(self._by_output.get(scaled), "Mul")
        if split is None:
            return None
        scale, normal = split
        div = self._node(normal, "Div")
        centred = None if div is None else self._node(div.input[0], "Sub")
        root = None if div is None else self._node(div.input[1], "Sqrt")
        if div is None or centred is None or root is None:
            return None
        x = centred.input[0]
        epsilon = self._epsilon(root.input[0], div.input[0])
        shapes = [tuple(self._constants[name].dims) for name in (scale, bias)]
        if (
            epsilon is None
            or not self._mean_of(centred.input[1], x)
            or shapes[0] != shapes[1]
            or len(shapes[0]) != 1
        ):
            return None
        return helper.make_node(
            "LayerNormalization", [x, scale, bias], [add.output[0]], name=add.name, axis=-1, epsilon=epsilon
        )

    def _node(self, name: str, op_type: str) -> onnx.NodeProto | None:
        node = self._by_output.get(name)
        return node if node is not None and node.op_type == op_type else None

    def _value(self, name: str) -> np.ndarray | None:
        if name in self._constants:
            return array_of(self._constants[name])
        node = self._node(name, "Constant")
        value = None if node is None else next((a.t for a in node.attribute if a.name == "value"), None)
        return None if value is None else array_of(value)

    def _constant_operand(self, node: onnx.NodeProto | None, op_type: str) -> tuple[str, str] | None:
        """(the weight, the other operand) of a product or sum with a weight."""
        if node is None or node.op_type != op_type:
            return None
        for index in (0, 1):
            if node.input[index] in self._constants:
                return node.input[index], node.input[1 - index]
        return None

    def _mean_of(self, name: str, x: str) -> bool:
        """Whether a value is the mean of ``x`` over its last axis."""
        node = self._node(name, "ReduceMean")
        if node is None or node.input[0] != x or not all(a.i for a in node.attribute if a.name == "keepdims"):
            return False
        axes = self._value(node.input[1]) if len(node.input) > 1 else None
        return axes is not None and axes.reshape(-1).tolist() == [-1]

    def _epsilon(self, name: str, centred: str) -> float | None:
        """The number that is added to the mean square of ``centred``."""
        add = self._by_output.get(name)
        if add is None or add.op_type != "Add":
            return None
        for index in (0, 1):
            value = self._value(add.input[index])
            mean = self._node(add.input[1 - index], "ReduceMean")
            square = None if mean is None else self._by_output.get(mean.input[0])
            if value is None or value.size != 1 or mean is None or square is None:
                continue
            exponent = self._value(square.input[1]) if square.op_type == "Pow" else None
            squared = square.op_type == "Mul" and list(square.input) == [centred, centred]
            squared |= (
                square.input[0] == centred and exponent is not None and exponent.reshape(-1).tolist() == [2.0]
            )
            epsilon = float(value.reshape(()))
            if (
                squared
                and 0 < epsilon <= _MAX_EPSILON
                and self._mean_of(add.input[1 - index], square.output[0])
            ):
                return epsilon
        return None
