"""Half precision: which weights and products of a float32 file can be fp16 or bf16, and a copy where they are.

Values between products stay float32: sums, normalisation, softmax, the residual, and all of merging, whose nodes read
and write what they did before. A product casts what it reads, and its result is cast back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tsmerge_export.errors import UnsupportedError
from tsmerge_export.onnx_model.weights import array_of
from tsmerge_export.precision.products import LEAST, Product
from tsmerge_export.precision.quantise import drop_unused, leave_notes_out
from tsmerge_export.untrusted.onnx_scan import STANDARD

#: Element types, by kind of precision.
ELEMENTS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
#: What lies between a product of queries and keys and its softmax, or a softmax and the product with the values.
_BETWEEN = frozenset(
    {
        "Add", "Cast", "Div", "Dropout", "Expand", "Identity", "Max", "Min", "Mul", "Reshape", "Squeeze", "Sub", "Tanh",
        "Transpose", "Unsqueeze", "Where",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Halves:
    """What of a file becomes half.

    Attributes:
        products: names of the product nodes. stored: of nodes whose weight is stored in half, and whose product is
            float32. tables: names of ``Gather`` nodes that look up rows of a weight.
        attention: of ``products``, those of two values: queries with keys, or their softmax with the values.
    """

    products: frozenset[str]
    stored: frozenset[str]
    tables: frozenset[str]
    attention: frozenset[str]

    @property
    def touched(self) -> int:
        """Nodes that are not as in float32."""
        return len(self.products) + len(self.stored) + len(self.tables)


def halves(
    model: onnx.ModelProto, found: Sequence[Product], kept: Collection[str], precise: Sequence[str]
) -> Halves:
    """What can be half.

    Args:
        model: as :func:`.quantise.as_products` gives it. found: its :func:`.products.products`.
        kept: names of nodes that stay as they are.
        precise: modules, by a part of their path, whose products are float32 because their results may be beyond fp16.
    """
    weighted = {product.node for product in found}
    stored = {one.node for one in found if any(one.called(name) for name in precise)} - set(kept)
    attention = {name for name in _attention(model) if name not in weighted} - set(kept)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    tables = {
        node.name
        for node in model.graph.node
        if node.op_type == "Gather" and node.domain in STANDARD and node.name not in kept
        and not any(attribute.name == "axis" and attribute.i for attribute in node.attribute)
        and _is_matrix(weights.get(node.input[0]))
    }  # fmt: skip
    return Halves(
        frozenset(weighted - set(kept) - stored | attention), frozenset(stored), frozenset(tables),
        frozenset(attention),
    )  # fmt: skip


def _is_matrix(tensor: onnx.TensorProto | None) -> bool:
    return (
        tensor is not None
        and tensor.data_type == TensorProto.FLOAT
        and len(tensor.dims) == 2
        and min(tensor.dims) >= LEAST
    )


def _attention(model: onnx.ModelProto) -> Iterator[str]:
    """The float32 products of two values that end in a softmax, or begin with one."""
    graph = model.graph
    made = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    constants = {tensor.name for tensor in graph.initializer}
    other = {
        value.name
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.elem_type not in (TensorProto.UNDEFINED, TensorProto.FLOAT)
    }
    seen: set[int] = set()

    def before(node: onnx.NodeProto) -> list[onnx.NodeProto]:
        return [made[name] for name in node.input if name in made]

    def behind(node: onnx.NodeProto) -> list[onnx.NodeProto]:
        return [reader for name in node.output for reader in readers.get(name, [])]

    for softmax in graph.node:
        if softmax.op_type != "Softmax":
            continue
        for step in (before, behind):
            for node in _first_products(softmax, step, seen):
                names = (*node.input, *node.output)
                if not constants & set(node.input) and not other & set(names):
                    yield node.name


def _first_products(
    start: onnx.NodeProto, step: Callable[[onnx.NodeProto], list[onnx.NodeProto]], seen: set[int]
) -> Iterator[onnx.NodeProto]:
    """The products next to a node in a direction."""
    todo, been = step(start), set()
    while todo:
        node = todo.pop()
        if id(node) in been or node.domain not in STANDARD:
            continue
        been.add(id(node))
        if node.op_type == "MatMul":
            if id(node) not in seen:
                seen.add(id(node))
                yield node
        elif node.op_type in _BETWEEN:
            todo += step(node)


def halved(model: onnx.ModelProto, kind: str, which: Halves) -> onnx.ModelProto:
    """A copy in half. Weights are rounded to the nearest.

    Args:
        model: as :func:`.quantise.as_products` gives it; it is not changed. kind: ``fp16`` or ``bf16``.

    Raises:
        UnsupportedError: a weight is beyond the range of fp16.
    """
    element = ELEMENTS[kind]
    out = onnx.ModelProto()
    out.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in out.graph.initializer}
    fresh: dict[str, onnx.TensorProto] = {}
    made: set[str] = set()
    nodes: list[onnx.NodeProto] = []

    def low(name: str) -> str:
        """The name of a value in half."""
        there = f"{name}/{kind}"
        if name in weights:
            if there not in fresh:
                fresh[there] = _rounded(weights[name], there, kind)
        elif there not in made:
            made.add(there)
            nodes.append(_cast(name, there, element))
        return there

    for node in out.graph.node:
        full = node.output[0]
        if node.name in which.products:
            for slot, name in enumerate(node.input):
                node.input[slot] = low(name)
            node.output[0] = f"{full}/{kind}"
        elif node.name in which.tables:
            node.input[0] = low(node.input[0])
            node.output[0] = f"{full}/{kind}"
        elif node.name in which.stored:
            there = low(node.input[1])
            wide = f"{there}/float"
            if wide not in made:
                made.add(wide)
                nodes.append(_cast(there, wide, TensorProto.FLOAT))
            node.input[1] = wide
        nodes.append(node)
        if node.output[0] != full:
            made.add(node.output[0])  # who wants it in half has it
            nodes.append(_cast(node.output[0], full, TensorProto.FLOAT))
    del out.graph.node[:]
    out.graph.node.extend(nodes)
    out.graph.initializer.extend(fresh.values())
    drop_unused(out)
    leave_notes_out(out)
    return out


def _cast(name: str, to: str, element: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [name], [to], name=f"{to}/cast", to=element)


def _rounded(tensor: onnx.TensorProto, name: str, kind: str) -> onnx.TensorProto:
    with np.errstate(over="ignore"):
        values = array_of(tensor).astype(helper.tensor_dtype_to_np_dtype(ELEMENTS[kind]))
    if kind == "fp16" and not np.isfinite(values).all():
        raise UnsupportedError(
            f"--precision fp16: weight {tensor.name!r} has numbers beyond 65,504, the largest of fp16; use bf16"
        )
    return numpy_helper.from_array(values, name)


def runnable(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, or where it has weights in bf16 a copy that a CPU runs, see :func:`in_float32`."""
    low = any(tensor.data_type == TensorProto.BFLOAT16 for tensor in model.graph.initializer)
    return in_float32(model, "bf16") if low else model


