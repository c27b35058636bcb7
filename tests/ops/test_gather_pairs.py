"""GatherPairs in ONNX Runtime against plain numpy indexing."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from tsmerge_export import ops
from tsmerge_export.backends.onnxruntime.direct import open_session


def session(dtype: int, opset: int, **attributes: int) -> ort.InferenceSession:
    inputs = ["value", "plane", "kept", "stride", "offset"]
    node = helper.make_node("GatherPairs", inputs, ["z"], domain=ops.DOMAIN, **attributes)
    node.overload = ops.variant_key("GatherPairs", attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("value", dtype, [1, "h", "n", "n"]),
            helper.make_tensor_value_info("plane", dtype, ["p", "h"]),
            helper.make_tensor_value_info("kept", TensorProto.INT64, ["b", "m"]),
            helper.make_tensor_value_info("stride", TensorProto.INT64, [1]),
            helper.make_tensor_value_info("offset", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info("z", dtype, ["r", "h", "m", "m"])],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(ops.DOMAIN, ops.VERSION)],
        functions=[ops.function("GatherPairs", attributes, opset=opset)],
        ir_version=ops.MIN_IR_VERSION,
    )
    onnx.checker.check_model(model)
    return open_session(model, 1)


def run(
    value: np.ndarray,
    plane: np.ndarray,
    kept: np.ndarray,
    stride: int,
    offset: int,
    opset: int,
    **attributes: int,
) -> np.ndarray:
    feeds = {"value": value, "plane": np.ascontiguousarray(plane), "kept": kept}
    feeds |= {"stride": np.array([stride]), "offset": np.array([offset])}
    got: np.ndarray = session(helper.np_dtype_to_tensor_dtype(value.dtype), opset, **attributes).run(
        None, feeds
    )[0]
    return got


def test_repeated_tokens_are_gathered_though_none_is_gone() -> None:
    """Where rows end in padding, as many tokens do not mean the same tokens."""
    value = np.random.default_rng(3).standard_normal((1, 2, 4, 4)).astype(np.float32)
    plane, kept = value[0].transpose(1, 2, 0).reshape(-1, 2), np.array([[0, 1, 2, 3], [1, 3, 3, 3]])
    got = run(value, plane, kept, 4, 0, 18, always=1)
    np.testing.assert_array_equal(got, np.stack([value[0][:, row][:, :, row] for row in kept]))


SIZES = [(1, 1, 1, 1), (2, 3, 7, 4), (3, 4, 9, 1), (2, 2, 6, 6)]


@pytest.mark.parametrize("opset", [18, 23])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("batch", "heads", "tokens", "left"), SIZES)
def test_picks_rows_and_columns(
    opset: int, dtype: str, batch: int, heads: int, tokens: int, left: int
) -> None:
    rng = np.random.default_rng(tokens)
    value = rng.standard_normal((1, heads, tokens, tokens)).astype(dtype)
    plane = value[0].transpose(1, 2, 0).reshape(-1, heads)
    kept = np.stack([np.sort(rng.permutation(tokens)[:left]) for _ in range(batch)])
    got = run(value, plane, kept, tokens, 0, opset)
    want = np.stack([value[0][:, row][:, :, row] for row in kept])
    if left == tokens:
        assert got.shape[0] == 1
    np.testing.assert_array_equal(np.broadcast_to(got, want.shape), want)


@pytest.mark.parametrize(("batch", "heads", "tokens", "left"), SIZES)
def test_reads_a_table_of_distances(batch: int, heads: int, tokens: int, left: int) -> None:
    rng = np.random.default_rng(tokens)
    centre = tokens + 3
    table = rng.standard_normal((2 * centre, heads)).astype("float32")
    index = np.arange(tokens)
    value = table[centre + index[None, :] - index[:, None]].transpose(2, 0, 1)[None]
    kept = np.stack([np.sort(rng.permutation(tokens)[:left]) for _ in range(batch)])
    got = run(np.ascontiguousarray(value), table, kept, -1, centre, 18)
    want = np.stack([value[0][:, row][:, :, row] for row in kept])
    np.testing.assert_array_equal(np.broadcast_to(got, want.shape), want)
