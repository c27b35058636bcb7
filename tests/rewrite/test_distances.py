"""Position biases computed per distance: the same bits as the graph that computes them per pair."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import RemoveUnusedNodesPass

from tsmerge_export import ops
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.backends.onnxruntime.portable import to_portable
from tsmerge_export.rewrite.distances import fold_distances
from tsmerge_export.rewrite.emit import Emitter
from tsmerge_export.rewrite.infer import infer_shapes

BUCKETS, HEADS = 32, 3
POSITIONS = """
  c0 = Constant<value_int = 0>()
  c1 = Constant<value_int = 1>()
  n1 = Shape<start = 0, end = 1>(x)
  n = Squeeze(n1)
  axis0 = Constant<value_ints = [0]>()
  axis1 = Constant<value_ints = [1]>()
  position = Range(c0, n, c1)
  j = Unsqueeze(position, axis0)
  i = Unsqueeze(position, axis1)
"""
# T5's buckets as torch exports them (Hugging Face T5Attention._relative_position_bucket), both directions.
T5 = """
  d = Sub(j, i)
  right = Greater(d, c0)
  right_number = Cast<to = 7>(right)
  half = Constant<value_int = 16>()
  side = Mul(right_number, half)
  far = Abs(d)
  exact = Constant<value_int = 8>()
  near = Less(far, exact)
  f = Cast<to = 1>(far)
  f8 = Constant<value_float = 8.0>()
  scaled = Div(f, f8)
  log = Log(scaled)
  whole = Constant<value_float = 2.7725887>()
  part = Div(log, whole)
  stretched = Mul(part, f8)
  beyond = Cast<to = 7>(stretched)
  large = Add(beyond, exact)
  last = Constant<value_int = 15>()
  shape = Shape(large)
  lasts = Expand(last, shape)
  capped = Min(large, lasts)
  one_side = Where(near, far, capped)
  bucket = Add(side, one_side)
"""
CAUSAL = """
  d = Sub(i, j)
  c0v = Constant<value_ints = [0]>()
  past = Max(d, c0v)
  last = Constant<value_int = 31>()
  bucket = Min(past, last)
"""
LAST = """
  bias = Gather(weight, bucket)
  out = Transpose<perm = [2, 0, 1]>(bias)
  y = Identity(out)
"""


def graph(chain: str, weight: np.ndarray, last: str = LAST) -> ir.Model:
    proto = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 18]> g (float[n] x) => (float[h, n, n] y)
            {{{POSITIONS}{chain}{last}}}"""
    )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
    return infer_shapes(ir.from_proto(proto))


def run(model: ir.Model, tokens: int) -> np.ndarray:
    session = open_session(to_portable(model), 1)
    got: np.ndarray = session.run(None, {"x": np.zeros(tokens, np.float32)})[0]
    return got


def folded(model: ir.Model) -> tuple[ir.Model, int]:
    tables = fold_distances(model.graph, Emitter(model.graph))
    RemoveUnusedNodesPass()(model)
    model.opset_imports[ops.DOMAIN] = ops.VERSION
    return model, len(tables)


def weights() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((BUCKETS, HEADS)).astype(np.float32)


@pytest.mark.parametrize("chain", [T5, CAUSAL], ids=["t5", "causal"])
def test_same_bits_and_nothing_left_per_pair(chain: str) -> None:
    plain, (fold, count) = graph(chain, weights()), folded(graph(chain, weights()))
    assert count == 1
    assert sum(node.op_type == "DistancePlane" for node in fold.graph) == 1
    assert not any(node.op_type in ("Unsqueeze", "Transpose") for node in fold.graph)
    for tokens in (1, 2, 15, 16, 17, 31, 32, 33, 64, 65, 129, 140, 257):
        assert run(fold, tokens).tobytes() == run(plain, tokens).tobytes(), tokens


def test_plane_against_a_closed_form() -> None:
    fold, _ = folded(graph(CAUSAL, weights()))
    index = np.arange(40)
    want = weights()[np.clip(index[:, None] - index[None, :], 0, 31)].transpose(2, 0, 1)
    np.testing.assert_array_equal(run(fold, 40), want)


def test_is_not_asked_for_distances_that_do_not_occur() -> None:
    """A table of 2N - 1 learned positions has no entry for the distances that fill the last block."""
    chain = "d = Sub(j, i)\n shift = Constant<value_int = 6>()\n bucket = Add(d, shift)\n"
    weight = np.random.default_rng(1).standard_normal((13, HEADS)).astype(np.float32)
    fold, count = folded(graph(chain, weight))
    assert count == 1
    np.testing.assert_array_equal(run(fold, 7), run(graph(chain, weight), 7))


@pytest.mark.parametrize(
    ("chain", "why"),
    [
        ("d = Add(j, i)\n last = Constant<value_int = 31>()\n bucket = Min(d, last)\n", "a sum of positions"),
        ("d = Sub(j, j)\n e = Sub(i, i)\n bucket = Add(d, e)\n", "no difference of two tokens"),
        ("d = Sub(j, i)\n a = Abs(d)\n b = Min(a, j)\n"
         " last = Constant<value_int = 31>()\n bucket = Min(b, last)\n", "j itself"),
        ("two = Constant<value_int = 2>()\n k = Mul(j, two)\n d = Sub(k, i)\n a = Abs(d)\n"
         " last = Constant<value_int = 31>()\n bucket = Min(a, last)\n", "2j - i"),
    ],
)  # fmt: skip
def test_leaves_other_planes_alone(chain: str, why: str) -> None:
    _, count = folded(graph(chain, weights()))
    assert count == 0, why


def test_leaves_another_order_of_heads_alone() -> None:
    last = "bias = Gather(weight, bucket)\n out = Transpose<perm = [2, 1, 0]>(bias)\n y = Identity(out)\n"
    _, count = folded(graph(CAUSAL, weights(), last))
    assert count == 0
