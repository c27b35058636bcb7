# ruff: noqa: E501 (graphs in ONNX text, one a line)
"""Every transfer rule against one identity: what acts on tokens one by one commutes with unmerging.

A graph ``h = x + 0 -> snippet -> y`` gets one merge behind ``h``. Whatever the snippet does to tokens one by one, the
result must be that of the snippet alone on ``unmerge(local_merge(h))``. That holds for rules (which carry the
merged tokens on) and for barriers (which unmerge first); the test says which of the two a snippet must be.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
import torch

from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.backends.onnxruntime.portable import to_portable
from tsmerge_export.merge import local_merge, unmerge
from tsmerge_export.merge.plan import make_plan
from tsmerge_export.rewrite.infer import infer_shapes
from tsmerge_export.rewrite.insert import RewriteReport, insert_merges
from tsmerge_export.rewrite.points import Point
from tsmerge_export.settings.config import MergeConfig

BATCH, TOKENS, WIDTH = 3, 11, 6
RATIO = "1/3"

# name -> (statements from h to y, dims of y). ``scale [N, 1]``, ``row [N]`` and ``per [B, N, 1]`` are other inputs.
FOLLOWS = {
    "unary": ("a = Tanh(h) b = Abs(a) y = Cast<to = 1>(b)", "b,n,6"),
    "constant operand": ("c = Constant<value = float[6] {1., 2., 3., 4., 5., 6.}>() y = Mul(h, c)", "b,n,6"),
    "two merged operands": ("a = Relu(h) y = Add(a, h)", "b,n,6"),
    "shared operand lags": ("a = Sin(scale) y = Mul(h, a)", "b,n,6"),
    "row operand lags": ("a = ReduceSum<keepdims = 0>(h, minus) y = Add(a, row)", "b,n"),
    "batched operand lags": ("y = Sub(h, per)", "b,n,6"),
    "where": ("z = Constant<value = float {0.}>() c = Greater(per, z) y = Where(c, h, z)", "b,n,6"),
    "weights": ("y = MatMul(h, w)", "b,n,4"),
    "batched contraction of features": ("t = Transpose<perm = [0, 2, 1]>(h) y = MatMul(h, t)", "b,n,n"),
    "layer norm": ("g = Constant<value = float[6] {1., 2., 3., 4., 5., 6.}>() y = LayerNormalization<axis = -1>(h, g)", "b,n,6"),
    "reduce features": ("y = ReduceSum<keepdims = 1>(h, minus)", "b,n,1"),
    "highest token": ("one = Constant<value_ints = [1]>() y = ReduceMax<keepdims = 0>(h, one)", "b,6"),
    "any token": (
        "c = Greater(h, zero0) a = Cast<to = 1>(c) one = Constant<value_ints = [1]>() s = ReduceSum<keepdims = 0>(a, one) "
        "d = Greater(s, zero0) y = Cast<to = 1>(d)",
        "b,6",
    ),
    "argmax of features": ("y = ArgMax<axis = 2, keepdims = 0>(h)", "b,n"),
    "softmax of features": ("y = Softmax<axis = 2>(h)", "b,n,6"),
    "heads, constant shape": (
        "s = Constant<value_ints = [0, 0, 2, 3]>() a = Reshape(h, s) t = Transpose<perm = [0, 2, 1, 3]>(a) y = Neg(t)",
        "b,2,n,3",
    ),
    "heads, computed shape": (
        "b0 = Shape<start = 0, end = 1>(h) n0 = Shape<start = 1, end = 2>(h) c = Constant<value_ints = [2, 3]>() "
        "s = Concat<axis = 0>(b0, n0, c) a = Reshape(h, s) t = Transpose<perm = [0, 2, 1, 3]>(a) y = Neg(t)",
        "b,2,n,3",
    ),
    "heads there and back": (
        "s = Constant<value_ints = [0, -1, 2, 3]>() a = Reshape(h, s) t = Transpose<perm = [0, 2, 1, 3]>(a) "
        "u = Transpose<perm = [0, 2, 1, 3]>(t) v = Shape(h) y = Reshape(u, v)",
        "b,n,6",
    ),
    "unsqueeze and squeeze": ("a = Unsqueeze(h, two) b = Relu(a) y = Squeeze(b, two)", "b,n,6"),
    "split and concat": ("s = Constant<value_ints = [2, 4]>() p, q = Split<axis = 2>(h, s) y = Concat<axis = 2>(q, p)", "b,n,6"),
    "concat with a lagging operand": ("y = Concat<axis = 2>(h, per)", "b,n,7"),
    "slice features": ("f = Constant<value_ints = [1]>() t = Constant<value_ints = [5]>() y = Slice(h, f, t, two)", "b,n,4"),
    "pick a feature": ("i = Constant<value = int64 {2}>() y = Gather<axis = 2>(h, i)", "b,n"),
    "pad features": ("p = Constant<value_ints = [0, 0, 1, 0, 0, 0]>() y = Pad(h, p)", "b,n,7"),
    "positions from Shape": (
        "n0 = Shape<start = 1, end = 2>(h) z = Constant<value_ints = [0]>() n1 = Squeeze(n0, z) zero = Constant<value = int64 {0}>() "
        "one = Constant<value = int64 {1}>() r = Range(zero, n1, one) f = Cast<to = 1>(r) u = Unsqueeze(f, minus) y = Add(h, u)",
        "b,n,6",
    ),
    "expand": ("a = ReduceSum<keepdims = 1>(h, minus) s = Shape(h) y = Expand(a, s)", "b,n,6"),
    "clip": ("lo = Constant<value = float {-0.5}>() hi = Constant<value = float {0.5}>() y = Clip(h, lo, hi)", "b,n,6"),
}  # fmt: skip

BARRIERS = {
    "mean over tokens": ("one = Constant<value_ints = [1]>() y = ReduceMean<keepdims = 0>(h, one)", "b,6", "ReduceMean"),
    "cumulative sum over tokens": ("one = Constant<value = int64 {1}>() y = CumSum(h, one)", "b,n,6", "CumSum"),
    "token by index": ("i = Constant<value = int64 {3}>() y = Gather<axis = 1>(h, i)", "b,6", "Gather"),
    "slice of tokens": (
        "f = Constant<value_ints = [2]>() t = Constant<value_ints = [7]>() a = Constant<value_ints = [1]>() y = Slice(h, f, t, a)",
        "b,5,6",
        "Slice",
    ),
    "fold tokens into features": ("s = Constant<value_ints = [0, -1]>() y = Reshape(h, s)", "b,m", "Reshape"),
    "concat along tokens": ("y = Concat<axis = 1>(h, h)", "b,m,6", "Concat"),
    "tokens in front of other entries": (
        "s = Constant<value_ints = [0, 0, 2, 3]>() a = Reshape(h, s) t = Transpose<perm = [0, 2, 1, 3]>(a) "
        "u = Constant<value_ints = [0, -1, 3]>() y = Reshape(t, u)",
        "b,m,3",
        "Reshape",
    ),
    "batch behind heads": (
        "s = Constant<value_ints = [0, 0, 2, 3]>() a = Reshape(h, s) t = Transpose<perm = [1, 2, 0, 3]>(a) "
        "u = Constant<value_ints = [0, -1, 3]>() y = Reshape(t, u)",
        "n,m,3",
        "Reshape",
    ),
    "how many tokens": (
        "c = Greater(h, zero0) a = Cast<to = 1>(c) one = Constant<value_ints = [1]>() y = ReduceSum<keepdims = 0>(a, one)",
        "b,6",
        "ReduceSum",
    ),
    "highest of the batch": ("z = Constant<value_ints = [0]>() y = ReduceMax<keepdims = 0>(h, z)", "n,6", "ReduceMax"),
    "sum over the batch": ("z = Constant<value_ints = [0]>() y = ReduceMean<keepdims = 0>(h, z)", "n,6", "ReduceMean"),
    "tokens and batch on one axis, softmax over it": (
        "s = Constant<value_ints = [-1, 6]>() a = Reshape(h, s) y = Softmax<axis = 0>(a)",
        "m,6",
        "Softmax",
    ),
    "mixing tokens with weights": ("t = Transpose<perm = [0, 2, 1]>(h) y = MatMul(t, mix)", "b,6,2", "MatMul"),
    "normalised over tokens": (
        "y = InstanceNormalization(h, row, row)",
        "b,n,6",
        "InstanceNormalization",
    ),
    "no rule": ("z = Constant<value = int64 {0}>() y = Trilu(h)", "b,n,6", "Trilu"),
}  # fmt: skip


def graph(statements: str, dims: str) -> ir.Model:
    """``h = Identity-like(x)`` and a snippet, with shapes inferred; integer outputs are declared so."""
    kind = "int64" if "ArgMax" in statements else "float"
    tokens = "11" if "InstanceNorm" in statements or "mix" in statements else "n"
    dims = dims.replace("n", tokens)
    text = (
        f'<ir_version: 9, opset_import: ["" : 18]> g (float[b,{tokens},6] x, float[{tokens},1] scale, float[{tokens}] row, '
        f"float[b,{tokens},1] per, float[6,4] w, float[11,2] mix) => ({kind}[{dims}] y) {{ "
        "two = Constant<value_ints = [2]>() minus = Constant<value_ints = [-1]>() "
        f"zero0 = Constant<value = float {{0.}}>() h = Add(x, zero0) {statements} }}"
    )
    return infer_shapes(ir.from_proto(onnx.parser.parse_model(text)))


def feeds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"scale": (TOKENS, 1), "row": (TOKENS,), "w": (WIDTH, 4), "mix": (TOKENS, 2)}
    out = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    out["x"] = rng.standard_normal((BATCH, TOKENS, WIDTH)).astype(np.float32)
    out["per"] = rng.standard_normal((BATCH, TOKENS, 1)).astype(np.float32)
    return out


def run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    session = open_session(model, 1)
    known = {value.name for value in session.get_inputs()}
    return session.run(["y"], {name: value for name, value in feed.items() if name in known})[0]


def rewritten(statements: str, dims: str, ends: tuple[int, int] = (0, 0)) -> tuple[np.ndarray, RewriteReport]:
    model = graph(statements, dims)
    point = next(node for node in model.graph if node.outputs[0].name == "h")
    plan = make_plan(MergeConfig(ratio=RATIO, min_tokens=0), 1, protect_first=ends[0], protect_last=ends[1])
    report = insert_merges(model, [Point(0, point, "")], plan)
    return run(to_portable(model), feeds()), report


def expected(statements: str, dims: str) -> np.ndarray:
    """The snippet on merged and unmerged tokens; operands of its own are merged by ``kept`` the same way."""
    feed = feeds()
    merged = local_merge(torch.from_numpy(feed["x"]), ratio=RATIO)
    back = merged.kept.gather(1, merged.target)  # for each token, the index of the one that stands for it
    rows = {}
    for row in range(BATCH):
        own = dict(feed, x=unmerge(merged.y, merged.target).numpy()[row : row + 1])
        if "Shape<start = 1" not in statements or "Range" not in statements:
            for name in ("scale", "row"):
                own[name] = feed[name][back[row].numpy()]
        own["per"] = feed["per"][row : row + 1, back[row].numpy()]
        rows[row] = run(ir.to_proto(graph(statements, dims)), own)
    return np.concatenate([rows[row] for row in range(BATCH)])


@pytest.mark.parametrize("name", [name for name in FOLLOWS if name != "positions from Shape"])
def test_follows_the_merge(name: str) -> None:
    got, report = rewritten(*FOLLOWS[name])
    assert report.barriers == []
    # Not bit for bit: a reduction's order of sums depends on where a row starts in memory.
    np.testing.assert_allclose(got, expected(*FOLLOWS[name]), rtol=1e-5, atol=1e-6)


# The batch leaves axis 0, or shares an axis; nothing but tokens goes in.
_BACK = "s3 = Constant<value_ints = [0, 0, 2, 3]>() a = Reshape(h, s3) "
LAYOUTS = {
    "tokens first": ("y = Transpose<perm = [1, 0, 2]>(h)", "n,b,6"),
    "tokens first and back": ("a = Transpose<perm = [1, 0, 2]>(h) c = Relu(a) y = Transpose<perm = [1, 0, 2]>(c)", "b,n,6"),
    "tokens and batch on one axis": ("s = Constant<value_ints = [-1, 6]>() y = Reshape(h, s)", "m,6"),
    "batch and tokens on one axis, tokens first": (
        "a = Transpose<perm = [1, 0, 2]>(h) s = Constant<value_ints = [-1, 6]>() b = Reshape(a, s) y = Gemm(b, w)",
        "m,4",
    ),
    "a linear layer over tokens of all rows": (
        "s = Constant<value_ints = [-1, 6]>() a = Reshape(h, s) c = Gemm(a, w) b0 = Shape<start = 0, end = 1>(x) "
        "n0 = Shape<start = 1, end = 2>(x) four = Constant<value_ints = [4]>() t = Concat<axis = 0>(b0, n0, four) y = Reshape(c, t)",
        "b,n,4",
    ),
    "heads folded behind the batch": (
        _BACK + "t = Transpose<perm = [0, 2, 1, 3]>(a) n0 = Shape<start = 1, end = 2>(x) k = Constant<value_ints = [3]>() "
        "u = Concat<axis = 0>(minus, n0, k) y = Reshape(t, u)",
        "m,n,3",
    ),
    "packed on the first axis, picked": (
        _BACK + "t = Transpose<perm = [2, 0, 1, 3]>(a) i = Constant<value = int64 {1}>() y = Gather<axis = 0>(t, i)",
        "b,n,3",
    ),
    "packed on the first axis, split": (
        _BACK + "t = Transpose<perm = [2, 1, 0, 3]>(a) s = Constant<value_ints = [1, 1]>() p, q = Split<axis = 0>(t, s) "
        "z = Constant<value_ints = [0]>() u = Squeeze(p, z) v = Squeeze(q, z) y = Sub(u, v)",
        "n,b,3",
    ),
    "highest of all rows": ("y = ReduceMax<keepdims = 1>(h)", "1,1,1"),
    "a new axis in front": ("z = Constant<value_ints = [0]>() a = Unsqueeze(h, z) y = Neg(a)", "1,b,n,6"),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_follows_the_batch(name: str) -> None:
    statements, dims = LAYOUTS[name]
    got, report = rewritten(statements, dims)
    assert report.barriers == []
    merged = local_merge(torch.from_numpy(feeds()["x"]), ratio=RATIO)
    feed = dict(feeds(), x=unmerge(merged.y, merged.target).numpy())
    np.testing.assert_allclose(got, run(ir.to_proto(graph(statements, dims)), feed), rtol=1e-5, atol=1e-6)


def test_positions_computed_from_a_shape_keep_true_distances() -> None:
    statements, dims = FOLLOWS["positions from Shape"]
    got, report = rewritten(statements, dims)
    merged = local_merge(torch.from_numpy(feeds()["x"]), ratio=RATIO)
    want = unmerge(merged.y + merged.kept[..., None].float(), merged.target)
    assert report.barriers == []
    np.testing.assert_array_equal(got, want.numpy())


@pytest.mark.parametrize("name", BARRIERS)
def test_unmerges_before_what_mixes_tokens(name: str) -> None:
    statements, dims, op_type = BARRIERS[name]
    got, report = rewritten(statements, dims)
    assert [barrier.op_type for barrier in report.barriers] == [op_type]
    assert report.barriers[0].reason
    merged = local_merge(torch.from_numpy(feeds()["x"]), ratio=RATIO)
    feed = dict(feeds(), x=unmerge(merged.y, merged.target).numpy())
    np.testing.assert_allclose(got, run(ir.to_proto(graph(statements, dims)), feed), rtol=1e-5, atol=1e-6)


def test_shape_operands_shared_between_consumers_are_not_edited() -> None:
    """The same computed shape serves a merged and an unmerged value."""
    statements = (
        "n0 = Shape<start = 1, end = 2>(x) b0 = Shape<start = 0, end = 1>(x) c = Constant<value_ints = [2, 3]>() "
        "s = Concat<axis = 0>(b0, n0, c) p = Reshape(x, s) q = Reshape(h, s) r = ReduceSum<keepdims = 0>(p, minus) "
        "t = ReduceSum<keepdims = 0>(q, minus) y = Add(r, t)"
    )
    got, report = rewritten(statements, "b,n,2")
    x = feeds()["x"]
    merged = local_merge(torch.from_numpy(x), ratio=RATIO)
    own = x.reshape(BATCH, TOKENS, 2, 3).sum(-1)
    kept = np.take_along_axis(own, merged.kept.numpy()[..., None], 1)
    want = torch.from_numpy(kept) + merged.y.reshape(BATCH, -1, 2, 3).sum(-1)
    assert report.barriers == []
    np.testing.assert_allclose(got, unmerge(want, merged.target).numpy(), rtol=1e-5, atol=1e-6)


# Tokens at either end that no merge touches may be taken out by their index from that end. FIRST, LAST of them are
# protected; (statements, dims of y), and whether they must be a barrier.
FIRST, LAST = 2, 3
_SLICE = "f = Constant<value_ints = [{}]>() t = Constant<value_ints = [{}]>() a = Constant<value_ints = [1]>() y = Slice(h, f, t, a)"
_STEPS = _SLICE.replace("(h, f, t, a)", "(h, f, t, a, two)")
_PICK = "i = Constant<value_ints = [{}]>() y = Gather<axis = 1>(h, i)"
ENDS = {
    "the last": (_SLICE.format(-1, 2**63 - 1), "b,1,6", False),
    "all protected at the end": (_SLICE.format(-3, 2**63 - 1), "b,3,6", False),
    "some of the end": (_SLICE.format(-3, -1), "b,2,6", False),
    "all protected at the start": (_SLICE.format(0, 2), "b,2,6", False),
    "pick from both ends": (_PICK.format("0, -1, 1, -3"), "b,4,6", False),
    "pick one alone": ("i = Constant<value = int64 {-1}>() y = Gather<axis = 1>(h, i)", "b,6", False),
    "pick one alone that is not protected": ("i = Constant<value = int64 {-4}>() y = Gather<axis = 1>(h, i)", "b,6", True),
    "one more at the end": (_SLICE.format(-4, 2**63 - 1), "b,4,6", True),
    "one more at the start": (_SLICE.format(0, 3), "b,3,6", True),
    "from the start to near the end": (_SLICE.format(1, -1), "b,9,6", True),
    "by an index from the other end": (_SLICE.format(10, 11), "b,1,6", True),
    "every second": (_STEPS.format(-3, 2**63 - 1), "b,2,6", True),
    "pick one that is not protected": (_PICK.format("0, 2"), "b,2,6", True),
    "pick one more from the end": (_PICK.format("-4"), "b,1,6", True),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_protected_ends_are_taken_out_without_an_unmerge(name: str) -> None:
    statements, dims, barrier = ENDS[name]
    got, report = rewritten(statements, dims, (FIRST, LAST))
    assert bool(report.barriers) == barrier
    merged = local_merge(torch.from_numpy(feeds()["x"]), ratio=RATIO, protect_first=FIRST, protect_last=LAST)
    assert merged.y.shape[1] < TOKENS
    feed = dict(feeds(), x=unmerge(merged.y, merged.target).numpy())
    np.testing.assert_array_equal(got, run(ir.to_proto(graph(statements, dims)), feed))


@pytest.mark.parametrize(
    ("start", "end", "barrier"),
    [
        ("m = Min(p0, three) s = Neg(m)", "far", False),
        ("c = Constant<value_ints = [2]>() d = Min(three, p0, c) m = Identity(d) s = Neg(m)", "far", False),
        (
            "c = Constant<value_ints = [4]>() m = Min(p0, c) s = Neg(m)",
            "far",
            True,
        ),  # more than are protected
        ("c = Constant<value_ints = [0]>() m = Min(p0, c) s = Neg(m)", "far", True),  # from the start on
        ("m = Max(p0, three) s = Neg(m)", "far", True),
        ("s = Neg(p0)", "far", True),  # as many as one likes
        ("m = Min(p0, three)  s = Sub(n0, m)", "far", True),  # counted from the other end
        ("q = Mul(p0, p0) m = Min(q, three) s = Neg(m)", "far", True),  # no length: it might be negative
        ("m = Min(p0, three) s = Neg(m)", "n0", True),  # its end is where it was
    ],
)
def test_a_computed_number_of_last_tokens(start: str, end: str, barrier: bool) -> None:
    """``y = h[:, -m:]`` needs no unmerge where the graph shows that 1 <= m <= LAST."""
    text = (
        '<ir_version: 9, opset_import: ["" : 18]> g (float[b,n,6] x, float[p] tail) => (float[b,m,6] y) { '
        "zero = Constant<value = float {0.}>() h = Add(x, zero) one = Constant<value_ints = [1]>() "
        "n0 = Shape<start = 1, end = 2>(x) p0 = Shape(tail) three = Constant<value_ints = [3]>() "
        f"far = Constant<value_ints = [9223372036854775807]>() {start} y = Slice(h, s, {end}, one) }}"
    )
    plain = infer_shapes(ir.from_proto(onnx.parser.parse_model(text)))
    model = plain.clone()
    point = next(node for node in model.graph if node.outputs[0].name == "h")
    plan = make_plan(MergeConfig(ratio=RATIO, min_tokens=0), 1, protect_last=LAST)
    report = insert_merges(model, [Point(0, point, "")], plan)
    assert bool(report.barriers) == barrier
    x = feeds()["x"]
    merged = local_merge(torch.from_numpy(x), ratio=RATIO, protect_last=LAST)
    copies = unmerge(merged.y, merged.target).numpy()
    for length in (1, 2, 3):
        tail = np.ones(length, np.float32)
        want = run(ir.to_proto(plain), {"x": copies, "tail": tail})
        np.testing.assert_array_equal(run(to_portable(model), {"x": x, "tail": tail}), want)
