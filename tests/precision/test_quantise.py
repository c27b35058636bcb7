"""What ONNX Runtime's quantiser writes is what the formulas say, and only products with a weight are touched."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import onnx
import pytest

from tests import artefacts
from tests.precision import formulas
from tests.precision.networks import INNER, PRODUCTS, WIDTH, network
from tests.precision.networks import low_of as low
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.precision.products import kept, products, refuse_quantised
from tsmerge_export.precision.quantise import as_products
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.precision import QUANTISED, Precision

LOW = QUANTISED
BLOCKS = {4: 32, 8: 32}


def x() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((5, WIDTH)).astype(np.float32)


def outputs(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    session = open_session(model, 1)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": x()}), strict=True))


def test_which_products() -> None:
    model = as_products(network())
    assert {product.node: product.weight for product in products(model)} == PRODUCTS
    assert {tensor.name for tensor in model.graph.initializer} == {"w", "thin", "v_Transposed", "bias"}
    for name, value in outputs(network()).items():
        assert np.allclose(outputs(model)[name], value, atol=1e-4)
    assert kept([products(model)], ["out_MatMul"]) == [{"out_MatMul"}]
    # Both products of one weight: of a weight in 8 bits the quantiser gives the other what it dequantises.
    assert kept([products(model)], ["stack.0"]) == kept([products(model)], ["0"]) == [{"first", "second"}]
    assert kept([products(model)], ["second", "stack"]) == [{"first", "second"}]
    # Two files, in one of which the node is of another module.
    other = [replace(one, scopes=("head",)) for one in products(model) if one.node == "first"]
    assert kept([products(model), other], ["stack.0"]) == [{"first", "second"}, set()]
    assert kept([products(model), other], ["head"]) == [set(), {"first"}]
    for name in ("stack.1", "sta", "linear", "narrow", "values"):
        with pytest.raises(
            UsageError, match=rf"^--keep-precise {name}: .*there are stack\.0, second, out_MatMul"
        ):
            kept([products(model)], ["second", name])


def test_int8_by_channel_and_a_whole_layer() -> None:
    model = as_products(network())
    found = low("int8", model)
    written, floats = formulas.arrays(found), formulas.arrays(model)
    for weight in set(PRODUCTS.values()):
        numbers, scale = formulas.by_channel(floats[weight])
        assert np.array_equal(written[f"{weight}_quantized"], numbers)
        own = scale > 0
        assert np.allclose(written[f"{weight}_scale"][own], scale[own], rtol=1e-6)
        assert own.all() == (weight != "w")  # which has a column of zeros
        assert not written[f"{weight}_zero_point"].any()
    got, (numbers, scale) = outputs(found), formulas.by_channel(floats["w"])
    assert np.allclose(got["a"], formulas.dynamically(x(), numbers, scale), atol=1e-4)
    assert not np.allclose(got["a"], x() @ floats["w"], atol=1e-3)  # it is below float32 indeed
    assert np.allclose(got["a"], x() @ floats["w"], atol=0.2)


@pytest.mark.parametrize("kind", ["int8-weights", "int4-weights"])
def test_weights_alone_by_block_and_a_whole_layer(kind: str) -> None:
    bits = Precision(kind).bits
    model = as_products(network())
    found = low(kind, model)
    written, floats = formulas.arrays(found), formulas.arrays(model)
    back = {}
    for weight in set(PRODUCTS.values()):
        numbers, scale, zero = formulas.by_block(floats[weight], bits, BLOCKS[bits])
        packed = formulas.unpacked(written[f"{weight}_Q{bits}"], bits)[:, : len(numbers)]
        assert np.array_equal(packed.T, numbers), weight
        assert np.allclose(
            written[f"{weight}_scales"].reshape(len(packed), -1).T, scale[:: BLOCKS[bits]], rtol=1e-5
        )
        back[weight] = (numbers - zero) * scale
    got = outputs(found)
    assert np.allclose(got["a"], x() @ back["w"], atol=1e-4)
    assert np.allclose(got["c"], got["a"] @ back["w"] @ floats["thin"], atol=1e-2)
    assert np.abs(got["a"] - x() @ floats["w"]).max() > 1e-3
    names = [tensor.name for tensor in found.graph.initializer]
    assert len(names) == len(set(names))  # though two products have one weight


@pytest.mark.parametrize("kind", LOW)
def test_the_rest_is_as_it_was(kind: str) -> None:
    """Normalisation, softmax, products of two values and thin ones; notes of the exporter go, those of merging stay."""
    model = as_products(network())
    before = model.SerializeToString()
    model.graph.node[2].metadata_props.add(key="tsmerge.layer", value="7")
    found = low(kind, model)
    del model.graph.node[2].metadata_props[-1]
    assert model.SerializeToString() == before
    plain = {
        node.name for node in found.graph.node if node.op_type in ("MatMul", "Softmax", "Transpose", "Add")
    }
    assert plain >= {"narrow", "values", "mixed", "softmax", "turn", "out_Add"}
    assert kind == "int8-static" or not plain & set(PRODUCTS)
    notes = {entry.key for node in found.graph.node for entry in node.metadata_props}
    assert notes == {"tsmerge.layer"}
    only = low(kind, model, "second")
    assert {node.name for node in only.graph.node if node.op_type == "MatMul"} >= {
        "first",
        "out_MatMul",
        "values",
    }
    assert np.array_equal(outputs(only)["a"], outputs(model)["a"])
    assert outputs(only)["y"].shape == (5, INNER)


@pytest.mark.parametrize("kind", LOW)
def test_merging_stays_float32(kind: str) -> None:
    """Functions byte for byte, nodes one by one: their products hold no weight of the model."""
    merge = MergeConfig(ratio="1/4", k=2)
    model = as_products(onnx_weights.read(artefacts.built("bolt-tiny", merge).merged))
    found = low(kind, model)
    assert [f.SerializeToString() for f in found.functions] == [
        f.SerializeToString() for f in model.functions
    ]

    def merges(one: onnx.ModelProto) -> list[bytes]:
        nodes = [node for node in one.graph.node if node.domain == "tsmerge"]
        return [
            onnx.helper.make_node(
                n.op_type, n.input, n.output, overload=n.overload, domain=n.domain
            ).SerializeToString()
            + b"".join(a.SerializeToString() for a in n.attribute)
            for n in nodes
        ]

    assert len(merges(model)) > 2 and merges(found) == merges(model)
    count = {
        op: [sum(node.op_type == op for node in one.graph.node) for one in (model, found)]
        for op in (
            "Softmax",
            "ReduceMean",
            "Sqrt",
            "MatMul",
            "MatMulInteger",
            "MatMulNBits",
            "DequantizeLinear",
        )
    }
    own = len(products(model))
    assert count["Softmax"][0] == count["Softmax"][1] > 0 and count["ReduceMean"][0] == count["ReduceMean"][1]
    if kind == "int8-static":  # of each weight, and of what they read
        nodes = {product.node for product in products(model)}
        read = {node.input[0] for node in model.graph.node if node.name in nodes}
        assert count["MatMul"][0] == count["MatMul"][1]
        assert count["DequantizeLinear"][1] == own + len(read)
        return
    assert (
        count["MatMul"][0] - count["MatMul"][1] == own == count["MatMulInteger"][1] + count["MatMulNBits"][1]
    )


def test_nothing_is_logged_or_set_up(capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.level, list(root.handlers), root.manager.disable
    for kind in LOW:
        low(kind, as_products(network()))
    assert (root.level, list(root.handlers), root.manager.disable) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", LOW)
def test_a_quantised_file_is_refused(kind: str) -> None:
    refuse_quantised(network(), "m.onnx")
    with pytest.raises(
        UnsupportedError,
        match=r"^m.onnx: is quantised already \(it holds .*(MatMul|Quantize).*give the float32",
    ):
        refuse_quantised(low(kind, as_products(network())), "m.onnx")


def test_settings() -> None:
    for wrong in (
        {"kind": "int2"},
        {"keep": ("a",)},
        {"max_increase": 1.0},
        {"kind": "int8", "max_increase": -1.0},
        {"kind": "fp16", "keep": ("auto",)},
    ):
        with pytest.raises(UsageError):
            Precision(**wrong)
    assert Precision().flags() == [] and not Precision().low
    found = Precision("int8", ("auto", "a"))
    assert found.auto and found.named == ("a",) and found.kept_at == "fp32"
    asked = Precision("int4-weights", ("a", "b.c"), 1.5)
    assert asked.flags() == [
        "--precision",
        "int4-weights",
        "--keep-precise",
        "a,b.c",
        "--max-increase",
        "1.5%",
    ]
