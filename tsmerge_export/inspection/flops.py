"""Floating-point operations of an ONNX file at given input sizes, by running it once.

Only matrix products count (MatMul and Gemm, quantised or not: 2*m*n*k, times the batch dims): in a transformer they are
nearly all.
Shapes are read at run time from added Shape nodes, so that data-dependent and unnamed dims need no inference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tsmerge_export.checkpoint.onnx_checks import check_model
from tsmerge_export.console.missing import how_to_install
from tsmerge_export.errors import MissingDependencyError, UnsupportedError, UsageError, first_line
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.ops.schema import DOMAIN
from tsmerge_export.precision.half import runnable
from tsmerge_export.settings.run_time import INPUT, METADATA
from tsmerge_export.settings.usual_sizes import USUAL_SIZES
from tsmerge_export.untrusted.onnx_scan import check_calls, scan

_BLOCKS = "MatMulNBits"
_PREFIX = "tsmerge_shape_of/"
_ALL_TOKENS = 1_000_000_000
_MOST_NUMBERS = 2**28  # in one input
# Products that are not counted; a file that has them says so.
UNCOUNTED = ("Attention", "Conv", "ConvTranspose", "Einsum", "GroupQueryAttention", "MultiHeadAttention")


@dataclass(frozen=True)
class Flops:
    """Count at one input size.

    Attributes:
        model: products of the model itself. merge: products inside the ``tsmerge`` functions.
        shapes: shape of every tensor that was asked for, by value name.
        uncounted: op types in the file whose products are not in the count.
    """

    model: int
    merge: int
    shapes: dict[str, tuple[int, ...]]
    uncounted: tuple[str, ...]

    @property
    def total(self) -> int:
        """Model and merging together."""
        return self.model + self.merge


def load_graph(path: Path) -> onnx.ModelProto:
    """Read an ONNX file with its external data.

    Raises:
        UsageError: no ONNX file, or a malformed one. UnsupportedError: it grows too large, or is of no tensors.
    """
    check_calls(scan(path), str(path))
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except Exception as error:  # protobuf and onnx raise errors of several unrelated classes
        reason = first_line(error)
        raise UsageError(f"{path}: cannot be read as ONNX: {reason}") from error
    if not model.graph.node:
        raise UsageError(f"{path}: truncated or not an ONNX file (it has no operators)")
    check_model(model, str(path))
    return onnx_weights.read(path, model)


def feeds(model: onnx.ModelProto, batch: int, length: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Inputs of a size: floats random, integers and booleans 1 (a token id that exists, a mask that keeps all).

    The dim called ``batch``, or a first dim of another name, is the batch; those of a decoder's samples and caches, of
    series in a group and of horizons in patches have usual sizes; every other dynamic dim is the length.
    """
    rng = np.random.default_rng(seed)
    constants = {tensor.name for tensor in model.graph.initializer}
    if any(entry.key == METADATA for entry in model.metadata_props):
        constants.add(INPUT)  # a session knows its own
    out: dict[str, NDArray[Any]] = {}
    for value in model.graph.input:
        if value.name in constants:
            continue
        kind = value.type.tensor_type
        dims = []
        for axis, dim in enumerate(kind.shape.dim):
            fixed = dim.HasField("dim_value")
            is_batch = dim.dim_param == "batch" or (axis == 0 and dim.dim_param != "length")
            usual = USUAL_SIZES.get(dim.dim_param, length)
            dims.append(dim.dim_value if fixed else batch if is_batch else usual)
        try:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        except (KeyError, ValueError):
            dtype = np.dtype(object)
        if dtype.kind not in "fiub" or not value.type.HasField("tensor_type"):
            raise UnsupportedError(f"input {value.name!r} holds neither numbers nor booleans")
        if math.prod(dims) > _MOST_NUMBERS:
            raise UnsupportedError(
                f"input {value.name!r} would hold {math.prod(dims)} numbers; choose a smaller size"
            )
        floating = np.issubdtype(dtype, np.floating)
        out[value.name] = (rng.standard_normal(dims) if floating else np.ones(dims)).astype(dtype)
    return out


