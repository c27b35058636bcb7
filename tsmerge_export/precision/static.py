"""Products whose activations have scales from calibration: ``quantize_static``, in the form of QDQ."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tsmerge_export.errors import UnsupportedError
from tsmerge_export.precision.mix import mixed
from tsmerge_export.precision.ranges import Ranges, read_by
from tsmerge_export.untrusted.onnx_scan import STANDARD

#: Since it a ``DequantizeLinear`` takes a scale for each channel.
LEAST_OPSET = 13
_RESULT = "/product"


def quantised_static(model: onnx.ModelProto, nodes: Collection[str], ranges: Ranges) -> onnx.ModelProto:
    """A copy with some of its products between ``QuantizeLinear`` and ``DequantizeLinear``.

    The quantiser sees the products alone, each with what it reads as an input: in the whole graph it would round a
    value for all that read it, the residual and the merges among them. Results of products are not rounded.

    Args:
        model: as :func:`.quantise.as_products` gives it; it is not changed. nodes: names of products, at least one.
        ranges: of all that they read.

    Raises:
        UnsupportedError: the operator set is older than :data:`LEAST_OPSET`.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    opset = next((entry.version for entry in model.opset_import if entry.domain in STANDARD), 0)
    if opset < LEAST_OPSET:
        raise UnsupportedError(
            f"--precision int8-static: operator set {opset} has no scale for each channel; export the model with opset "
            f"{LEAST_OPSET} or newer"
        )
    read = read_by(model, nodes)
    given = {
        name: [{"rmin": np.float32(ranges[name][0]), "rmax": np.float32(ranges[name][1])}] for name in read
    }
    with tempfile.TemporaryDirectory(prefix="tsmerge-") as folder:
        alone, file = Path(folder) / "products.onnx", Path(folder) / "quantised.onnx"
        onnx.save(_alone(model, nodes), alone)
        quantize_static(
            alone, file, _Zeros(alone), quant_format=QuantFormat.QDQ, op_types_to_quantize=["MatMul"],
            per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            nodes_to_quantize=sorted(nodes),
            extra_options={"TensorQuantOverrides": given, "OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )  # fmt: skip
        low = onnx.load(file)
    for node in low.graph.node:
        node.output[:] = [name.removesuffix(_RESULT) for name in node.output]
    return mixed(model, low, nodes)


def _alone(model: onnx.ModelProto, nodes: Collection[str]) -> onnx.ModelProto:
    """Products and nothing else. What they read, ``[.., rows]`` in the model, are inputs ``[any, rows]``, even where it
    is what another makes, which has another name here."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    own = []
    for node in model.graph.node:
        if node.name in nodes:
            own.append(helper.make_node("MatMul", node.input, [node.output[0] + _RESULT], name=node.name))

    def info(name: str, size: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, size])

    used = {node.input[1]: weights[node.input[1]] for node in own}
    graph = helper.make_graph(
        own,
        "products",
        [*{node.input[0]: info(node.input[0], used[node.input[1]].dims[0]) for node in own}.values()],
        [info(node.output[0], used[node.input[1]].dims[1]) for node in own],
        [*used.values()],
    )
    sets = [entry for entry in model.opset_import if entry.domain in STANDARD]
    return helper.make_model(graph, opset_imports=sets, ir_version=model.ir_version)


class _Zeros:
    """A row of zeros for each input: the quantiser asks for values, though all ranges are given."""

    def __init__(self, file: Path) -> None:
        inputs = onnx.load(file).graph.input
        shapes = {value.name: (1, value.type.tensor_type.shape.dim[1].dim_value) for value in inputs}
        self._left = [{name: np.zeros(shape, np.float32) for name, shape in shapes.items()}]

    def get_next(self) -> dict[str, Any] | None:
        return self._left.pop() if self._left else None
