"""FLOP counts against hand counts and torch's counter; inspect on a graph with merge nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.inspection import flops
from tsmerge_export.inspection.inspect import inspect_file, inspect_path

FUNCTION = """
<domain: "tsmerge", opset_import: ["" : 18]>
LocalMerge <r: int = 0, ratio_num: int = 0, ratio_den: int = 1, k: int = 1, min_tokens: int = 0> (x) => (y)
{
    n = Shape <start = 1, end = 2> (x)
    r = Constant <value_int: int = @r> ()
    num = Constant <value_int: int = @ratio_num> ()
    den = Constant <value_int: int = @ratio_den> ()
    share = Mul (n, num)
    part = Div (share, den)
    wanted = Add (part, r)
    least = Constant <value_int: int = @min_tokens> ()
    spare = Sub (n, least)
    none = Constant <value_ints = [0]> ()
    spare_least = Max (spare, none)
    removed = Min (wanted, spare_least)
    m = Sub (n, removed)
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    cut = Slice (x, zero, m, one)
    turned = Transpose <perm = [0, 2, 1]> (cut)
    scores = MatMul (cut, turned)
    waste = ReduceSum <keepdims = 0> (scores)
    nothing = Sub (waste, waste)
    y = Add (cut, nothing)
}
"""


def graph(path: Path) -> Path:
    """``x [batch, length, 4] -> MatMul [4, 6] -> LocalMerge(1/4) -> LocalMerge(r 2) -> MatMul [6, 3] -> Gemm``."""
    rng = np.random.default_rng(0)

    def weight(name: str, *dims: int) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(rng.normal(size=dims).astype(np.float32), name)

    merge = {"domain": "tsmerge", "r": 0, "ratio_num": 0, "ratio_den": 1, "k": 1, "min_tokens": 0}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node(
            "LocalMerge", ["h"], ["h1"], name="first", **{**merge, "ratio_num": 1, "ratio_den": 4}
        ),
        helper.make_node("LocalMerge", ["h1"], ["h2"], name="second", **{**merge, "r": 2}),
        helper.make_node("MatMul", ["h2", "b"], ["g"]),
        helper.make_node("ReduceMean", ["g", "axis"], ["mean"], keepdims=0),
        helper.make_node("Gemm", ["mean", "c"], ["y"], transB=1),
    ]
    for key, value in (("tsmerge.layer", "3"), ("tsmerge.scope", "encoder.block.3")):
        nodes[1].metadata_props.add(key=key, value=value)
    nodes[3].metadata_props.add(key="tsmerge.barrier", value="made up")
    axis = onnx.numpy_helper.from_array(np.array([1]), "axis")
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        [weight("a", 4, 6), weight("b", 6, 3), weight("c", 5, 3), axis],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("tsmerge", 1)]
    function = onnx.parser.parse_function(FUNCTION)
    onnx.save(helper.make_model(made, opset_imports=opsets, functions=[function], ir_version=10), path)
    return path


def test_counts_by_hand(tmp_path: Path) -> None:
    found = inspect_file(graph(tmp_path / "g.onnx"), batch=2, length=16)
    # Tokens: 16 -> 12 -> 10. Multiply and add are two.
    merged = 2 * 2 * (16 * 4 * 6 + 10 * 6 * 3 + 3 * 5)
    assert found["flops"]["merged"] == merged
    assert found["flops"]["unmerged"] == 2 * 2 * (16 * 4 * 6 + 16 * 6 * 3 + 3 * 5)
    inside = 2 * 2 * (12 * 12 * 6 + 10 * 10 * 6)
    assert found["flops"]["merge_nodes"] == inside
    assert found["flops"]["ratio"] == pytest.approx(found["flops"]["unmerged"] / (merged + inside))
    assert [(m["name"], m["layer"], m["scope"], m["before"], m["after"]) for m in found["merges"]] == [
        ("first", 3, "encoder.block.3", 16, 12),
        ("second", None, None, 12, 10),
    ]
    assert found["merges"][0]["attributes"] == {
        "r": 0,
        "ratio_num": 1,
        "ratio_den": 4,
        "k": 1,
        "min_tokens": 0,
    }
    assert [(b["op_type"], b["reason"]) for b in found["barriers"]] == [("MatMul", "made up")]
    assert found["nodes"] == {"Gemm": 1, "MatMul": 2, "ReduceMean": 1, "tsmerge::LocalMerge": 2}
    assert found["opset"] == 18


def test_counting_changes_nothing(tmp_path: Path) -> None:
    model = onnx.load(graph(tmp_path / "g.onnx"))
    before = model.SerializeToString(deterministic=True)
    flops.count(flops.without_merging(model), flops.feeds(model, 1, 8))
    assert model.SerializeToString(deterministic=True) == before


def test_against_torchs_counter(tmp_path: Path) -> None:
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    x = torch.randn(2, 12, 16)
    file = tmp_path / "layer.onnx"
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        torch.onnx.export(layer, (x,), file, dynamo=True, opset_version=18, verbose=False)
        # The fused CPU kernel of attention is unknown to the counter.
        with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            layer(x)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    model = flops.load_graph(file)
    assert flops.count(model, flops.feeds(model, 2, 12)).total == counter.get_total_flops()


def test_feeds(tmp_path: Path) -> None:
    kinds = {"ids": TensorProto.INT64, "mask": TensorProto.BOOL, "x": TensorProto.FLOAT16}
    inputs = [helper.make_tensor_value_info(name, kind, ["rows", "steps", 3]) for name, kind in kinds.items()]
    outputs = [helper.make_tensor_value_info("x_out", TensorProto.FLOAT16, None)]
    made = helper.make_graph([helper.make_node("Identity", ["x"], ["x_out"])], "g", inputs, outputs)
    feeds = flops.feeds(helper.make_model(made), 2, 7)
    assert {name: (array.shape, str(array.dtype)) for name, array in feeds.items()} == {
        "ids": ((2, 7, 3), "int64"),
        "mask": ((2, 7, 3), "bool"),
        "x": ((2, 7, 3), "float16"),
    }
    assert feeds["mask"].all()


def test_size_that_does_not_run(tmp_path: Path) -> None:
    path = graph(tmp_path / "g.onnx")
    model = flops.load_graph(path)
    model.graph.initializer[0].dims[:] = [6, 4]
    with pytest.raises(UnsupportedError, match=r"does not run on x \[1, 1, 4\]"):
        flops.count(model, flops.feeds(model, 1, 1))
    (tmp_path / "x.onnx").write_bytes(b"\xff\xff")
    with pytest.raises(UsageError, match="truncated or not an ONNX file"):
        inspect_path(tmp_path / "x.onnx")
    (tmp_path / "x.onnx").write_bytes(b"")
    with pytest.raises(UsageError, match="truncated or not an ONNX file"):
        inspect_path(tmp_path / "x.onnx")


def test_length_that_the_file_runs_at(tmp_path: Path) -> None:
    """A model with 100 positions runs at 64, not at 512."""
    weights = onnx.numpy_helper.from_array(np.ones((100, 4), np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    value = [onnx.helper.make_tensor_value_info(name, 1, ["batch", "length"]) for name in "xp"]
    cut = [
        onnx.helper.make_node("Shape", ["x"], ["n"], start=1),
        onnx.helper.make_node("Constant", [], ["zero"], value_ints=[0]),
        onnx.helper.make_node("Slice", ["w", "zero", "n"], ["own"]),
    ]
    node.input[1] = "own"
    out = [onnx.helper.make_tensor_value_info("y", 1, None)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([*cut, node], "g", value[:1], out, [weights]),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=8,
    )
    onnx.save(model, tmp_path / "g.onnx")
    found = inspect_file(tmp_path / "g.onnx")
    assert found["length"] == 64 and found["flops"]["merged"] == 2 * 64 * 4
    with pytest.raises(UnsupportedError, match="does not run on x"):
        inspect_file(tmp_path / "g.onnx", length=512)
