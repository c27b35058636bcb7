"""Runs single nodes of a graph, each in an ONNX Runtime session of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.errors import UnsupportedError, first_line
from tsmerge_export.onnx_model.weights import array_of

Array = NDArray[Any]

# Some kernels want small operands (axes, sizes) to be constants; copying large ones would double the weights.
_EMBEDDED = 1024


def names_used(node: onnx.NodeProto) -> list[str]:
    """Values that a node reads, those that its subgraphs capture included."""
    used = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            made = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
            for inner in graph.node:
                used.extend(name for name in names_used(inner) if name not in made)
                made.update(inner.output)
            used.extend(value.name for value in graph.output if value.name not in made)
    return list(dict.fromkeys(used))


class NodeRunner:
    """Runs nodes of one model; sessions are made on first use and kept.

    Args:
        model: where the nodes are from. constants: its initializers by name.
        moving: weights may be others in the next run, so that no session keeps any.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        constants: Mapping[str, Array],
        threads: int | None = None,
        *,
        moving: bool = False,
    ) -> None:
        self._opsets, self._ir_version = list(model.opset_import), model.ir_version
        self._constants, self._moving = constants, moving
        self._sessions: dict[str, tuple[ort.InferenceSession, list[str]]] = {}
        self._threads = threads

    def run(self, node: onnx.NodeProto, values: Mapping[str, Array]) -> list[Array | None]:
        """The outputs of a node, None for those it leaves out.

        Args:
            node: its name is the key of its session. values: at least all that it reads.
        """
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            return [self.value_of(node.attribute[0].t)]
        if node.op_type == "Identity":
            return [values[node.input[0]]]
        if node.name not in self._sessions:
            try:
                self._sessions[node.name] = self._open(node, values)
            except Exception:  # ONNX Runtime has no common base class
                self._sessions[node.name] = self._open_ranked(node, values)
        session, feeds = self._sessions[node.name]
        found = iter(session.run(None, {name: values[name] for name in feeds}))
        return [next(found) if name else None for name in node.output]

    def value_of(self, tensor: onnx.TensorProto) -> Array:
        """A tensor of the graph itself as the nodes get it."""
        return array_of(tensor)

    def _open_ranked(
        self, node: onnx.NodeProto, values: Mapping[str, Array]
    ) -> tuple[ort.InferenceSession, list[str]]:
        """For operators that want to know how long a vector of sizes is, such as Resize."""
        try:
            return self._open(node, values, ranked=True)
        except Exception as error:  # as above
            raise UnsupportedError(
                f"node {node.name!r} ({node.op_type}): ONNX Runtime does not run it alone, as the reference that "
                f"proves the result has to: {first_line(error)}"
            ) from error

    def _open(
        self, node: onnx.NodeProto, values: Mapping[str, Array], ranked: bool = False
    ) -> tuple[ort.InferenceSession, list[str]]:
        model, feeds = self._alone(node, values, ranked)
        plain = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return open_session(model, self._threads, level=plain, arena=False), feeds

    def _alone(
        self, node: onnx.NodeProto, values: Mapping[str, Array], ranked: bool = False
    ) -> tuple[onnx.ModelProto, list[str]]:
        """A model of one node, and the values that it is fed."""
        used = names_used(node)
        embedded = {name: self._constants[name] for name in used if name in self._constants}
        embedded = {
            name: value
            for name, value in embedded.items()
            if value.size <= _EMBEDDED and (value.dtype.kind != "f" or ranked or not self._moving)
        }
        feeds = [name for name in used if name not in embedded]
        graph = onnx.GraphProto(name="node")
        graph.node.append(node)
        for name in feeds:
            value = values[name]
            kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
            sizes = value.shape if value.ndim == 1 and value.dtype.kind == "i" else [None] * value.ndim
            shape = sizes if ranked else None
            graph.input.append(onnx.helper.make_tensor_value_info(name, kind, shape))
        graph.initializer.extend(
            onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in embedded.items()
        )
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name)
        model = onnx.ModelProto(ir_version=self._ir_version, graph=graph)
        model.opset_import.extend(self._opsets)
        return model, feeds
