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
