"""A quantised copy of a float32 file, by ONNX Runtime's own quantiser."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path

import onnx

from tsmerge_export.console.missing import how_to_install
from tsmerge_export.console.quiet import no_logging
from tsmerge_export.errors import MissingDependencyError, UnsupportedError
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.precision.ranges import Ranges
from tsmerge_export.precision.static import quantised_static
from tsmerge_export.precision.tables import fold_transposed, look_up, unfold_transposed
from tsmerge_export.settings.precision import INT8, Precision

#: Weights of an input channel that share a scale, by bits. A last block is stored whole: of 96 rows one of 64 leaves a
#: third of the numbers without a use.
BLOCKS = {4: 32, 8: 32}
_OURS = "tsmerge."


def as_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose ``Gemm`` nodes are products and sums, which are all that the quantiser knows; every product named.

    Raises:
        UnsupportedError: the weights are more than one message holds.
        MissingDependencyError: ONNX Runtime has no quantiser.
    """
    if onnx_weights.is_large(model):
        raise UnsupportedError(
            f"--precision: the weights are more than {onnx_weights.LIMIT / 1e9:.1f} GB, which the quantiser cannot "
            "take; leave it out"
        )
    with no_logging():
        try:
            from onnxruntime.quantization.onnx_model import ONNXModel
        except ImportError as error:
            raise MissingDependencyError(how_to_install(error.name or "onnxruntime")) from None
        copy = _copy(model)
        ONNXModel(copy).replace_gemm_with_matmul()
    taken: set[str] = set()
    for index, node in enumerate(_products(copy)):
        if not node.name or node.name in taken:
            node.name = f"product_{index}"
        taken.add(node.name)
    drop_unused(copy)
    return copy


def twin_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """:func:`as_products` with tables that are looked up named as products are, and what products read as a transposed
    weight made a weight: the form that is quantised."""
    copy = as_products(model)
    taken: set[str] = set()
    for index, node in enumerate(node for node in copy.graph.node if node.op_type == "Gather"):
        if not node.name or node.name in taken:
            node.name = f"table_{index}"
        taken.add(node.name)
    fold_transposed(copy)
    drop_unused(copy)
    return copy


def quantised(
    model: onnx.ModelProto, precision: Precision, nodes: Collection[str], ranges: Ranges | None = None
) -> onnx.ModelProto:
    """A copy with some of its products and tables quantised.

    ``int8`` is ``quantize_dynamic``, per output channel, symmetric: ``scale = max |w| / 127``, ``w = scale * q``, q
    from -127 to 127; activations get ``DynamicQuantizeLinear`` of the standard. ``int8-static`` has the same weights,
    and activations of unsigned 8 bits with ``scale = (high - low) / 255`` and ``zero = round(-low / scale)`` by their
    range, which holds 0. The others are ``MatMulNBits`` in blocks of rows, with a zero point: ``scale = (max - min) /
    (2^bits - 1)`` over the block and 0, ``w = scale * (q - zero)``. A table has what it would have as the weight of a
    product, of which its rows are the columns. What the exporter noted beside nodes (stack traces,
    module classes) stays behind, tsmerge's own notes do not.

    Args:
        model: as :func:`twin_of` gives it; it is not changed. nodes: names of products and tables.
        ranges: of what the products read, see :mod:`.ranges`; for ``int8-static``.

    Raises:
        UnsupportedError: ONNX Runtime's quantiser cannot do it.
        MissingDependencyError: it is not installed.
    """
    try:
        with no_logging():
            model = _copy(model)
            fold_transposed(model)  # of a model that is quantised in part
            looked_up = {node.name for node in model.graph.node if node.op_type == "Gather"} & set(nodes)
            made = _products_at(model, precision, set(nodes) - looked_up, ranges or {})
            if looked_up:
                weights = Precision(INT8) if precision.calibrated else precision
                made = look_up(made, looked_up, lambda table, own: _products_at(table, weights, own, {}))
    except (ImportError, AssertionError, TypeError) as error:
        name = getattr(error, "name", None) or ""
        if isinstance(error, ImportError) and not name.startswith("onnxruntime."):
            raise MissingDependencyError(how_to_install(name or "onnxruntime")) from None
        # An older version has not that part, or does not know an argument or the bits.
        raise UnsupportedError(
            f"--precision {precision.kind}: this ONNX Runtime's quantiser cannot do it ({error}); upgrade onnxruntime"
        ) from error
    drop_unused(made)
    unfold_transposed(made)
    leave_notes_out(made)
    return made


def _products_at(
    model: onnx.ModelProto, precision: Precision, nodes: Collection[str], ranges: Ranges
) -> onnx.ModelProto:
    if not nodes:  # an empty list is all of them to the quantiser
        return _copy(model)
    if precision.calibrated:
        return quantised_static(model, nodes, ranges)
    return _dynamic(model, nodes) if precision.kind == INT8 else _by_blocks(model, precision, nodes)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    out = onnx.ModelProto()
    out.CopyFrom(model)
    return out


def _dynamic(model: onnx.ModelProto, nodes: Collection[str]) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(prefix="tsmerge-") as folder:
        file = Path(folder) / "quantised.onnx"
        quantize_dynamic(
            model, file, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8,
            nodes_to_quantize=sorted(nodes),
        )  # fmt: skip
        return onnx.load(file)


def _by_blocks(model: onnx.ModelProto, precision: Precision, nodes: Collection[str]) -> onnx.ModelProto:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    copy = _copy(model)
    inside = (node for graph in onnx_weights.graphs(copy.graph) for node in graph.node)
    others = {node.name for node in inside if node.op_type == "MatMul"} - set(nodes)
    quantiser = MatMulNBitsQuantizer(
        copy, bits=precision.bits, block_size=BLOCKS[precision.bits], is_symmetric=False,
        nodes_to_exclude=sorted(others),
    )  # fmt: skip
    quantiser.process()
    made: onnx.ModelProto = quantiser.model.model
    # A weight of several products is written once for each, under one name.
    once = {tensor.name: tensor for tensor in made.graph.initializer}
    weights = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in once.values()]
    del made.graph.initializer[:]
    made.graph.initializer.extend(weights)
    return made


def _products(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [
        node for graph in onnx_weights.graphs(model.graph) for node in graph.node if node.op_type == "MatMul"
    ]


def drop_unused(model: onnx.ModelProto) -> None:
    """Take out the weights that nothing reads, in branches and loops neither, in place."""
    used = {name for graph in onnx_weights.graphs(model.graph) for node in graph.node for name in node.input}
    used |= {value.name for graph in onnx_weights.graphs(model.graph) for value in graph.output}
    stay = [tensor for tensor in model.graph.initializer if tensor.name in used]
    if len(stay) < len(model.graph.initializer):
        weights = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in stay]
        del model.graph.initializer[:]
        model.graph.initializer.extend(weights)


def leave_notes_out(model: onnx.ModelProto) -> None:
    """A small model's file is to a good part what its exporter noted."""
    for graph in onnx_weights.graphs(model.graph):
        for noted in (*graph.node, *graph.value_info, *graph.input, *graph.output):
            ours = [(e.key, e.value) for e in noted.metadata_props if e.key.startswith(_OURS)]
            del noted.metadata_props[:]
            for key, value in ours:
                noted.metadata_props.add(key=key, value=value)
        for tensor in graph.initializer:
            del tensor.metadata_props[:]
