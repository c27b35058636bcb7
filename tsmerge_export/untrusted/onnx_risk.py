"""Whether it is known beforehand that a graph ends, fits into memory and crashes no runtime.

Of the operators that transformers are made of it is, but for whole numbers that are divided by zero, which end a
process, and sizes of any height. What is not known is done in a process of its own (:mod:`.isolated`).
Neither onnx nor a runtime is imported: bundles are looked at, too, before they run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tsmerge_export.untrusted.onnx_numbers import NOT_WHOLE, array_of, divides, folded, large
from tsmerge_export.untrusted.onnx_scan import STANDARD

if TYPE_CHECKING:
    import onnx

    from tsmerge_export.untrusted import onnx_wire

_MOST_DOUBLED = 12
_ELEMENTWISE = {
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "Cast", "CastLike", "Ceil", "Clip", "Cos",
    "Cosh", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid",
    "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min",
    "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid",
    "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tan", "Tanh", "ThresholdedRelu", "Where",
    "Xor",
}  # fmt: skip
_KNOWN = _ELEMENTWISE | {
    "ArgMax", "ArgMin", "Attention", "AveragePool", "BatchNormalization", "Concat", "Constant", "ConstantOfShape",
    "Conv", "CumSum", "Dropout", "DynamicQuantizeLinear", "Einsum", "Expand", "Flatten", "Gather", "GatherElements",
    "GatherND", "Gemm", "InstanceNormalization", "LayerNormalization", "LogSoftmax", "MatMul", "MatMulInteger",
    "MaxPool", "NonZero", "OneHot", "Pad", "RMSNormalization", "Range", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Reshape",
    "RotaryEmbedding", "ScatterElements", "ScatterND", "Shape", "Size", "Slice", "Softmax", "Split", "Squeeze", "Tile",
    "TopK", "Transpose", "Trilu", "Unsqueeze",
}  # fmt: skip
# Outputs are whole numbers, of whatever inputs.
_WHOLE = {"ArgMax", "ArgMin", "MatMulInteger", "NonZero", "Shape", "Size"}
# Inputs that say how large the output is.
_SIZES = {
    "ConstantOfShape": slice(0, 1), "Expand": slice(1, 2), "Tile": slice(1, 2), "Range": slice(0, 2),
    "Pad": slice(1, 2), "OneHot": slice(1, 2),
}  # fmt: skip
# Operators whose outputs hold no other numbers than their first input.
_SAME_NUMBERS = {
    "Expand",
    "Flatten",
    "Identity",
    "Reshape",
    "Slice",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
}
_Functions = dict[tuple[str, str, str], Any]


@dataclass
class _Scope:
    """What is known of the values of a graph or a call, by name.

    Attributes:
        constants: values of those that do not change. whole: may be whole numbers. positive: hold none below 1.
        dims: of constants. doubled: how often they were put beside themselves on the way. roots: what they were
            computed from, number by number. seen: all that are there. omitted: stand for inputs that are left out.
    """

    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    positive: set[str] = field(default_factory=set)
    dims: dict[str, tuple[int, ...]] = field(default_factory=dict)
    doubled: dict[str, float] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=lambda: {""})
    omitted: set[str] = field(default_factory=lambda: {""})

    def inside(self) -> _Scope:
        """For a graph that sees these values."""
        return _Scope(
            constants=dict(self.constants),
            whole=set(self.whole),
            positive=set(self.positive),
            dims=dict(self.dims),
            doubled=dict(self.doubled),
            roots=dict(self.roots),
            seen=set(self.seen),
            omitted=set(self.omitted),
        )

    def hide(self, name: str) -> None:
        """Forget a value: the name is another's from here on."""
        self.constants.pop(name, None)
        self.dims.pop(name, None)
        self.whole.discard(name)
        self.positive.discard(name)
        self.doubled.pop(name, None)
        self.roots.pop(name, None)
        if name:
            self.omitted.discard(name)
        self.seen.add(name)

    def hand_on(self, name: str, other: _Scope, to: str) -> None:
        """What is known of ``name`` here is known of ``to`` there."""
        other.hide(to)
        if name in self.constants:
            other.constants[to] = self.constants[name]
        if name in self.omitted and to:
            other.omitted.add(to)
        for mine, others in ((self.whole, other.whole), (self.positive, other.positive)):
            if name in mine:
                others.add(to)
        other.doubled[to] = self.doubled.get(name, 0)


