"""What of a file can be quantised: products with a constant weight, and large tables that are looked up."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.untrusted.onnx_scan import STANDARD

#: Operators of a file that is quantised already.
QUANTISED = frozenset(
    {
        "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "GatherBlockQuantized", "MatMulInteger",
        "MatMulNBits", "QLinearConv", "QLinearMatMul", "QuantizeLinear",
    }
)  # fmt: skip
#: Fewer rows or columns than this: a table of frequencies or a projection to a few numbers. A quarter of next to
#: nothing is saved, and positions or scales of a whole series may hang on it.
LEAST = 16
#: Fewer numbers than this in a table that is looked up: biases by distance, or the embedding of a few marks.
LEAST_TABLE = 2**14
#: Behind the name of a table: the same as the weight of a product.
TRANSPOSED = "/transposed"
_SCOPES = "pkg.torch.onnx.name_scopes"
_SHOWN = 3


@dataclass(frozen=True)
class Product:
    """A product with a constant weight, or a table that is looked up, as if it were one.

    Attributes:
        node: name of the node. weight: of the initializer ``[rows, columns]``; a table and a product that read the same
            have the same.
        scopes: modules that it is in, outermost first, where the exporter says so.
        table: whether it is a ``Gather`` of a table ``[columns, rows]``.
    """

    node: str
    weight: str
    rows: int
    columns: int
    scopes: tuple[str, ...] = ()
    table: bool = False

    def called(self, name: str) -> bool:
        """Whether a name is the node's, or a part of the path of a module or scope (``block.0`` of ``t5.block.0``)."""
        asked, paths = (f".{name.replace('/', '.').strip('.')}.", (*self.scopes, self.node.replace("/", ".")))
        return name == self.node or any(asked in f".{path}." for path in paths)


def _floats(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The dims of the main graph's float32 weights, by name."""
    return {
        tensor.name: tuple(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }


def products(model: onnx.ModelProto) -> list[Product]:
    """The products of the main graph that can be quantised, in its order.

    Products inside functions are those of merging; inside branches and loops they are left alone.
    """
    weights, found = _floats(model), []
    for node in model.graph.node:
        if node.op_type != "MatMul" or node.domain not in STANDARD or node.input[1] not in weights:
            continue
        dims = weights[node.input[1]]
        if len(dims) == 2 and min(dims) >= LEAST:
            found.append(Product(node.name, node.input[1], dims[0], dims[1], _scopes(node)))
    return found


def tables(model: onnx.ModelProto) -> list[Product]:
    """The tables of the main graph that can be quantised: large ones, and those that are a product's weight as well."""
    weights, found = _floats(model), []
    for node in model.graph.node:
        dims = weights.get(node.input[0], ()) if node.op_type == "Gather" else ()
        if len(dims) != 2 or node.domain not in STANDARD or min(dims) < LEAST:
            continue
        weight = node.input[0] + TRANSPOSED
        by_column = any(attribute.name == "axis" and attribute.i for attribute in node.attribute)
        if not by_column and (weight in weights or dims[0] * dims[1] >= LEAST_TABLE):
            found.append(Product(node.name, weight, dims[1], dims[0], _scopes(node), table=True))
    return found


def _scopes(node: onnx.NodeProto) -> tuple[str, ...]:
    noted = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
    try:
        names = ast.literal_eval(noted)
    except (ValueError, SyntaxError):
        return ()
    # The last is the function that was called, of the same name everywhere.
    return tuple(name for name in names[:-1] if isinstance(name, str) and name)


def kept(found: Sequence[Sequence[Product]], names: Sequence[str]) -> list[set[str]]:
    """The nodes that ``names`` keep float32, of every file of a model: files name their nodes alike.

    With a product all others of its weight are kept: the weight is stored once, and in float32.

    Raises:
        UsageError: a name that fits no product.
    """
    flat = [product for each in found for product in each]
    for name in names:
        if not any(product.called(name) for product in flat):
            some = ", ".join(
                product.scopes[-1] if product.scopes else product.node for product in flat[:_SHOWN]
            )
            raise UsageError(
                f"--keep-precise {name}: no product with a weight is called so or inside it; there are {some}, .."
            )
    out = []
    for each in found:
        stay = {product.weight for product in each if any(product.called(name) for name in names)}
        out.append({product.node for product in each if product.weight in stay})
    return out


def refuse_quantised(model: onnx.ModelProto, source: str) -> None:
    """Raises UnsupportedError for a file that is quantised already."""
    present = {node.op_type for graph in onnx_weights.graphs(model.graph) for node in graph.node}
    there = sorted(present & QUANTISED)
    if there:
        raise UnsupportedError(
            f"{source}: is quantised already (it holds {', '.join(there)}); give the float32 model, or leave "
            "--precision out"
        )
