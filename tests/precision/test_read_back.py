"""A weight, a scale or a zero point that is off is found by name, whatever the data show."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.precision.networks import PRODUCTS, low_of, network
from tsmerge_export.precision import read_back
from tsmerge_export.precision.quantise import as_products
from tsmerge_export.settings.precision import QUANTISED

LOW = QUANTISED
NAMES = {"int8": ("_quantized", "_scale", "_zero_point"), "int8-static": ("_quantized", "_scale", "_zero_point"),
         "int8-weights": ("_Q8", "_scales", "_zero_points"),
         "int4-weights": ("_Q4", "_scales", "_zero_points")}  # fmt: skip


def files(kind: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    model = as_products(network())
    return model, low_of(kind, model)


def changed(model: onnx.ModelProto, name: str, at: int, to: float | None = None, by: float = 1.0) -> None:
    tensor = next(one for one in model.graph.initializer if one.name == name)
    value = numpy_helper.to_array(tensor).copy()
    value.reshape(-1)[at] = value.reshape(-1)[at] * by if to is None else to
    tensor.CopyFrom(numpy_helper.from_array(value, name))


@pytest.mark.parametrize("kind", LOW)
def test_what_the_quantiser_writes_is_right(kind: str) -> None:
    model, found = files(kind)
    assert read_back.faults(model, found) == (len(PRODUCTS), [])
    for weight in read_back.weights(found):
        twin = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == weight.name)
        assert np.abs(weight.values - twin).max() <= weight.scale.max()


@pytest.mark.parametrize("kind", LOW)
@pytest.mark.parametrize("by", [1.01, 0.99, 2.0, -1.0, float("nan")])
def test_a_fault_in_one_scale(kind: str, by: float) -> None:
    model, found = files(kind)
    changed(found, f"w{NAMES[kind][1]}", 1, by=by)
    count, faults = read_back.faults(model, found)
    assert count == len(PRODUCTS) and len(faults) == 2  # two products have that weight
    where = "row 0, column 1," if kind in ("int8", "int8-static") else "row "
    assert all(fault.startswith("weight 'w' has a scale of ") and where in fault for fault in faults)


@pytest.mark.parametrize("kind", LOW)
def test_a_fault_in_a_number_or_a_zero_point(kind: str) -> None:
    model, found = files(kind)
    changed(found, f"v_Transposed{NAMES[kind][0]}", 5, to=119)
    assert read_back.faults(model, found)[1][0].startswith("weight 'v_Transposed' is ")
    model, found = files(kind)
    changed(found, f"w{NAMES[kind][2]}", 0, to=77)
    assert read_back.faults(model, found)[1][0].startswith("weight 'w' is ")


@pytest.mark.parametrize("kind", LOW)
def test_a_file_of_other_weights_or_none(kind: str) -> None:
    _, found = files(kind)
    assert len(read_back.faults(as_products(network(seed=5)), found)[1]) == len(PRODUCTS)
    other = as_products(network())
    del other.graph.initializer[:]
    assert read_back.faults(other, found)[1][0] == "weight 'w' is not in the float32 file"
    assert read_back.faults(as_products(network()), as_products(network())) == (0, [])
    del found.graph.initializer[:]
    assert (
        "not written as ONNX Runtime's quantiser writes it"
        in read_back.faults(as_products(network()), found)[1][0]
    )