def risk(model: onnx.ModelProto | onnx_wire.Model) -> str | None:
    """What about a graph is not known to be harmless, as a few words; None where all is.

    Args:
        model: its calls were counted (:func:`.onnx_scan.check_calls`): they are followed here.
    """
    functions = {
        (_domain(function.domain), function.name, function.overload): function for function in model.functions
    }
    try:
        return _of_graph(model.graph, _Scope(), functions)
    except (IndexError, KeyError, ValueError, TypeError, OverflowError, RecursionError):
        return "an operator that is not written as the standard has it"


def _domain(name: str) -> str:
    return "" if name in STANDARD else name


def _of_graph(graph: Any, scope: _Scope, functions: _Functions) -> str | None:
    """Of a graph, whose values are added to ``scope``."""
    for value in graph.input:
        scope.hide(value.name)
        if value.type.tensor_type.elem_type not in NOT_WHOLE:
            scope.whole.add(value.name)
    for tensor in graph.initializer:
        scope.hide(tensor.name)
        _keep(tensor.name, tensor, scope)
    for sparse in graph.sparse_initializer:
        scope.hide(sparse.values.name)
        scope.whole.add(sparse.values.name)
    return _of_nodes(graph.node, scope, functions, {})


def _keep(name: str, tensor: Any, scope: _Scope) -> None:
    scope.dims[name] = tuple(tensor.dims)
    if tensor.data_type not in NOT_WHOLE:
        scope.whole.add(name)
    found = array_of(tensor)
    if found is not None:
        _keep_constant(name, found, scope)


def _keep_constant(name: str, found: NDArray[Any], scope: _Scope) -> None:
    scope.constants[name] = found
    if found.dtype.kind in "iu" and found.size and found.min() > 0:
        scope.positive.add(name)


def _of_nodes(
    nodes: Iterable[Any], scope: _Scope, functions: _Functions, given: Mapping[str, Any]
) -> str | None:
    """Of nodes in their order, which read ``scope``. ``given``: attributes of the call whose body they are."""
    for node in nodes:
        if any(name not in scope.seen for name in node.input):
            return "operators that are in no order"
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if len(attributes) < len(node.attribute):
            return "an attribute that is there twice"
        for name, attribute in attributes.items():
            if attribute.ref_attr_name:
                attributes[name] = given.get(attribute.ref_attr_name)
        attributes = {name: attribute for name, attribute in attributes.items() if attribute is not None}
        found = _of_node(node, attributes, scope, functions)
        if found is not None:
            return found
    return None


def _of_node(node: Any, attributes: Mapping[str, Any], scope: _Scope, functions: _Functions) -> str | None:
    called = functions.get((_domain(node.domain), node.op_type, node.overload))
    if called is not None:
        return _of_call(node, called, attributes, scope, functions)
    if node.domain not in STANDARD and not _fitting_blocks(node, attributes, scope):
        return f"operator {node.domain[:40]}::{node.op_type[:40]}"
    if node.op_type in ("If", "Scan"):
        for attribute in attributes.values():
            for graph in (attribute.g, *attribute.graphs):
                found = _of_graph(graph, scope.inside(), functions)
                if found:
                    return found
        for name in node.output:
            scope.hide(name)
            scope.whole.add(name)  # of unknown type
        return None
    if node.op_type not in _KNOWN and node.domain in STANDARD:
        return f"operator {node.op_type[:40]}"
    return _harm(node, attributes, scope) or _learn(node, attributes, scope)


def _of_call(
    node: Any, function: Any, attributes: Mapping[str, Any], scope: _Scope, functions: _Functions
) -> str | None:
    inner = _Scope()
    for name in function.input:
        inner.hide(name)
    inner.omitted.update(function.input[len(node.input) :])
    for outer, name in zip(node.input, function.input, strict=False):
        scope.hand_on(outer, inner, name)
    defaults = {attribute.name: attribute for attribute in function.attribute_proto}
    found = _of_nodes(function.node, inner, functions, {**defaults, **attributes})
    for outer, name in zip(node.output, function.output, strict=False):
        inner.hand_on(name, scope, outer)
    return found


def _harm(node: Any, attributes: Mapping[str, Any], scope: _Scope) -> str | None:
    """What an operator may do, with what is known of its inputs."""
    if node.op_type in ("Div", "Mod") and any(name in scope.whole for name in node.input):
        divisor = node.input[1]
        if divisor not in scope.positive and not divides(scope.constants.get(divisor)):
            return f"{node.op_type} of whole numbers, which may be by zero"
    sizes = [scope.constants.get(name) for name in node.input[_SIZES.get(node.op_type, slice(0, 0))]]
    step = scope.constants.get(node.input[2]) if node.op_type == "Range" else None
    if any(large(size) for size in sizes) or (step is not None and np.any(np.abs(step) < 1e-3)):
        return f"{node.op_type} of a large size"
    # Legal, and ONNX Runtime reads the bias of a LayerNormalization where it is left out so.
    if node.op_type == "LayerNormalization" and any(name in scope.omitted for name in node.input):
        return "LayerNormalization with an input that is written out and empty"
    if node.op_type in ("AveragePool", "Conv", "MaxPool") and not _plain_window(attributes):
        return f"{node.op_type} with unusual attributes"
    return None


