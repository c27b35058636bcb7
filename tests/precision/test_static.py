"""Scales of activations that are fixed beforehand: what ONNX Runtime makes of them is what the formulas say."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from tests.precision import formulas
from tests.precision.networks import PRODUCTS, SPAN, WIDTH, low_of, network
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.precision import ranges, read_back_static
from tsmerge_export.precision.quantise import as_products, quantised
from tsmerge_export.precision.ranges import RangeCollector, read_by, with_outputs
from tsmerge_export.settings.precision import Precision

STATIC = Precision("int8-static")
SPANS = {"x": SPAN, "a": (-40.0, 30.0), "e": (1.0, 90.0)}


def x() -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((5, WIDTH)).astype(np.float32)


def outputs(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    session = open_session(model, 1)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": x()}), strict=True))


def test_weights_activations_and_whole_layers() -> None:
    model = as_products(network())
    low = quantised(model, STATIC, list(PRODUCTS), SPANS)
    written, floats = formulas.arrays(low), formulas.arrays(model)
    by_weight = {name: formulas.by_channel(floats[name]) for name in set(PRODUCTS.values())}
    for name, (numbers, scale) in by_weight.items():
        assert np.array_equal(written[f"{name}_quantized"], numbers)
        assert np.allclose(written[f"{name}_scale"][scale > 0], scale[scale > 0], rtol=1e-6)
        assert name not in written
    for name, span in SPANS.items():
        scale, zero = formulas.of_range(*span)
        assert (
            written[f"{name}_scale"] == pytest.approx(scale, rel=1e-6)
            and written[f"{name}_zero_point"] == zero
        )
        assert written[f"{name}_zero_point"].dtype == np.uint8
    got = outputs(with_outputs(low, ["b", "e"]))
    assert np.allclose(got["a"], formulas.statically(x(), SPANS["x"], *by_weight["w"]), atol=1e-4)
    assert np.allclose(got["b"], formulas.statically(got["a"], SPANS["a"], *by_weight["w"]), atol=1e-2)
    y = formulas.statically(got["e"], SPANS["e"], *by_weight["v_Transposed"]) + floats["bias"]
    assert np.allclose(got["y"], y, atol=1e-2)
    assert np.abs(got["a"] - x() @ floats["w"]).max() > 1e-2  # it is below float32 indeed
    assert np.allclose(
        got["c"], got["b"] @ floats["thin"], atol=1e-2
    )  # what reads b beside products has all of it


def test_ranges_are_percentiles_of_what_came_in_any_shape(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    runs = [rng.standard_normal((n, 7, 40)).astype(np.float32) for n in (300, 500, 1)]
    runs[1][3, 2, 1], runs[2][0, 0, :3] = 900.0, (np.inf, -np.inf, np.nan)
    found = RangeCollector(["here"])
    for run in runs:
        found.see({"here": run, "elsewhere": run})
    (low, high), values = found.ranges()["here"], np.concatenate([run.ravel() for run in runs])
    values = values[np.isfinite(values)]
    cut = (100 - ranges.PERCENTILE) / 2
    wide = 2 * 900 / 2048  # of a bin of the histogram
    assert low == pytest.approx(np.percentile(values, cut), abs=wide)
    assert (
        high == pytest.approx(np.percentile(values, 100 - cut), abs=wide) and high < 10
    )  # one value is clipped
    monkeypatch.setattr(ranges, "_HELD", 1000)  # so that histograms are added up
    parts = RangeCollector(["here"])
    for run in runs:
        parts.see({"here": run})
    assert parts.ranges()["here"] == pytest.approx((low, high), abs=wide)
    assert capfd.readouterr() == ("", "")


def test_a_value_that_never_comes() -> None:
    found = RangeCollector(["x", "y"])
    found.see({"x": np.ones(3, np.float32), "y": np.empty(0, np.float32)})
    with pytest.raises(
        UnsupportedError, match=r"^--precision int8-static: no calibration series reaches y, .*use int8"
    ):
        found.ranges()


def test_all_that_products_read_can_be_seen() -> None:
    model = as_products(network())
    names = read_by(model, PRODUCTS)
    assert names == ("x", "a", "e")
    before = model.SerializeToString()
    seen = outputs(with_outputs(model, names))
    assert list(seen) == ["a", "c", "y", "e"] and model.SerializeToString() == before
    for name, value in outputs(model).items():
        assert np.allclose(seen[name], value, atol=1e-5)


def test_an_operator_set_without_scales_by_channel() -> None:
    model = as_products(network())
    model.opset_import[0].version = 12
    with pytest.raises(UnsupportedError) as failed:
        low_of("int8-static", model)
    assert str(failed.value) == (
        "--precision int8-static: operator set 12 has no scale for each channel; export the model with opset 13 or "
        "newer"
    )


def _changed(model: onnx.ModelProto, name: str, value: NDArray[np.generic]) -> None:
    tensor = next(one for one in model.graph.initializer if one.name == name)
    tensor.CopyFrom(numpy_helper.from_array(value, name))


def _scale(model: onnx.ModelProto) -> None:
    _changed(model, "a_scale", formulas.arrays(model)["a_scale"] * np.float32(1.001))


def _zero(model: onnx.ModelProto) -> None:
    _changed(model, "a_zero_point", formulas.arrays(model)["a_zero_point"] + np.uint8(1))


def _read_otherwise(model: onnx.ModelProto) -> None:
    other = numpy_helper.from_array(np.array(0.5, np.float32), "other")
    model.graph.initializer.append(other)
    next(node for node in model.graph.node if node.output[0].startswith("a_Dequantize")).input[1] = "other"


def _not_rounded(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.name == "second").input[0] = "a"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_scale, "what 'second' reads has a scale of 0.2748, where its calibrated range gives 0.2745"),
        (_zero, "what 'second' reads has the zero point 147, where its calibrated range gives 146"),
        (_read_otherwise, "not written as ONNX Runtime's quantiser writes it (what second reads is written with one"),
        (_not_rounded, "not written as ONNX Runtime's quantiser writes it"),
    ],
)  # fmt: skip
def test_one_scale_or_zero_point_that_is_off(spoil, said: str) -> None:  # type: ignore[no-untyped-def]
    low = quantised(as_products(network()), STATIC, list(PRODUCTS), SPANS)
    assert read_back_static.faults(low, SPANS) == []
    assert [one.product for one in read_back_static.activations(low)] == list(PRODUCTS)
    spoil(low)
    (fault,) = read_back_static.faults(low, SPANS)
    assert said in fault


def test_ranges_that_are_missing_or_come_out_otherwise() -> None:
    low = quantised(as_products(network()), STATIC, list(PRODUCTS), SPANS)
    less = {name: span for name, span in SPANS.items() if name != "e"}
    assert read_back_static.faults(low, less) == ["what 'out_MatMul' reads, 'e', has no calibrated range"]
    near = {name: (low * 1.001, high * 1.001) for name, (low, high) in SPANS.items()}
    assert read_back_static.moved(SPANS, near) == read_back_static.moved(SPANS, SPANS) == []
    far = SPANS | {"a": (-40.0, 30.5)}
    assert read_back_static.moved(SPANS, far) == [
        "'a' was calibrated from -40 to 30; the same series now give -40 to 30.5"
    ]
    assert len(read_back_static.moved(SPANS, less)) == len(read_back_static.moved(less, SPANS)) == 1
