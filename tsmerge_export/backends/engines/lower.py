"""Lowering for runtimes that plan shapes beforehand: the precision of products.

It starts from the portable file (merge nodes with functions), with functions of static shapes
(:mod:`tsmerge_export.backends.static_functions`) or without. ``Unmerge`` needs no plugin: its body is one GatherND of
whole rows, which TensorRT runs as one layer that reads and writes every byte once.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tsmerge_export.errors import UnsupportedError
from tsmerge_export.onnx_model.weights import graphs

#: Types of matrix products, by the name of ``--dtype``.
DTYPES = {
    "fp32": onnx.TensorProto.FLOAT,
    "fp16": onnx.TensorProto.FLOAT16,
    "bf16": onnx.TensorProto.BFLOAT16,
}
_PRODUCTS = ("MatMul", "Gemm")


def set_precision(model: onnx.ModelProto, dtype: str) -> onnx.ModelProto:
    """A copy whose matrix products are of a type, with casts around them; all else, merging too, stays float32.

    TensorRT is strongly typed: the file says the precision of every tensor. Sums, norms, softmax and the residual keep
    float32, since T5-like models overflow float16 there. Weights are stored in the type.

    Args:
        model: with ``tsmerge`` nodes; products inside their functions are not touched.
        dtype: a key of :data:`DTYPES`.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    if dtype == "fp32":
        return out
    element = DTYPES[dtype]
    weights = {tensor.name: tensor for tensor in out.graph.initializer}
    made: dict[str, str] = {}
    fresh: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    for node in out.graph.node:
        if node.op_type not in _PRODUCTS or node.domain not in ("", "ai.onnx"):
            nodes.append(node)
            continue
        for slot, name in enumerate(node.input):
            if name not in made:
                made[name] = f"{name}/{dtype}"
                tensor = weights.get(name)
                if tensor is not None and tensor.data_type == onnx.TensorProto.FLOAT:
                    fresh.append(_converted(tensor, made[name], element))
                else:
                    nodes.append(
                        helper.make_node("Cast", [name], [made[name]], name=f"{made[name]}/cast", to=element)
                    )
            node.input[slot] = made[name]
        result = node.output[0]
        node.output[0] = f"{result}/{dtype}"
        nodes.append(node)
        nodes.append(
            helper.make_node(
                "Cast", [node.output[0]], [result], name=f"{result}/cast", to=onnx.TensorProto.FLOAT
            )
        )
    del out.graph.node[:]
    out.graph.node.extend(nodes)
    used = {name for graph in graphs(out.graph) for node in graph.node for name in node.input}
    used |= {value.name for graph in graphs(out.graph) for value in graph.output}
    left = [tensor for tensor in out.graph.initializer if tensor.name in used]
    del out.graph.initializer[:]
    out.graph.initializer.extend([*left, *fresh])
    return out


def _converted(tensor: onnx.TensorProto, name: str, element: int) -> onnx.TensorProto:
    with np.errstate(over="ignore"):
        values = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(element))
    if element != onnx.TensorProto.BFLOAT16 and not np.isfinite(values).all():
        raise UnsupportedError(
            f"a weight of {tensor.name} is beyond the range of --dtype fp16; use bf16 or fp32"
        )
    return numpy_helper.from_array(values, name)
