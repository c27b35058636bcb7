"""Takes out the folding of batch and tokens into one axis around matrix products.

``x.view(-1, d)``, a product with weights (``Gemm``), perhaps more that treats every row alone, a ``view`` back: GPT-2.
On the folded axis no token is where it was; without it the same operators run on ``[batch, tokens, features]``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from tsmerge_export.generic.nodes import names_used
from tsmerge_export.rewrite.dims import Dim, dims

_ALONE = {
    "Abs", "Cast", "Clip", "Dropout", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu",
    "Mish", "Neg", "Reciprocal", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Tanh",
}  # fmt: skip
_PAIRS = {"Add", "Div", "Mul", "Pow", "Sub"}
_ALONG_FEATURES = {"LayerNormalization", "RMSNormalization", "Softmax"}
_ROWS = _ALONE | _PAIRS | _ALONG_FEATURES | {"Gemm", "MatMul"}


Shapes = Mapping[str | None, list[Dim] | None]
Constants = Mapping[str, onnx.TensorProto]


def unfold(model: onnx.ModelProto, measured: ir.Model) -> bool:
    """Rewrite what can be, in place; whether anything was.

    Args:
        model: every node with a name. measured: the same graph with dims.
    """
    shapes = {
        v.name: dims(v) for v in (*measured.graph.inputs, *(v for n in measured.graph for v in n.outputs))
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in names_used(node):
            users.setdefault(name, []).append(node)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    kept = {value.name for value in model.graph.output}
    replaced: dict[str, list[onnx.NodeProto]] = {}
    turned = _Turned(constants)
    sizes: dict[str, onnx.TensorProto] = {}
    for node in model.graph.node:
        if node.name not in replaced and _folds(node, shapes):
            region = _region(node, shapes, users, kept, constants)
            if region is not None and any(inner.op_type in ("Gemm", "MatMul") for inner in region):
                replaced |= _unfolded(node, region, shapes, turned, sizes)
    if not replaced:
        return False
    nodes = [new for old in model.graph.node for new in replaced.get(old.name, [old])]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in names_used(node)} | kept
    weights = [
        tensor
        for tensor in (*constants.values(), *turned.made.values(), *sizes.values())
        if tensor.name in used
    ]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
    return True


class _Turned:
    """Transposed weights, each made once."""

    def __init__(self, constants: Constants) -> None:
        self._constants = constants
        self.made: dict[str, onnx.TensorProto] = {}

    def __call__(self, name: str) -> str:
        if name not in self.made:
            array = np.ascontiguousarray(numpy_helper.to_array(self._constants[name]).T)
            self.made[name] = numpy_helper.from_array(array, f"{name}/transposed")
        return self.made[name].name


def _folds(node: onnx.NodeProto, shapes: Shapes) -> bool:
    """Whether a node makes ``[rows, features]`` of ``[batch, tokens, ..]``."""
    if node.op_type != "Reshape":
        return False
    before, after = shapes.get(node.input[0]), shapes.get(node.output[0])
    return before is not None and after is not None and len(after) == 2 and _features(before) == after[1]


def _features(shape: Sequence[Dim]) -> int | None:
    """Features of a token in ``[batch, tokens, ..]``."""
    rest = [dim for dim in shape[2:] if isinstance(dim, int)]
    return math.prod(rest) if None not in shape[:2] and rest and len(rest) == len(shape) - 2 else None


def _region(
    start: onnx.NodeProto,
    shapes: Shapes,
    users: Mapping[str, list[onnx.NodeProto]],
    kept: set[str],
    constants: Constants,
) -> list[onnx.NodeProto] | None:
    """The nodes from a folding to the reshapes back; None where something else reads what is folded."""
    lead = (shapes.get(start.input[0]) or [])[:2]
    found: dict[str, onnx.NodeProto] = {}
    folded, todo = {start.output[0]}, [start.output[0]]
    while todo:
        value = todo.pop()
        if value in kept:
            return None
        for node in users.get(value, []):
            if node.name in found:
                continue
            found[node.name] = node
            if node.op_type == "Reshape" and node.input[0] == value and node.input[1] not in folded:
                shape = shapes.get(node.output[0]) or []
                if shape[:2] != lead or _features(shape) != (shapes.get(value) or [None])[-1]:
                    return None
            elif node.op_type not in _ROWS:
                return None
            else:
                folded.add(node.output[0])
                todo.append(node.output[0])
    inner = list(found.values())
    exits = [node for node in inner if node.op_type == "Reshape"]
    whole = all(node.op_type == "Reshape" or _by_row(node, shapes, folded, constants) for node in inner)
    return inner if exits and whole else None


def _by_row(node: onnx.NodeProto, shapes: Shapes, folded: set[str], constants: Constants) -> bool:
    """Whether a node treats every row of ``[rows, features]`` alone, and goes as well with two axes in front."""
    shape = shapes.get(node.output[0]) or []
    if node.domain not in ("", "ai.onnx") or len(shape) != 2 or any(node.output[1:]):
        return False
    others = [name for name in node.input[1:] if name]
    if node.op_type in _ALONE:
        return not any(name in folded for name in others)
    if node.op_type in _PAIRS:
        return all(name in folded or _rank(name, shapes) in (0, 1) for name in node.input)
    if node.input[0] not in folded or any(name in folded for name in others):
        return False
    if node.op_type == "Gemm":
        plain = all(_attribute(node, name, 1.0) == 1.0 for name in ("alpha", "beta"))
        bias = all(_rank(name, shapes) in (0, 1) for name in others[1:])
        return plain and bias and not _attribute(node, "transA", 0) and others[0] in constants
    if node.op_type == "MatMul":
        return others[0] in constants and _rank(others[0], shapes) == 2
    return node.op_type in _ALONG_FEATURES and _attribute(node, "axis", -1) in (-1, 1)


def _rank(name: str, shapes: Shapes) -> int | None:
    shape = shapes.get(name)
    return None if shape is None else len(shape)


def _attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _unfolded(
    start: onnx.NodeProto,
    region: list[onnx.NodeProto],
    shapes: Shapes,
    turned: _Turned,
    sizes: dict[str, onnx.TensorProto],
) -> dict[str, list[onnx.NodeProto]]:
    """What stands in place of each node, by name; ``sizes`` gets the targets of reshapes."""
    out = {}
    for node in (start, *region):
        if node.op_type == "Reshape":
            whole = shapes.get(node.input[0] if node is start else node.output[0]) or []
            inner = [_features(whole)] if node is start else list(whole[2:])
            if len(whole) == 3:
                made = helper.make_node("Identity", [node.input[0]], [node.output[0]], name=node.name)
            else:
                entries = np.asarray([0, 0, *inner], np.int64)
                name = "unfolded_" + "_".join(map(str, entries))
                sizes[name] = numpy_helper.from_array(entries, name)
                made = helper.make_node("Reshape", [node.input[0], name], [node.output[0]], name=node.name)
            out[node.name] = [made]
        elif node.op_type == "Gemm":
            out[node.name] = _product(node, turned)
        elif node.op_type in _ALONG_FEATURES:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            kept = [attribute for attribute in node.attribute if attribute.name != "axis"]
            del copy.attribute[:]
            copy.attribute.extend([*kept, helper.make_attribute("axis", -1)])
            out[node.name] = [copy]
    return out


def _product(node: onnx.NodeProto, turned: _Turned) -> list[onnx.NodeProto]:
    """``Gemm`` as ``MatMul`` and ``Add``."""
    value, weight, bias = [*node.input, ""][:3]
    if _attribute(node, "transB", 0):
        weight = turned(weight)
    made = f"{node.output[0]}_product" if bias else node.output[0]
    name = f"{node.name}_product" if bias else node.name
    nodes = [helper.make_node("MatMul", [value, weight], [made], name=name)]
    if bias:
        nodes.append(helper.make_node("Add", [made, bias], [node.output[0]], name=node.name))
    return nodes
