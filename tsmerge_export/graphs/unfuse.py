"""Writes fused operators out in single ones, so that attention is one pattern: products, masks and a Softmax.

``Attention`` (opset 23) without caches, ``RotaryEmbedding``, and ``Einsum`` of two operands that is a batched product,
or one with weights. What is anything else stays as it is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tsmerge_export.onnx_model.weights import array_of

_FLOAT = TensorProto.FLOAT


def unfuse(model: onnx.ModelProto) -> None:
    """Replace what can be, in place."""
    kinds = {node.op_type for node in model.graph.node if node.domain in ("", "ai.onnx")}
    rules: dict[str, Callable[[_Writer, onnx.NodeProto], bool]] = {
        "Attention": _attention,
        "Einsum": _einsum,
        "RotaryEmbedding": _rotary,
    }
    if not kinds & rules.keys():
        return
    writer = _Writer(model)
    for node in list(model.graph.node):
        rule = rules.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        mark = len(writer.nodes)
        if rule is None or not rule(writer, node):
            del writer.nodes[mark:]
            writer.nodes.append(node)
    nodes = list(writer.nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(writer.constants.values())


class _Writer:
    """Appends nodes; each new value has a name of its own."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._count = 0
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        try:
            graph = onnx.shape_inference.infer_shapes(model).graph
        except Exception:  # it only tells dtypes that not every rule needs
            graph = model.graph
        values = (*graph.input, *graph.value_info, *graph.output)
        self._types = {value.name: value.type.tensor_type.elem_type for value in values}
        self._types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        self._ranks = {
            value.name: len(value.type.tensor_type.shape.dim)
            for value in values
            if value.type.tensor_type.HasField("shape")
        }

    def weight(self, name: str) -> NDArray[Any] | None:
        """The values of an initializer; None for anything else."""
        tensor = self._weights.get(name)
        return None if tensor is None else array_of(tensor)

    def matrix(self, name: str, values: NDArray[Any]) -> str:
        """The name of an initializer made of another one."""
        self.constants.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def type_of(self, name: str) -> int:
        """Element type of a value; 0 where it is not known."""
        return int(self._types.get(name, 0))

    def rank_of(self, name: str) -> int | None:
        """Number of axes of a value, where it is known."""
        return self._ranks.get(name)

    def op(self, op_type: str, inputs: list[str], output: str | None = None, **attributes: object) -> str:
        """Append a node; returns the name of its output."""
        self._count += 1
        name = output or f"unfused_{self._count}_{op_type}"
        self.nodes.append(
            helper.make_node(
                op_type, inputs, [name], f"unfused_{self._count}", None, None, None, **attributes
            )
        )
        return name

    def const(self, value: object, dtype: type = np.int64) -> str:
        """The name of an initializer."""
        array: NDArray[Any] = np.asarray(value, dtype)
        name = f"unfused_const_{array.dtype}_{array.tobytes().hex()}_{array.ndim}"
        self.constants.setdefault(name, numpy_helper.from_array(array, name))
        return name


