"""Where points are found, and where they must not be."""

from __future__ import annotations

import onnx.parser
import onnx_ir as ir
import pytest

from tsmerge_export.rewrite.infer import infer_shapes
from tsmerge_export.rewrite.points import find_points


def attention(queries: str, memory: str, residual: str) -> ir.Graph:
    """One attention of width 1 over inputs ``x`` and ``m``, both ``[b, n, 1]``, with the given sources."""
    text = f"""<ir_version: 9, opset_import: ["" : 18]> g (float[b,n,1] x, float[b,n,1] m) => (float[b,n,1] y) {{
        w = Constant<value = float[1,1] {{2.0}}>()
        q = MatMul({queries}, w)
        k = MatMul({memory}, w)
        kt = Transpose<perm = [0, 2, 1]>(k)
        scores = MatMul(q, kt)
        weights = Softmax<axis = -1>(scores)
        v = MatMul({memory}, w)
        mixed = MatMul(weights, v)
        out = MatMul(mixed, w)
        y = Add({residual}, out)
    }}"""
    return infer_shapes(ir.from_proto(onnx.parser.parse_model(text))).graph


def test_self_attention_is_a_point() -> None:
    points, rejected = find_points(attention("x", "x", "x"))
    assert [point.value.name for point in points] == ["y"]
    assert rejected == []


@pytest.mark.parametrize(("memory", "residual"), [("m", "x"), ("x", "m")])
def test_a_residual_that_did_not_feed_scores_and_values_is_none(memory: str, residual: str) -> None:
    """Cross-attention over a memory of the same length, and an Add that is no residual."""
    points, rejected = find_points(attention("x", memory, residual))
    assert points == []
    assert "cross-attention" in rejected[0].reason


def between(statements: str) -> ir.Graph:
    """Attention over ``x [b, n, 2]``, and what stands between its projection ``out`` and the residual's ``last``."""
    text = f"""<ir_version: 9, opset_import: ["" : 18]>
    g (float[b,n,2] x, float[b,n,1] real, float[b,1,2] gate) => (float[b,n,2] y) {{
        w = Constant<value = float[2,2] {{2.0, 1.0, 0.0, 1.0}}>()
        kt = Transpose<perm = [0, 2, 1]>(x)
        scores = MatMul(x, kt)
        weights = Softmax<axis = -1>(scores)
        mixed = MatMul(weights, x)
        out = MatMul(mixed, w)
        two = Constant<value = float {{2.0}}>()
        eps = Constant<value = float {{0.000001}}>()
        minus = Constant<value_ints = [-1]>()
        one = Constant<value_ints = [1]>()
        scale = Constant<value = float[2] {{0.5, 2.0}}>()
        {statements}
        y = Add(x, last)
    }}"""
    return infer_shapes(ir.from_proto(onnx.parser.parse_model(text))).graph


_MEAN = "p = Pow(out, two) m = ReduceMean(p, {}) e = Add(m, eps) s = Sqrt(e) "
NORMS = {
    "reciprocal": _MEAN.format("minus") + "r = Reciprocal(s) f = Mul(out, r) last = Mul(scale, f)",
    "division": _MEAN.format("minus") + "f = Div(out, s) last = Mul(f, scale)",
    "square": "p = Mul(out, out) m = ReduceMean(p, minus) e = Add(m, eps) s = Sqrt(e) last = Div(out, s)",
    "a node of its own": "last = LayerNormalization<axis = -1>(out, scale)",
    "padding set to 0": "last = Mul(out, real)",
    "padding set to 0, then norm": "z = Mul(real, out) last = LayerNormalization<axis = -1>(z, scale)",
}
NO_NORMS = {
    "over tokens": _MEAN.format("one") + "last = Div(out, s)",
    "of another value": _MEAN.format("minus").replace("out", "x") + "last = Div(out, s)",
    "the other way round": _MEAN.format("minus") + "last = Div(s, out)",
    "read elsewhere as well": _MEAN.format("minus") + "g = Neg(out) last = Div(out, s)",
    "its scale read elsewhere": _MEAN.format("minus") + "f = Div(out, s) last = Mul(f, s)",
    "a product with other tokens": "last = Mul(out, x)",
    "a number per feature from data": "last = Mul(out, gate)",
}


@pytest.mark.parametrize("name", NORMS)
def test_a_normalisation_or_mask_before_the_residual_is_passed(name: str) -> None:
    points, rejected = find_points(between(NORMS[name]))
    assert [point.value.name for point in points] == ["y"]
    assert rejected == []


@pytest.mark.parametrize("name", NO_NORMS)
def test_what_only_looks_like_one_is_not(name: str) -> None:
    points, rejected = find_points(between(NO_NORMS[name]))
    assert points == []
    assert len(rejected) == 1