def run_shapes(
    model: onnx.ModelProto,
    names: Sequence[str],
    inputs: Mapping[str, NDArray[Any]],
    threads: int | None = None,
) -> dict[str, tuple[int, ...]]:
    """Shapes of intermediate values, from one run in ONNX Runtime without optimisation.

    Args:
        model: left as it is. names: value names. inputs: as :func:`feeds` makes them.

    Raises:
        UnsupportedError: ONNX Runtime cannot run the model at this size.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime as ort

        from tsmerge_export.backends.onnxruntime.direct import open_session
    except ImportError:
        raise MissingDependencyError(how_to_install("onnxruntime")) from None
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer if t.name in set(names)}
    wanted = sorted(set(names) - shapes.keys())
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    for name in wanted:
        copy.graph.node.append(onnx.helper.make_node("Shape", [name], [_PREFIX + name]))
        copy.graph.output.append(
            onnx.helper.make_tensor_value_info(_PREFIX + name, onnx.TensorProto.INT64, [None])
        )
    if not wanted:
        return shapes
    try:
        plain = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = open_session(runnable(copy), threads, level=plain)
        values = session.run(None, dict(inputs))
    except Exception as error:  # ONNX Runtime has no common base class
        sizes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
        reason = first_line(error)
        raise UnsupportedError(f"the model does not run on {sizes}: {reason}") from error
    return shapes | {name: tuple(map(int, value)) for name, value in zip(wanted, values, strict=True)}


def _products(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [
        node
        for node in model.graph.node
        if (node.op_type in ("MatMul", "Gemm", "MatMulInteger") and node.domain in ("", "ai.onnx"))
        or (node.op_type == _BLOCKS and node.domain == "com.microsoft")
    ]


def _flops_of(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    a, b = shapes[node.input[0]], shapes[node.input[1]]
    if node.op_type == _BLOCKS:  # the weight is packed
        flags = {attribute.name: attribute.i for attribute in node.attribute}
        return 2 * math.prod(a[:-1]) * flags["K"] * flags["N"]
    if node.op_type == "Gemm":
        flags = {attribute.name: attribute.i for attribute in node.attribute}
        m, k = a[::-1] if flags.get("transA") else a
        n = b[0] if flags.get("transB") else b[1]
        return 2 * m * n * k
    a = (1, *a) if len(a) == 1 else a
    b = (*b, 1) if len(b) == 1 else b
    batch = np.broadcast_shapes(a[:-2], b[:-2])
    return 2 * math.prod(batch) * a[-2] * b[-1] * a[-1]


def _count(
    model: onnx.ModelProto, inputs: Mapping[str, NDArray[Any]], also: Sequence[str]
) -> tuple[int, Any]:
    nodes = _products(model)
    names = [name for node in nodes for name in node.input[:2]] + list(also)
    shapes = run_shapes(model, names, inputs)
    return sum(_flops_of(node, shapes) for node in nodes), shapes


def count(model: onnx.ModelProto, inputs: Mapping[str, NDArray[Any]], also: Sequence[str] = ()) -> Flops:
    """Count the matrix products of one run.

    Args:
        model: an ONNX model; left as it is.
        inputs: see :func:`feeds`.
        also: names of further values whose shapes are wanted.

    Returns:
        :class:`Flops`. Products inside ``tsmerge`` functions are those of the inlined model less the outer ones.

    Raises:
        UnsupportedError, MissingDependencyError: as :func:`run_shapes`.
    """
    outer, shapes = _count(model, inputs, also)
    inner = 0
    if any(node.op_type in ("MatMul", "Gemm") for function in model.functions for node in function.node):
        from onnx.inliner import inline_local_functions

        total, _ = _count(inline_local_functions(model), inputs, ())
        inner = total - outer
    types = {node.op_type for node in model.graph.node}
    return Flops(outer, inner, shapes, tuple(op for op in UNCOUNTED if op in types))


def without_merging(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose merge nodes remove nothing, as they are to leave more tokens than there are: the same graph."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        if node.domain == DOMAIN:
            for attribute in node.attribute:
                if attribute.name == "min_tokens":
                    attribute.i = _ALL_TOKENS
    return copy


def of_one_shape(model: onnx.ModelProto) -> bool:
    """Whether a file's functions were made for one shape, as their values' shapes say: nothing else runs in it."""
    return any(function.value_info for function in model.functions)


def savings(
    model: onnx.ModelProto,
    inputs: Mapping[str, NDArray[Any]],
    also: Sequence[str] = (),
    *,
    merges: bool = True,
) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """Products with and without merging, over the same inputs.

    Args:
        model: a file with merge nodes; without (``merges=False``) there is nothing to compare with. inputs, also: as
            for :func:`count`.

    Returns:
        JSON-ready ``unmerged``, ``merged`` (the model's own products), ``merge_nodes``, ``ratio`` (``unmerged`` to the
        sum of the others) and ``uncounted``; and the shapes that were asked for.

    Raises:
        UnsupportedError, MissingDependencyError: as :func:`run_shapes`.
    """
    merged = count(model, inputs, also)
    # The same file with nothing removed is the unmerged model.
    unmerged = count(without_merging(model), inputs).model if merges else None
    found = {
        "unmerged": unmerged,
        "merged": merged.model,
        "merge_nodes": merged.merge,
        "ratio": None if unmerged is None or not merged.total else unmerged / merged.total,
        "uncounted": list(merged.uncounted),
    }
    return found, merged.shapes


def shrinking_share(merged: onnx.ModelProto, inputs: Mapping[str, NDArray[Any]]) -> float:
    """Share of the unmerged model's FLOPs in products that merging makes smaller, 0 to 1.

    The rest (what runs before the first merge, heads, a decoder's own tokens) stays as it is however much merges.

    Args:
        merged: a file with merge nodes. inputs: see :func:`feeds`.
    """
    nodes = _products(merged)
    names = [name for node in nodes for name in node.input[:2]]
    after, before = (run_shapes(model, names, inputs) for model in (merged, without_merging(merged)))
    pairs = [(_flops_of(node, before), _flops_of(node, after)) for node in nodes]
    whole = sum(old for old, _ in pairs)
    return sum(old for old, new in pairs if new < old) / whole if whole else 0.0