def _fitting_blocks(node: Any, attributes: Mapping[str, Any], scope: _Scope) -> bool:
    """Whether it is a product of ONNX Runtime's with a weight in blocks, all of which is there and as large as it says:
    not every version looks before it reads."""
    if (node.domain, node.op_type) != ("com.microsoft", "MatMulNBits") or len(node.input) not in (3, 4):
        return False
    rows, columns, bits, block = (attributes[name].i for name in ("K", "N", "bits", "block_size"))
    if (
        bits not in (4, 8)
        or block not in (16, 32, 64, 128, 256)
        or not (0 < rows < 2**31 and 0 < columns < 2**31)
    ):
        return False
    blocks = -(-rows // block)
    found = [scope.dims.get(name, ()) for name in node.input[1:]]
    sizes = [columns * blocks, columns * -(-blocks * bits // 8)]
    return found[0] == (columns, blocks, block * bits // 8) and all(
        dims and math.prod(dims) == size for dims, size in zip(found[1:], sizes, strict=False)
    )


def _learn(node: Any, attributes: Mapping[str, Any], scope: _Scope) -> str | None:
    """Note what is known of the outputs."""
    largest = max(node.input, key=lambda name: scope.doubled.get(name, 0), default="")
    doubled = scope.doubled.get(largest, 0) + _doubles(node, scope)
    root = scope.roots.get(largest, largest) if node.op_type in _ELEMENTWISE else None
    if doubled > _MOST_DOUBLED:
        return "a value that is put beside itself again and again"
    whole = _is_whole(node, attributes, scope.whole)
    positive = _is_positive(node, scope.positive)
    numbers = folded(node, attributes, scope.constants)
    for name in node.output:
        scope.hide(name)
        scope.doubled[name] = doubled
        if root is not None:
            scope.roots[name] = root
        if whole:
            scope.whole.add(name)
        if positive:
            scope.positive.add(name)
    if node.op_type == "TopK":
        scope.whole.update(node.output[1:])
    if node.op_type == "DynamicQuantizeLinear":  # numbers, scale, zero point
        scope.whole.update(node.output[::2])
    if numbers is not None:
        _keep_constant(node.output[0], numbers, scope)
    if node.op_type == "Constant" and "value" in attributes:
        _keep(node.output[0], attributes["value"].t, scope)
    return None


def _doubles(node: Any, scope: _Scope) -> float:
    """How often an output holds its largest input, as a power of 2. Rotary embeddings put halves together: none."""
    if node.op_type == "Concat":
        return len(node.input) - len({scope.roots.get(name, name) for name in node.input})
    if node.op_type == "Tile":
        repeats = scope.constants.get(node.input[1])
        return 1 if repeats is None else float(np.log2(np.maximum(np.abs(repeats.astype(float)), 1.0)).sum())
    return 0


def _is_whole(node: Any, attributes: Mapping[str, Any], whole: set[str]) -> bool:
    if node.op_type in _WHOLE:
        return True
    if node.op_type == "Cast":
        return attributes["to"].i not in NOT_WHOLE
    if node.op_type == "Constant":
        return not {"value", "value_float", "value_floats", "value_string", "value_strings"} & set(attributes)
    if node.op_type == "ConstantOfShape":
        return "value" in attributes and attributes["value"].t.data_type not in NOT_WHOLE
    if node.op_type in ("Where", "OneHot"):
        return any(name in whole for name in node.input[1:])
    return any(name in whole for name in node.input[: 1 if node.op_type not in _ELEMENTWISE else None])


def _is_positive(node: Any, positive: set[str]) -> bool:
    """Whether an output of whole numbers holds none below 1."""
    inside = [name in positive for name in node.input]
    if node.op_type == "Max":
        return any(inside)
    if node.op_type in ("Min", "Concat"):
        return all(inside)
    return node.op_type in _SAME_NUMBERS and inside[0]


def _plain_window(attributes: Mapping[str, Any]) -> bool:
    group = attributes["group"].i if "group" in attributes else 1
    numbers = [
        n
        for key in ("strides", "dilations", "kernel_shape")
        if key in attributes
        for n in attributes[key].ints
    ]
    pads = list(attributes["pads"].ints) if "pads" in attributes else []
    return group > 0 and all(0 < n < 2**16 for n in numbers) and all(0 <= n < 2**16 for n in pads)
