"""Files in half are float32 files with rounded weights and products, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.precision import formulas
from tests.precision.networks import WIDTH, network
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.precision.half import (
    ELEMENTS,
    Halves,
    faults,
    halved,
    halves,
    in_float32,
    rounded_weights,
    runnable,
)
from tsmerge_export.precision.products import products
from tsmerge_export.precision.quantise import as_products

Floats = NDArray[np.float32]
#: Bits of the fraction, the one in front included.
BITS = {"fp16": 11, "bf16": 8}


def rounded(value: NDArray[np.floating], kind: str) -> Floats:
    """To the nearest number of so many bits, by arithmetic; within the range that both types have here."""
    fraction, exponent = np.frexp(value.astype(np.float64))
    return np.ldexp(np.rint(np.ldexp(fraction, BITS[kind])), exponent - BITS[kind]).astype(np.float32)


def model_and_halves(
    precise: tuple[str, ...] = (), kept: tuple[str, ...] = ()
) -> tuple[onnx.ModelProto, Halves]:
    model = as_products(network())
    return model, halves(model, products(model), kept, precise)


def x() -> Floats:
    return (np.random.default_rng(1).standard_normal((5, WIDTH)) / 8).astype(np.float32)


def outputs(model: onnx.ModelProto) -> dict[str, Floats]:
    session = open_session(model, 1)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": x()}), strict=True))


def expected(kind: str) -> dict[str, Floats]:
    """The network in numpy, every product of two rounded operands rounded."""
    floats = formulas.arrays(as_products(network()))

    def product(a: Floats, b: Floats) -> Floats:
        return rounded(rounded(a, kind) @ rounded(b, kind), kind)

    a = product(x(), floats["w"])
    b = product(a, floats["w"])
    scores = product(b, b.T)
    share = np.exp(scores - scores.max(axis=1, keepdims=True))
    e = product(share / share.sum(axis=1, keepdims=True), b)
    return {"a": a, "c": b @ floats["thin"], "y": product(e, floats["v_Transposed"]) + floats["bias"]}


@pytest.mark.parametrize("kind", ELEMENTS)
def test_products_weights_and_attention(kind: str) -> None:
    model, which = model_and_halves()
    assert which.attention == {"values", "mixed"} and not which.stored and not which.tables
    assert which.products == {"first", "second", "out_MatMul"} | which.attention
    low = halved(model, kind, which)
    stored = {tensor.name: tensor.data_type for tensor in low.graph.initializer}
    float32 = onnx.TensorProto.FLOAT
    assert stored == {
        f"w/{kind}": ELEMENTS[kind], f"v_Transposed/{kind}": ELEMENTS[kind], "thin": float32, "bias": float32,
    }  # fmt: skip
    found, full = outputs(in_float32(low, kind)), outputs(model)
    step = 2.0 ** -BITS[kind]  # a sum in another order may be rounded to the number beside
    for name, value in expected(kind).items():
        scale = np.abs(value).max()
        assert np.abs(found[name] - value).max() <= 4 * step * scale, name
    assert np.array_equal(found["a"], rounded(found["a"], kind))
    assert np.abs(found["a"] - full["a"]).max() > step / 4  # it is below float32 indeed
    weights = list(rounded_weights(model, which))  # of w, w again, and v
    assert [product for _, product in weights] == [True] * 3
    assert np.array_equal(weights[1][0], formulas.arrays(model)["w"])


def test_the_files_themselves_run() -> None:
    """fp16 in ONNX Runtime; bf16, which that refuses on a CPU, in onnx's evaluator, whose sums are in bf16."""
    model, which = model_and_halves()
    full = outputs(model)
    for kind, far in (("fp16", 2e-2), ("bf16", 1e-1)):
        low = halved(model, kind, which)
        if kind == "fp16":
            found = outputs(low)
        else:
            with pytest.raises(Exception, match="Could not find an implementation for MatMul"):
                open_session(low, 1)
            assert np.array_equal(outputs(runnable(low))["a"], outputs(in_float32(low, kind))["a"])
            names = [value.name for value in low.graph.output]
            found = dict(zip(names, ReferenceEvaluator(low).run(names, {"x": x()}), strict=True))
        for name, value in full.items():
            assert np.abs(found[name] - value).max() <= far * np.abs(value).max(), (kind, name)
    assert runnable(model) is model


def test_modules_whose_results_are_beyond_fp16() -> None:
    model, which = model_and_halves(("stack.0",), ("second",))
    assert which.stored == {"first"} and which.products == {"out_MatMul", "values", "mixed"}
    low = halved(model, "fp16", which)
    assert faults(model, low, "fp16") == (2, [])
    assert {t.name for t in low.graph.initializer} >= {
        "w",
        "w/fp16",
    }  # a product that is kept needs all of it
    got, weight = outputs(in_float32(low, "fp16"))["a"], formulas.arrays(model)["w"]
    assert np.allclose(got, x() @ rounded(weight, "fp16"), atol=1e-5)
    assert np.abs(got - x() @ weight).max() > 1e-4


def test_a_weight_beyond_fp16() -> None:
    model, which = model_and_halves()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    value = numpy_helper.to_array(weight).copy()
    value[1, 1] = 7e4
    weight.CopyFrom(numpy_helper.from_array(value, "w"))
    with pytest.raises(
        UnsupportedError, match=r"^--precision fp16: weight 'w' has numbers beyond 65,504.*use bf16$"
    ):
        halved(model, "fp16", which)
    assert faults(model, halved(model, "bf16", which), "bf16") == (2, [])


def test_a_weight_that_a_branch_reads_stays() -> None:
    model, _ = model_and_halves()
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["v_Transposed"], ["out"])], "branch", [], [onnx.ValueInfoProto(name="out")]
    )  # fmt: skip
    model.graph.node.append(
        onnx.helper.make_node("If", ["always"], ["z"], then_branch=inner, else_branch=inner)
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    low = halved(model, "fp16", halves(model, products(model), (), ()))
    assert "v_Transposed" in {tensor.name for tensor in low.graph.initializer}
    assert np.isfinite(outputs(low)["y"]).all() and not faults(model, low, "fp16")[1]


def _weight(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16)
    value = numpy_helper.to_array(tensor).copy()
    value[2, 5] = np.nextafter(value[2, 5], np.float16(np.inf))
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def _full_weight(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "thin")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.0000002), "thin"))


def _attribute(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Softmax").attribute.add(
        name="axis", type=2, i=0
    )


def _other_input(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.name == "second").input[0] = "x/fp16"


def _cast(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.output[0] == "p/fp16").input[0] = "d"


def _less(model: onnx.ModelProto) -> None:
    del model.graph.node[-1]


def _output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "b"


@pytest.mark.parametrize("spoil", [_weight, _full_weight, _attribute, _other_input, _cast, _less, _output])
def test_whatever_is_not_the_float32_file_is_found(spoil) -> None:  # type: ignore[no-untyped-def]
    model, which = model_and_halves()
    low = halved(model, "fp16", which)
    assert faults(model, low, "fp16") == (2, [])
    spoil(low)
    assert faults(model, low, "fp16")[1], spoil.__name__
