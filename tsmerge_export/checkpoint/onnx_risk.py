"""Whether it is known beforehand that a graph ends, fits into memory and crashes no runtime.

Of the operators that transformers are made of it is, but for whole numbers that are divided by zero, which end a
process, and sizes of any height. What is not known is tried in a process of its own (:mod:`tsmerge_export.isolated`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tsmerge_export import ops
from tsmerge_export.errors import TsmergeError
from tsmerge_export.onnx_scan import STANDARD

_SMALL = 1024  # numbers: constants that say how large something is are smaller
_MOST_NUMBERS = 2**28
_MOST_TURNS = 1024
_MOST_DOUBLED = 12
_ELEMENTWISE = {
    "Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Clip", "Cos", "Div", "Elu", "Equal", "Erf", "Exp", "Floor",
    "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu",
    "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow",
    "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Sum",
    "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor",
}  # fmt: skip
_KNOWN = _ELEMENTWISE | {
    "ArgMax", "ArgMin", "Attention", "BatchNormalization", "Concat", "Constant", "ConstantOfShape", "Conv",
    "CumSum", "Dropout", "Einsum", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Gemm",
    "InstanceNormalization", "LayerNormalization", "LogSoftmax", "MatMul", "NonZero", "OneHot", "Pad",
    "RMSNormalization", "Range", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Reshape", "RotaryEmbedding",
    "ScatterElements", "ScatterND", "Shape", "Size", "Slice", "Softmax", "Split", "Squeeze", "Tile", "TopK",
    "Transpose", "Trilu", "Unsqueeze",
}  # fmt: skip
# Outputs are whole numbers, of whatever inputs.
_WHOLE = {"ArgMax", "ArgMin", "NonZero", "Shape", "Size"}
_SIZES = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1, "Range": 1, "Pad": 1, "OneHot": 1}
_INTEGERS = {
    number
    for name, number in onnx.TensorProto.DataType.items()
    if name.startswith(("INT", "UINT")) or name in ("BOOL", "UNDEFINED")
}


def risk(model: onnx.ModelProto) -> str | None:
    """What about a graph is not known to be harmless, as a few words; None where all is.

    Args:
        model: passed :func:`.onnx_checks.check_model`; its functions, too, are looked at.
    """
    local = {(function.domain, function.name) for function in model.functions}
    found = _of_graph(model.graph, {}, set(), local)
    own = _own(model)
    for function in model.functions:
        if (function.name, function.overload) not in own or function.domain != ops.DOMAIN:
            # Nobody knows what is handed to it.
            found = found or _of_nodes(function.node, {}, set(function.input), local)
    return found


def _own(model: onnx.ModelProto) -> set[tuple[str, str]]:
    """Name and overload of the functions that are what this project writes, and called as it calls them."""
    opset = max((entry.version for entry in model.opset_import if entry.domain in STANDARD), default=0)
    there = {
        (function.name, function.overload): function
        for function in model.functions
        if function.domain == ops.DOMAIN
    }
    same: dict[tuple[str, str], bool] = {}
    for node in model.graph.node:
        key = (node.op_type, node.overload)
        if node.domain != ops.DOMAIN or key not in there or same.get(key) is False:
            continue
        attributes = ops.attributes_of(node)
        try:
            fits = ops.variant_key(node.op_type, attributes) == node.overload
            same[key] = fits and (
                key in same or ops.function(node.op_type, attributes, opset=opset) == there[key]
            )
        except (TsmergeError, KeyError):
            same[key] = False
    return {key for key, fits in same.items() if fits}


def _of_graph(
    graph: onnx.GraphProto, constants: dict[str, NDArray[Any]], whole: set[str], local: set[tuple[str, str]]
) -> str | None:
    constants, whole = dict(constants), set(whole)
    for tensor in graph.initializer:
        if _few(tensor):
            constants[tensor.name] = onnx.numpy_helper.to_array(tensor)
        if tensor.data_type in _INTEGERS:
            whole.add(tensor.name)
    whole |= {value.name for value in graph.input if value.type.tensor_type.elem_type in _INTEGERS}
    return _of_nodes(graph.node, constants, whole, local)


def _few(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location != onnx.TensorProto.EXTERNAL and int(np.prod([*tensor.dims, 1.0])) <= _SMALL


def _of_nodes(
    nodes: Iterable[onnx.NodeProto],
    constants: dict[str, NDArray[Any]],
    whole: set[str],
    local: set[tuple[str, str]],
) -> str | None:
    doubled: dict[str, int] = {}  # how often a value was put beside itself on the way to another
    for node in nodes:
        before = max((doubled.get(name, 0) for name in node.input), default=0)
        again = len(node.input) - len(set(node.input)) if node.op_type == "Concat" else 0
        doubled.update(dict.fromkeys(node.output, before + again))
        if before + again > _MOST_DOUBLED:
            return "a value that is put beside itself again and again"
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.domain not in STANDARD:
            if (node.domain, node.op_type) not in local:
                return f"operator {node.domain[:40]}::{node.op_type[:40]}"
            whole.update(node.output)
            continue
        if node.op_type in ("If", "Scan") or (node.op_type == "Loop" and _ends(node, constants)):
            for attribute in node.attribute:
                for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                    found = _of_graph(graph, constants, whole, local)
                    if found:
                        return found
            whole.update(node.output)  # of unknown type
            continue
        if node.op_type not in _KNOWN:
            return f"operator {node.op_type[:40]}"
        if node.op_type == "Constant" and "value" in attributes and _few(attributes["value"].t):
            constants[node.output[0]] = onnx.numpy_helper.to_array(attributes["value"].t)
        elif node.op_type == "Constant" and any(attribute.ref_attr_name for attribute in node.attribute):
            pass  # a value of whoever calls
        elif node.op_type == "Constant" and "value_int" in attributes:
            constants[node.output[0]] = np.array(attributes["value_int"].i)
        elif node.op_type == "Constant" and "value_ints" in attributes:
            constants[node.output[0]] = np.array(attributes["value_ints"].ints)
        if _is_whole(node, attributes, whole):
            whole.update(node.output)
            if node.op_type in ("Div", "Mod") and not _divides(constants.get(node.input[1])):
                return f"{node.op_type} of whole numbers, which may be by zero"
        size = _SIZES.get(node.op_type)
        if size is not None and len(node.input) > size and _large(constants.get(node.input[size])):
            return f"{node.op_type} of a large size"
        if node.op_type == "Conv" and not _plain_conv(attributes):
            return "Conv with unusual attributes"
    return None


def _is_whole(node: onnx.NodeProto, attributes: Mapping[str, onnx.AttributeProto], whole: set[str]) -> bool:
    if node.op_type in _WHOLE:
        return True
    if node.op_type == "Cast":
        return attributes["to"].i in _INTEGERS
    if node.op_type == "Constant":
        kinds = {"value_int", "value_ints"} & set(attributes)
        return bool(kinds) or ("value" in attributes and attributes["value"].t.data_type in _INTEGERS)
    if node.op_type == "ConstantOfShape":
        return "value" in attributes and attributes["value"].t.data_type in _INTEGERS
    if node.op_type == "Where":
        return any(name in whole for name in node.input[1:])
    return any(name in whole for name in node.input[: 1 if node.op_type not in _ELEMENTWISE else None])


def _ends(node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]]) -> bool:
    """Whether a loop has a number of turns that is not large."""
    turns = constants.get(node.input[0])
    return turns is not None and turns.size == 1 and int(turns.reshape(())) <= _MOST_TURNS


def _divides(divisor: NDArray[Any] | None) -> bool:
    """Whether nothing goes wrong with it: a lowest number divided by -1 overflows, which ends a process as well."""
    return divisor is not None and divisor.size > 0 and bool(np.all((divisor != 0) & (divisor != -1)))


def _large(sizes: NDArray[Any] | None) -> bool:
    if sizes is None or sizes.dtype.kind not in "iu":
        return False
    return float(np.prod(np.maximum(np.abs(sizes.astype(float)), 1.0))) > _MOST_NUMBERS


def _plain_conv(attributes: Mapping[str, onnx.AttributeProto]) -> bool:
    group = attributes["group"].i if "group" in attributes else 1
    numbers = [
        n
        for key in ("strides", "dilations", "kernel_shape")
        if key in attributes
        for n in attributes[key].ints
    ]
    pads = list(attributes["pads"].ints) if "pads" in attributes else []
    return group > 0 and all(0 < n < 2**16 for n in numbers) and all(0 <= n < 2**16 for n in pads)