def in_float32(model: onnx.ModelProto, kind: str) -> onnx.ModelProto:
    """A copy of a file in half that computes its products in float32, of what they read rounded to half, and rounds
    their results: what a unit with float32 sums gives, on a runtime without such products.

    ONNX Runtime's CPU provider has none: of fp16 it leaves the rounding between products out, bf16 it refuses.
    """
    element = ELEMENTS[kind]
    out = onnx.ModelProto()
    out.CopyFrom(model)
    low = {tensor.name for tensor in out.graph.initializer if tensor.data_type == element}
    low |= {
        node.output[0]
        for node in out.graph.node
        if node.op_type == "Cast" and any(a.name == "to" and a.i == element for a in node.attribute)
    }
    nodes: list[onnx.NodeProto] = []
    made: set[str] = set()
    for node in out.graph.node:
        if node.op_type != "MatMul" or not all(name in low for name in node.input):
            nodes.append(node)
            continue
        for slot, name in enumerate(node.input):
            wide = f"{name}/wide"
            if wide not in made:
                made.add(wide)
                nodes.append(_cast(name, wide, TensorProto.FLOAT))
            node.input[slot] = wide
        result = node.output[0]
        low.add(result)
        node.output[0] = f"{result}/sum"
        nodes += [node, _cast(node.output[0], result, element)]
    del out.graph.node[:]
    out.graph.node.extend(nodes)
    return out


