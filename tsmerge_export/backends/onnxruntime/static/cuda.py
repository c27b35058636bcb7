"""Which standard operators ONNX Runtime's CUDA provider has kernels for: others run on the CPU between its kernels.

From docs/OperatorKernels.md of microsoft/onnxruntime (operator sets 18 to 23): a table, not a trial. What is not in it
is taken for absent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx

from tsmerge_export.backends.onnxruntime.static.check import blocks

_ANY = {
    "Cast", "Concat", "ConstantOfShape", "Expand", "Flatten", "Gather", "GatherElements", "GatherND",
    "Identity", "Reshape", "ScatterElements", "ScatterND", "Slice", "Split", "Squeeze", "Transpose",
    "Unsqueeze", "Where",
}  # fmt: skip
_NUMBERS = {
    "Abs", "Add", "CumSum", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min",
    "Mod", "Mul", "Neg", "Pow", "ReduceMax", "ReduceMin", "ReduceSum", "Sign", "Sub", "Tile", "TopK",
}  # fmt: skip
_FLOAT = {
    "AveragePool", "BatchNormalization", "Ceil", "Clip", "Conv", "ConvTranspose", "Cos", "Einsum", "Elu", "Erf",
    "Exp", "Floor", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish",
    "InstanceNormalization", "IsInf", "IsNaN", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax", "MatMul",
    "MaxPool", "PRelu", "Pad", "RMSNormalization", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSumSquare", "Relu", "Resize", "Round", "Selu",
    "Sigmoid", "Sin", "Softmax", "Softplus", "Softsign", "Sqrt", "Sum", "Tanh",
}  # fmt: skip
#: By the type of what a node computes on.
KERNELS: Mapping[int, set[str]] = {
    onnx.TensorProto.FLOAT: _ANY | _NUMBERS | _FLOAT,
    onnx.TensorProto.INT64: _ANY | _NUMBERS | {"Clip", "OneHot"},
    onnx.TensorProto.INT32: (_ANY | _NUMBERS) - {"GatherND"},
    onnx.TensorProto.BOOL: _ANY | {"And", "Equal", "Not", "Or", "Pad", "Xor"},
}


def on_the_cpu(model: onnx.ModelProto) -> Counter[str]:
    """Kinds of nodes that the provider leaves to the CPU, with how many there are.

    Nodes of functions count once a call; a node on constants alone runs when the file is opened, and does not count.

    Args:
        model: from :func:`~.fold.fixed`: shapes of all values are known.
    """
    calls: Counter[tuple[str, str, str]] = Counter()
    for node in model.graph.node:
        calls[node.domain, node.op_type, node.overload] += 1
    found: Counter[str] = Counter()
    for block in blocks(model):
        times = 1 if block.key is None else calls[block.key]
        for node in block.nodes:
            if node.domain not in ("", "ai.onnx") or node.op_type == "Constant":
                continue
            if all(name in block.constants for name in node.input if name):
                continue
            kind = block.types.get(node.input[1 if node.op_type == "Where" else 0])
            if node.op_type not in KERNELS.get(0 if kind is None else kind.tensor_type.elem_type, ()):
                found[node.op_type] += times
    return found
