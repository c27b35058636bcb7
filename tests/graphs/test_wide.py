"""Single nodes in float64: against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from tsmerge_export.families.base import Arrays
from tsmerge_export.graphs.nodes import NodeRunner
from tsmerge_export.graphs.wide import WideRunner, widened

X = np.random.default_rng(0).standard_normal((2, 3, 8))
W = np.random.default_rng(1).standard_normal((8, 8))
F32 = TensorProto.FLOAT


def runner(constants: Arrays | None = None) -> WideRunner:
    model = helper.make_model(
        helper.make_graph([], "g", [], []), opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    constants = constants or {}
    return WideRunner(model, constants, NodeRunner(model, constants, 1, moving=True), 1)


def run(op: str, values: Arrays, **attributes: Any) -> np.ndarray:
    node = helper.make_node(op, list(values), ["y"], name="node", **attributes)
    wide = runner()
    (first,), (again,) = (wide.run(node, values) for _ in range(2))
    assert first is not None and again is not None
    np.testing.assert_array_equal(first, again)
    return first


def test_in_onnx_runtime() -> None:
    got = run("MatMul", {"a": X, "b": W})
    np.testing.assert_allclose(got, X @ W, rtol=1e-14)
    assert got.dtype == np.float64
    mean, var = X.mean(-1, keepdims=True), X.var(-1, keepdims=True)
    got = run("LayerNormalization", {"a": X, "s": np.ones(8)}, epsilon=0.0)
    np.testing.assert_allclose(got, (X - mean) / np.sqrt(var), rtol=1e-13, atol=1e-13)


def test_in_the_evaluator() -> None:
    """ONNX Runtime has no float64 for these."""
    got = run("Softplus", {"a": X})
    np.testing.assert_allclose(got, np.log1p(np.exp(X)), rtol=1e-12)
    kernel = np.random.default_rng(2).standard_normal((5, 3, 2))
    want = np.einsum("bctk,ock->bot", np.stack([X[:, :, :-1], X[:, :, 1:]], -1), kernel)
    got = run("Conv", {"a": X, "w": kernel})
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


def test_in_float32_where_there_is_nothing_else() -> None:
    got = run("AveragePool", {"a": X}, kernel_shape=[2])
    assert got.dtype == np.float64
    want = (X[..., :-1] + X[..., 1:]) / 2
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert not np.allclose(got, want, rtol=1e-12, atol=0)


def test_types_that_a_node_names() -> None:
    assert run("Cast", {"a": np.arange(3)}, to=F32).dtype == np.float64
    np.testing.assert_array_equal(run("Cast", {"a": X}, to=F32), X)  # nothing is rounded
    assert run("Cast", {"a": X}, to=TensorProto.FLOAT16).dtype == np.float16
    assert run("Cast", {"a": X}, to=TensorProto.INT64).dtype == np.int64
    fill = helper.make_tensor("v", F32, [1], [0.1])
    got = run("ConstantOfShape", {"shape": np.array([2])}, value=fill)
    assert got.dtype == np.float64 and got.tolist() == [float(np.float32(0.1))] * 2
    constant = helper.make_node("Constant", [], ["y"], name="c", value=fill)
    (found,) = runner().run(constant, {})
    assert found is not None and found.dtype == np.float64
    assert runner().value_of(fill).dtype == np.float64
    assert widened(np.arange(2)).dtype == np.int64


def test_a_weight_may_be_another_in_the_next_run() -> None:
    """No session keeps one, though it is small."""
    wide = runner({"w": np.float32([1, 2])})
    node = helper.make_node("Mul", ["x", "w"], ["y"], name="node")
    for w in (3.0, 5.0):
        (found,) = wide.run(node, {"x": np.array([1.5, 2.5]), "w": np.array([w, w])})
        assert found is not None and found.tolist() == [1.5 * w, 2.5 * w]


def test_a_body_of_its_own_stays_float32() -> None:
    inside = helper.make_graph(
        [helper.make_node("Mul", ["x", "x"], ["z"])],
        "b",
        [],
        [helper.make_tensor_value_info("z", F32, [None])],
    )
    values = {"c": np.array(True), "x": np.array([0.1, 3.0])}
    node = helper.make_node("If", ["c"], ["y"], name="node", then_branch=inside, else_branch=inside)
    (found,) = runner().run(node, values)
    assert found is not None and found.dtype == np.float64
    assert found == pytest.approx(values["x"].astype(np.float32) ** 2)
