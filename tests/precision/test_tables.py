"""Tables that are looked up: rows by the quantiser's formulas, stored once where a product has them too."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.precision import formulas
from tests.precision.networks import low_of
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.precision import read_back
from tsmerge_export.precision.mix import mixed
from tsmerge_export.precision.products import kept, products, tables
from tsmerge_export.precision.quantise import as_products, quantised, twin_of
from tsmerge_export.precision.tables import stored_twice
from tsmerge_export.settings.precision import QUANTISED, Precision

ENTRIES, WIDTH = 200, 96
NODES = ["tied", "alone", "logits"]


def network() -> onnx.ModelProto:
    """``ids [B, N]`` -> rows of a table that is the weight of ``logits`` as well, transposed, of one that is not, and
    of one that is small."""
    rng = np.random.default_rng(0)
    weights = {
        "words": (rng.standard_normal((ENTRIES, WIDTH)) * rng.uniform(0.1, 9, (ENTRIES, 1))).astype(
            np.float32
        ),
        "others": rng.standard_normal((ENTRIES, WIDTH)).astype(np.float32),
        "small": rng.standard_normal((20, WIDTH)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["words", "ids"], ["a"], name="tied"),
        helper.make_node("Gather", ["others", "ids"], ["b"], name="alone", axis=0),
        helper.make_node("Gather", ["small", "marks"], ["c"], name="few"),
        helper.make_node("Transpose", ["words"], ["turned"], name="turn", perm=[1, 0]),
        helper.make_node("MatMul", ["b", "turned"], ["y"], name="logits"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "n"]) for name in ("ids", "marks")],
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", "n", None])
            for n in ("a", "b", "c", "y")
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


IDS = np.array([[0, 7, 199], [7, 33, 100]])


def outputs(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    session = open_session(model, 1)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {"ids": IDS, "marks": IDS % 20}), strict=True))


def low(kind: str, *nodes: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    model = twin_of(network())
    return model, low_of(kind, model, *(nodes or NODES))


def test_which_tables() -> None:
    model = twin_of(network())
    found = [*products(model), *tables(model)]
    assert [(one.node, one.weight, one.rows, one.columns, one.table) for one in found] == [
        ("logits", "words/transposed", WIDTH, ENTRIES, False),
        ("tied", "words/transposed", WIDTH, ENTRIES, True),
        ("alone", "others/transposed", WIDTH, ENTRIES, True),
    ]
    assert [tensor.name for tensor in stored_twice(model)] == ["words/transposed"]
    assert not any(node.op_type == "Transpose" for node in model.graph.node)
    assert kept([found], ["tied"]) == kept([found], ["logits"]) == [{"tied", "logits"}]
    for name, value in outputs(network()).items():
        assert np.allclose(outputs(model)[name], value, atol=1e-4)


@pytest.mark.parametrize("kind", QUANTISED)
def test_rows_by_the_formulas_and_each_number_once(kind: str) -> None:
    model, found = low(kind)
    floats, bits = formulas.arrays(model), Precision(kind).bits
    got = outputs(found)
    for table, result in (("words", "a"), ("others", "b")):
        if kind in ("int8", "int8-static"):
            numbers, scale = formulas.by_channel(floats[table].T)
            back = (numbers * scale).T
        else:
            numbers, scales, zeros = formulas.by_block(floats[table].T, bits, 32)
            back = ((numbers - zeros) * scales).T
        assert np.allclose(got[result], back[IDS], atol=1e-5), table
        assert np.abs(got[result] - floats[table][IDS]).max() > 1e-3
    assert np.array_equal(got["c"], outputs(model)["c"])
    large = [
        tensor for tensor in found.graph.initializer if np.prod(tensor.dims) * 8 / bits >= ENTRIES * WIDTH
    ]
    assert len(large) == 2 and {tensor.data_type for tensor in large} <= {TensorProto.INT8, TensorProto.UINT8}
    assert found.ByteSize() < network().ByteSize() * (0.3 if bits == 8 else 0.2) + 8_000 + small_bytes()
    reach = np.abs(got["b"] @ floats["words"].T)
    assert np.abs(got["y"] - got["b"] @ floats["words"].T).max() < 0.2 * reach.max()


def small_bytes() -> int:
    """What stays float32, and what few nodes and names take."""
    return 20 * WIDTH * 4


@pytest.mark.parametrize("kind", QUANTISED)
def test_what_the_quantiser_writes_is_read_back(kind: str) -> None:
    model, found = low(kind)
    for twin in (model, as_products(network())):
        assert read_back.faults(twin, found) == (3, [])
    end = "_scale" if kind in ("int8", "int8-static") else "_scales"
    for table in ("words", "others"):
        wrong = onnx.ModelProto.FromString(found.SerializeToString())
        tensor = next(one for one in wrong.graph.initializer if one.name == f"{table}/transposed{end}")
        value = numpy_helper.to_array(tensor).copy()
        value.reshape(-1)[5] *= 1.01
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        faults = read_back.faults(model, wrong)[1]
        assert len(faults) == (2 if table == "words" else 1) and "has a scale of" in faults[0]
    other = next(
        one for one in found.graph.node if one.op_type in ("DequantizeLinear", "GatherBlockQuantized")
    )
    other.input[1 if other.op_type == "DequantizeLinear" else 2] = "nowhere"
    assert "not written as ONNX Runtime's quantiser writes it" in read_back.faults(model, found)[1][0]


@pytest.mark.parametrize("kind", QUANTISED)
def test_some_of_them(kind: str) -> None:
    """What stays float32 is stored once, and a mixture computes what the quantiser's own file of it computes."""
    model, all_of_it = low(kind)
    for nodes in (["alone"], ["tied", "logits"]):
        own = low(kind, *nodes)[1]
        floats = {tensor.name for tensor in own.graph.initializer if tensor.data_type == TensorProto.FLOAT}
        assert ("words" in floats) == (nodes == ["alone"]) and "words/transposed" not in floats
        got, mix = outputs(own), outputs(mixed(model, all_of_it, nodes))
        assert all(np.array_equal(got[name], value) for name, value in mix.items())
    assert np.array_equal(outputs(low(kind, "alone")[1])["a"], outputs(network())["a"])


def test_four_bits_and_eight_for_what_hurts() -> None:
    first = low("int4-weights", "alone")[1]
    both = quantised(first, Precision("int8-weights"), ["tied", "logits"])
    assert read_back.faults(twin_of(network()), both) == (3, [])
    assert {weight.name: weight.bits for weight in read_back.weights(both)} == {
        "others/transposed": 4, "words/transposed": 8,
    }  # fmt: skip
