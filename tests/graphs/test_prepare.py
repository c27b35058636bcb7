"""The form that the rewriter works on computes what the file computes, in ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.graphs.prepare import prepare

Shapes = dict[str, tuple[int, ...]]


def same(nodes: list[onnx.NodeProto], shapes: Shapes, opset: int, *, bools: tuple[str, ...] = ()) -> set[str]:
    """Compare the file with its prepared form; returns the operators that are left."""
    rng = np.random.default_rng(0)
    kinds = {name: TensorProto.BOOL if name in bools else TensorProto.FLOAT for name in shapes}
    inputs = [
        helper.make_tensor_value_info(n, kinds[n], s) for n, s in shapes.items() if not n.startswith("w")
    ]
    weights = [
        onnx.numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n)
        for n, s in shapes.items()
        if n.startswith("w")
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    constants = [
        onnx.numpy_helper.from_array(np.float32(2), "two"),
        onnx.numpy_helper.from_array(np.float32(1e-5), "eps"),
    ]
    graph = helper.make_graph(nodes, "g", inputs, [output], weights + constants)
    ir_version = 8 if opset < 21 else 11
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    feeds: dict[str, Any] = {v.name: rng.standard_normal(shapes[v.name]).astype(np.float32) for v in inputs}
    for name in bools:
        feeds[name] = rng.random(shapes[name]) < 0.7
        feeds[name][..., 0, :] = False  # a query that sees nothing
    made = prepare(model, "test")
    want, got = (open_session(m).run(["y"], feeds)[0] for m in (model, made))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert np.isfinite(got).all()
    return {node.op_type for node in made.graph.node}


@pytest.mark.parametrize(
    ("shapes", "bools", "options"),
    [
        ({"q": (2, 3, 5, 4), "k": (2, 3, 7, 4), "v": (2, 3, 7, 4)}, (), {}),
        ({"q": (2, 3, 5, 4), "k": (2, 3, 5, 4), "v": (2, 3, 5, 4)}, (), {"is_causal": 1, "scale": 0.3}),
        ({"q": (2, 5, 12), "k": (2, 7, 12), "v": (2, 7, 12)}, (), {"q_num_heads": 3, "kv_num_heads": 3}),
        ({"q": (2, 3, 5, 4), "k": (2, 3, 5, 4), "v": (2, 3, 5, 4), "m": (2, 1, 5, 5)}, ("m",), {}),
        ({"q": (2, 3, 5, 4), "k": (2, 3, 5, 4), "v": (2, 3, 5, 4), "m": (5, 5)}, (), {"is_causal": 1}),
    ],
)
def test_attention(shapes: Shapes, bools: tuple[str, ...], options: dict[str, Any]) -> None:
    node = helper.make_node("Attention", list(shapes), ["y"], **options)
    assert "Attention" not in same([node], shapes, 23, bools=bools)


def test_attention_with_fewer_key_heads_is_left_alone() -> None:
    shapes = {"q": (2, 5, 8), "k": (2, 5, 4), "v": (2, 5, 4)}
    node = helper.make_node("Attention", list(shapes), ["y"], q_num_heads=2, kv_num_heads=1)
    assert "Attention" in same([node], shapes, 23)


@pytest.mark.parametrize(
    ("equation", "shapes", "left"),
    [
        ("blhe,bshe->bhls", {"a": (2, 5, 3, 4), "b": (2, 7, 3, 4)}, False),
        ("bhls,bshd->blhd", {"a": (2, 3, 5, 7), "b": (2, 7, 3, 4)}, False),
        ("aecd,abcd->acbe", {"a": (2, 5, 3, 4), "b": (2, 7, 3, 4)}, False),
        ("abc,cde->abde", {"a": (2, 5, 6), "w": (6, 3, 4)}, False),
        ("abcd,cde->abe", {"a": (2, 5, 3, 4), "w": (3, 4, 6)}, False),
        ("ecd,abdc->bea", {"w": (6, 3, 4), "a": (2, 5, 4, 3)}, False),
        ("ab,b->a", {"a": (5, 3), "w": (3,)}, False),
        ("ab,cd->abcd", {"a": (5, 3), "w": (2, 4)}, True),
        ("abc,bcd->abd", {"a": (2, 5, 6), "w": (5, 6, 4)}, True),
        ("abc,cd->ad", {"a": (2, 5, 6), "w": (6, 4)}, True),
        ("bij,jk->bik", {"a": (2, 3, 4), "b": (4, 5)}, True),
        ("bi,bj->bij", {"a": (2, 3), "b": (2, 4)}, True),
    ],
)
def test_einsum(equation: str, shapes: Shapes, left: bool) -> None:
    node = helper.make_node("Einsum", list(shapes), ["y"], equation=equation)
    assert ("Einsum" in same([node], shapes, 18)) == left


@pytest.mark.parametrize("square", ["Pow", "Mul"])
def test_layer_norm(square: str) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[-1]),
        helper.make_node("Sub", ["x", "m"], ["c"]),
        helper.make_node(square, ["c", "two" if square == "Pow" else "c"], ["s"]),
        helper.make_node("ReduceMean", ["s"], ["v"], axes=[-1]),
        helper.make_node("Add", ["v", "eps"], ["e"]),
        helper.make_node("Sqrt", ["e"], ["r"]),
        helper.make_node("Div", ["c", "r"], ["d"]),
        helper.make_node("Mul", ["d", "w1"], ["g"]),
        helper.make_node("Add", ["g", "w2"], ["y"]),
    ]
    shapes = {"x": (2, 5, 6), "w1": (6,), "w2": (6,)}
    assert same(nodes, shapes, 16) == {"LayerNormalization"}
    nodes[3] = helper.make_node("ReduceMean", ["s"], ["v"], axes=[-2])  # another mean: no layer normalisation
    assert "LayerNormalization" not in same(nodes, shapes, 16)


def test_copies_of_weights() -> None:
    nodes = [helper.make_node("Identity", ["w"], ["again"]), helper.make_node("Add", ["x", "again"], ["y"])]
    assert same(nodes, {"x": (2, 3), "w": (3,)}, 18) == {"Add"}