def rounded_weights(model: onnx.ModelProto, which: Halves) -> Iterator[tuple[npt.NDArray[np.float32], bool]]:
    """The float32 weights that become half, as the file has them (``[rows, columns]`` of a product, ``[entries,
    width]`` of a table), and whether the product is in half, too."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.name in which.tables:
            yield array_of(weights[node.input[0]]), True
        elif node.name in which.stored or (node.name in which.products and node.input[1] in weights):
            yield array_of(weights[node.input[1]]), node.name in which.products


def faults(twin: onnx.ModelProto, low: onnx.ModelProto, kind: str) -> tuple[int, list[str]]:
    """What of a file in half is not its float32 twin with weights rounded to the nearest, and casts.

    Everything else must be the twin's: nodes in their order, attributes, functions, inputs, outputs, other weights.

    Args:
        twin: as :func:`.quantise.as_products` gives it.

    Returns:
        How many weights were compared, and a line for each that is off.
    """
    element = ELEMENTS[kind]
    bare = onnx.ModelProto()
    bare.CopyFrom(twin)
    leave_notes_out(bare)
    theirs = {tensor.name: tensor for tensor in bare.graph.initializer}
    out: list[str] = []
    count, same = 0, dict[str, str]()
    found: list[onnx.NodeProto] = []
    for tensor in low.graph.initializer:
        name = tensor.name.removesuffix(f"/{kind}")
        if tensor.data_type != element or tensor.name == name:
            if name not in theirs or tensor.SerializeToString() != theirs[name].SerializeToString():
                out.append(f"weight {name!r} is not that of the float32 file")
            continue
        count += 1
        same[tensor.name] = name
        if name not in theirs or not _nearest(array_of(theirs[name]), array_of(tensor)):
            out.append(f"weight {name!r} is not that of the float32 file, rounded to {kind}")
    for node in low.graph.node:
        to = next((a.i for a in node.attribute if a.name == "to"), 0) if node.op_type == "Cast" else 0
        there = node.output[0] if node.output else ""
        if to == element and there.endswith(f"/{kind}"):
            same[there] = node.input[0]
        elif to == TensorProto.FLOAT and node.input[0].endswith(f"/{kind}"):
            same[there] = same.get(node.input[0], there)
            if node.input[0] not in same:  # the result of a product
                found[-1].output[0] = there if found[-1].output[0] == node.input[0] else ""
                same[node.input[0]] = there
        else:
            found.append(_resolved(node, same))
    for mine, own in zip(bare.graph.node, found, strict=False):
        if mine.SerializeToString() != own.SerializeToString():
            out.append(f"node {own.name!r} ({own.op_type}) is not that of the float32 file")
            break
    if len(bare.graph.node) != len(found):
        out.append(f"{len(found)} nodes besides casts, the float32 file has {len(bare.graph.node)}")
    for part, one, other in _rest(bare, low):
        if one != other:
            out.append(f"the {part} are not those of the float32 file")
    return count, out


def _nearest(twin: npt.NDArray[np.float32], low: npt.NDArray[np.generic]) -> bool:
    """Whether no number of the half type lies nearer, and of two that are as near it is the even one."""
    if twin.shape != low.shape:
        return False
    with np.errstate(over="ignore"):
        return bool(np.array_equal(twin.astype(low.dtype), low))


def _resolved(node: onnx.NodeProto, same: Mapping[str, str]) -> onnx.NodeProto:
    own = onnx.NodeProto()
    own.CopyFrom(node)
    own.input[:] = [same.get(name, name) for name in node.input]
    return own


def _rest(bare: onnx.ModelProto, low: onnx.ModelProto) -> Iterator[tuple[str, list[bytes], list[bytes]]]:
    """What is not touched, of both: what it is called, and its parts."""
    for name, of in (
        ("inputs", lambda model: model.graph.input),
        ("outputs", lambda model: model.graph.output),
        ("functions", lambda model: model.functions),
        ("notes", lambda model: model.metadata_props),
        ("operator sets", lambda model: model.opset_import),
    ):
        mine, own = ([part.SerializeToString() for part in of(model)] for model in (bare, low))
        yield name, mine, own