def _attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    found = [helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return found[0] if found else default


def _attention(writer: _Writer, node: onnx.NodeProto) -> bool:
    inputs = [*node.input, "", "", "", ""]
    cached = any(inputs[4:]) or any(list(node.output)[1:])
    precision = _attribute(node, "softmax_precision", _FLOAT)
    if cached or _attribute(node, "softcap", 0.0) or precision != _FLOAT:
        return False
    heads, kv_heads = int(_attribute(node, "q_num_heads", 0)), int(_attribute(node, "kv_num_heads", 0))
    if heads != kv_heads:
        return False
    query, key, value, mask = inputs[:4]
    if heads:  # [B, N, H * d]
        split = writer.const([0, 0, heads, -1])
        query, key, value = (
            writer.op("Transpose", [writer.op("Reshape", [part, split])], perm=[0, 2, 1, 3])
            for part in (query, key, value)
        )
    scores = writer.op("MatMul", [query, writer.op("Transpose", [key], perm=[0, 1, 3, 2])])
    scale = _attribute(node, "scale", 0.0)
    if scale:
        factor = writer.op("CastLike", [writer.const(scale, np.float32), query])
        scores = writer.op("Mul", [scores, factor])
    else:
        width = writer.op("Shape", [query], start=3, end=4)
        root = writer.op("Sqrt", [writer.op("CastLike", [width, query])])
        scores = writer.op("Div", [scores, root])
    masks = []
    if _attribute(node, "is_causal", 0):
        ends = [writer.op("Shape", [part], start=2, end=3) for part in (query, key)]
        scalars = [writer.op("Squeeze", [end, writer.const([0])]) for end in ends]
        rows, columns = (writer.op("Range", [writer.const(0), end, writer.const(1)]) for end in scalars)
        rows = writer.op("Unsqueeze", [rows, writer.const([1])])
        masks.append(writer.op("LessOrEqual", [columns, rows]))
    if mask:
        kind = writer.type_of(mask)
        if kind == 0:
            return False
        if kind == TensorProto.BOOL:
            masks.append(mask)
        else:
            scores = writer.op("Add", [scores, mask])
    lowest = writer.op("CastLike", [writer.const(-math.inf, np.float32), query]) if masks else ""
    for own in masks:
        scores = writer.op("Where", [own, scores, lowest])
    weights = writer.op("Softmax", [scores], axis=-1)
    if masks or mask:
        # A query that sees no key gets zeros.
        zero = writer.op("CastLike", [writer.const(0.0, np.float32), query])
        weights = writer.op("Where", [writer.op("IsNaN", [weights]), zero, weights])
    if not heads:
        writer.op("MatMul", [weights, value], node.output[0])
        return True
    mixed = writer.op("Transpose", [writer.op("MatMul", [weights, value])], perm=[0, 2, 1, 3])
    writer.op("Reshape", [mixed, writer.const([0, 0, -1])], node.output[0])
    return True


def _rotary(writer: _Writer, node: onnx.NodeProto) -> bool:
    """``x1 * cos - x2 * sin, x1 * sin + x2 * cos`` of the two halves of a head, or of its even and odd features."""
    value, cos, sin, places = [*node.input, ""][:4]
    rank, heads = writer.rank_of(value), int(_attribute(node, "num_heads", 0))
    width, paired = int(_attribute(node, "rotary_embedding_dim", 0)), bool(_attribute(node, "interleaved", 0))
    if rank not in (3, 4) or (rank == 3 and not heads):
        return False
    if rank == 3:  # [B, N, H * d], otherwise [B, H, N, d]
        value = writer.op("Reshape", [value, writer.const([0, 0, heads, -1])])
    rest = ""
    if width:  # the others stay as they are
        ends = [writer.const([end]) for end in (0, width, 2**62)]
        value, rest = (writer.op("Slice", [value, *own, writer.const([-1])]) for own in (ends[:2], ends[1:]))
    factors = []
    for table in (cos, sin):
        rows = writer.op("Gather", [table, places], axis=0) if places else table  # [B, N, d / 2]
        factors.append(writer.op("Unsqueeze", [rows, writer.const([2 if rank == 3 else 1])]))
    if paired:
        value = writer.op("Reshape", [value, writer.const([0, 0, 0, -1, 2])])
    parts = [f"{node.output[0]}_{side}" for side in ("first", "second")]
    writer.nodes.append(
        helper.make_node("Split", [value], parts, name=f"{parts[0]}_split", axis=-1, num_outputs=2)
    )
    if paired:
        parts = [writer.op("Squeeze", [part, writer.const([-1])]) for part in parts]
    (first, second), (c, s) = parts, factors
    turned = [
        writer.op(kind, [writer.op("Mul", [first, a]), writer.op("Mul", [second, b])])
        for kind, a, b in (("Sub", c, s), ("Add", s, c))
    ]
    if paired:
        turned = [writer.op("Unsqueeze", [part, writer.const([-1])]) for part in turned]
        joined = writer.op("Concat", turned, axis=-1)
        turned = [writer.op("Reshape", [joined, writer.const([0, 0, 0, -1])])]
    whole = [*turned, *([rest] if rest else [])]
    if rank == 3:
        writer.op("Reshape", [writer.op("Concat", whole, axis=-1), writer.const([0, 0, -1])], node.output[0])
    else:
        writer.op("Concat", whole, node.output[0], axis=-1)
    return True


def _einsum(writer: _Writer, node: onnx.NodeProto) -> bool:
    """``a, b -> c``: a product with weights over any axes, or one of two values that is a batched matrix product."""
    equation = next(helper.get_attribute_value(a) for a in node.attribute if a.name == "equation")
    text = equation.decode() if isinstance(equation, bytes) else str(equation)
    inputs, arrow, out = text.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow or len(terms) != 2 or "." in text:
        return False
    if any(count > 1 for term in (*terms, out) for count in Counter(term).values()):
        return False
    first, second = zip(node.input, terms, strict=True)
    weights = [writer.weight(name) is not None for name in node.input]
    if weights[0] and not weights[1]:
        first, second = second, first
    if any(weights):
        return not all(weights) and _weighed(writer, first, second, out, node.output[0])
    return _batched(writer, [first, second], out, node.output[0])


def _weighed(writer: _Writer, value: tuple[str, str], weight: tuple[str, str], out: str, output: str) -> bool:
    """One MatMul with the weights as a matrix: how Keras writes projections to heads and back."""
    (x, left), (name, right) = value, weight
    array = writer.weight(name)
    summed = [label for label in right if label not in out]
    kept, new = ([label for label in term if label not in summed] for term in (left, right))
    if array is None or array.ndim != len(right) or not summed or not kept:
        return False
    if set(summed) - set(left) or set(new) & set(left) or set(left) - set(summed) - set(out):
        return False
    if sorted(out) != sorted([*kept, *new]):
        return False
    sizes = [array.shape[right.index(label)] for label in new]
    matrix = array.transpose([right.index(label) for label in [*summed, *new]])
    matrix = matrix.reshape(-1, math.prod(sizes))
    x = _moved(writer, x, left, [*kept, *summed])
    if len(summed) > 1:
        x = writer.op("Reshape", [x, writer.const([*(0 for _ in kept), -1])])
    x = writer.op("MatMul", [x, writer.matrix(f"{name}_as_{right}_{out}", matrix)])
    if len(new) != 1:
        x = writer.op("Reshape", [x, writer.const([*(0 for _ in kept), *sizes])])
    perm = [[*kept, *new].index(label) for label in out]
    if perm == sorted(perm):
        writer.op("Identity", [x], output)
    else:
        writer.op("Transpose", [x], output, perm=perm)
    return True


def _batched(writer: _Writer, operands: list[tuple[str, str]], out: str, output: str) -> bool:
    """One free label in each operand, one that is summed, and the rest in both and in the result."""
    (_, left), (_, right) = operands
    shared = [label for label in out if label in left and label in right]
    summed = [label for label in left if label in right and label not in out]
    free = [[label for label in term if label not in (*shared, *summed)] for term in (left, right)]
    if len(summed) != 1 or any(len(own) != 1 or own[0] not in out for own in free):
        return False
    if out.index(free[0][0]) > out.index(
        free[1][0]
    ):  # Keras multiplies keys with queries, not queries with keys
        operands, free = operands[::-1], free[::-1]
    m, n, k = free[0][0], free[1][0], summed[0]
    (x, left), (y, right) = operands
    factors = [_moved(writer, x, left, [*shared, m, k]), _moved(writer, y, right, [*shared, k, n])]
    found = [*shared, m, n]
    perm = [found.index(label) for label in out]
    if perm == sorted(perm):
        writer.op("MatMul", factors, output)
    else:
        writer.op("Transpose", [writer.op("MatMul", factors)], output, perm=perm)
    return True


def _moved(writer: _Writer, value: str, labels: str, order: list[str]) -> str:
    perm = [labels.index(label) for label in order]
    return value if perm == sorted(perm) else writer.op("Transpose", [value], perm=perm)
