"""Graphs put together in ways of their own, written by hand: each was once refused, wrong, or slow for no reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper, reference

from tests.graphs.bundles import bundle_of
from tsmerge_export import api
from tsmerge_export.checkpoint import load_model
from tsmerge_export.checkpoint.onnx_file import read_onnx
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.graphs.model import GraphOptions, load_graph_model
from tsmerge_export.graphs.prepare import prepare
from tsmerge_export.graphs.sizes import find_sizes
from tsmerge_export.graphs.unfuse import unfuse
from tsmerge_export.inspection.feeds import read_inputs
from tsmerge_export.settings.config import MergeConfig

WIDTH = 8
FLOAT = TensorProto.FLOAT


class Graph:
    """Writes nodes and weights of tokens ``[batch, tokens, 8]``."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(0)

    def op(self, op_type: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        name = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], name=f"n_{name}", **attributes))
        return name

    def weight(self, *shape: int) -> str:
        return self.constant(self._rng.standard_normal(shape).astype(np.float32) / shape[0] ** 0.5)

    def constant(self, value: Any) -> str:
        array = np.asarray(value)
        self.weights.append(numpy_helper.from_array(array, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def product(self, x: str) -> str:
        return self.op("MatMul", [x, self.weight(WIDTH, WIDTH)])

    def mixed(self, x: str, memory: str = "", product: Callable[[str], str] | None = None) -> str:
        """What attention adds to ``x``."""
        product = product or self.product
        keys = self.op("Transpose", [self.product(memory or x)], perm=[0, 2, 1])
        scores = self.op("MatMul", [product(x), keys])
        weights = self.op("Softmax", [scores], axis=-1)
        return product(self.op("MatMul", [weights, self.product(memory or x)]))

    def feed_forward(self, x: str) -> str:
        return self.product(self.op("Relu", [self.product(x)]))

    def block(self, x: str) -> str:
        x = self.op("Add", [x, self.mixed(x)])
        return self.op("Add", [x, self.feed_forward(x)])

    def save(
        self,
        path: Path,
        y: str,
        shape: Sequence[Any] = ("b", "n", WIDTH),
        opset: int = 18,
        **more: Sequence[Any],
    ) -> Path:
        """Input ``x`` and those of ``more``, output ``y``."""
        self.op("Identity", [y], "y")
        inputs = [
            helper.make_tensor_value_info(name, FLOAT, own) for name, own in ({"x": shape} | more).items()
        ]
        graph = helper.make_graph(
            self.nodes, "odd", inputs, [helper.make_tensor_value_info("y", FLOAT, None)], self.weights
        )
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path
        )
        return path


def merged(file: Path, merges: int, barriers: Sequence[str] = ()) -> tuple[Any, ort.InferenceSession]:
    """The manifest of a bundle whose parity holds, and its file."""
    bundle = bundle_of(file)
    part = bundle.manifest["components"][0]
    assert bundle.verdicts["parity"]["passed"] and len(part["merges"]) == merges
    assert [barrier["op_type"] for barrier in part["barriers"]] == list(barriers)
    return bundle.manifest, ort.InferenceSession(bundle.component("model").file)


def test_parallel_blocks(tmp_path: Path) -> None:
    """GPT-NeoX: attention and feed-forward read the same tokens, and are added to each other first."""
    g, x = Graph(), "x"
    for _ in range(2):
        x = g.op("Add", [g.op("Add", [g.feed_forward(x), g.mixed(x)]), x])
    merged(g.save(tmp_path / "m.onnx", x), 2)


def test_cross_attention_stays_none(tmp_path: Path) -> None:
    """The Add behind cross-attention is that of no parallel block, whatever else is added there."""
    g = Graph()
    y = g.op("Add", [g.op("Add", [g.mixed("x", "memory"), g.feed_forward("x")]), "x"])
    file = g.save(tmp_path / "m.onnx", y, memory=["b", "n", WIDTH])
    with pytest.raises(UnsupportedError, match="cross-attention"):
        bundle_of(file)


def test_lengths_of_encoder_and_decoder_stay_apart(tmp_path: Path) -> None:
    """Four lengths of which two and two are equal: tied as little as the graph allows, and said where none merges."""
    g = Graph()
    memory = g.block(g.op("Add", ["x", g.op("Unsqueeze", ["attention_mask", g.constant([2])])]))
    own = g.block(g.op("Add", ["z", g.op("Unsqueeze", ["other_mask", g.constant([2])])]))
    y = g.op("Add", [own, g.mixed(own, memory)])
    file = g.save(
        tmp_path / "m.onnx",
        y,
        ["b", "n", WIDTH],
        attention_mask=["b", "m"],
        z=["b", "k", WIDTH],
        other_mask=["b", "l"],
    )
    manifest, session = merged(file, 2)
    assert [item["dims"][1] for item in manifest["components"][0]["inputs"]] == ["n", "n", "k", "k"]
    notes = manifest["verdicts"]["cost"]["notes"]
    assert any("1 of 3 attentions are no place to merge" in note for note in notes)
    sizes = {"x": (2, 24, WIDTH), "attention_mask": (2, 24), "z": (2, 9, WIDTH), "other_mask": (2, 9)}
    found = session.run(["y"], {name: np.ones(shape, np.float32) for name, shape in sizes.items()})
    assert found[0].shape == (2, 9, WIDTH)


def test_token_mask_is_as_long_as_the_tokens(tmp_path: Path) -> None:
    """A graph that cuts its mask to length runs with longer ones too; that must not lose it."""
    g = Graph()
    ends = [g.op("Shape", ["x"], start=axis, end=axis + 1) for axis in (1,)]
    cut = g.op("Slice", ["attention_mask", g.constant([0]), *ends, g.constant([1])])
    x = g.block(g.op("Mul", ["x", g.op("Unsqueeze", [cut, g.constant([2])])]))
    file = g.save(tmp_path / "m.onnx", x, attention_mask=["b", "m"])
    model = load_graph_model(file, GraphOptions())
    assert [item.spec.dims for item in model.inputs] == [("batch", "n", WIDTH), ("batch", "n")]
    assert merged(file, 1)[0]["graph"]["token_mask"] == "attention_mask"


@pytest.mark.parametrize("layout", ["no batch", "time first"])
def test_first_axis_is_no_batch(layout: str, tmp_path: Path) -> None:
    g = Graph()
    if layout == "no batch":
        x = g.block(g.op("Unsqueeze", ["x", g.constant([0])]))
        y, shape, barrier = g.op("Squeeze", [x, g.constant([0])]), ["n", WIDTH], "Squeeze"
    else:
        x = g.block(g.op("Transpose", ["x"], perm=[1, 0, 2]))
        y, shape, barrier = g.op("Transpose", [x], perm=[1, 0, 2]), ["n", "batch", WIDTH], "Transpose"
    file = g.save(tmp_path / "m.onnx", y, shape)
    model = load_graph_model(file, GraphOptions())
    assert not model.batch_first
    assert model.inputs[0].spec.dims == (
        ("length", WIDTH) if layout == "no batch" else ("length", "batch", WIDTH)
    )
    bundle = bundle_of(file)
    assert bundle.verdicts["parity"]["passed"]
    assert {found["op_type"] for found in bundle.manifest["components"][0]["barriers"]} <= {barrier}
    assert bundle.verdicts["cost"]["speed"]["length"] == 40


@pytest.mark.parametrize("inline", [False, True])
def test_bundles_are_no_models(inline: bool, tmp_path: Path) -> None:
    g = Graph()
    file = g.save(tmp_path / "m.onnx", g.block("x"))
    bundle = api.export(file, MergeConfig(), output=tmp_path / "m", inline=inline, threads=1)
    with pytest.raises(UnsupportedError, match="merges tokens already"):
        read_onnx(bundle.component("model").file)
    with pytest.raises(UsageError, match="is a bundle; give the model"):
        load_model(bundle.path)
    other = Graph()
    wrong = other.save(tmp_path / "o.onnx", other.block(other.op("Add", ["x", "z"])), z=["b", "n", WIDTH])
    with pytest.raises(UsageError, match="made from another model, with inputs x; here they are x, z"):
        api.validate(bundle.path, wrong, threads=1)


@pytest.mark.parametrize("kind", ["If", "Scan"])
def test_subgraphs_read_unmerged_tokens(kind: str, tmp_path: Path) -> None:
    """Tokens that a branch or a body captures are unmerged; an If has no other inputs that would say so."""
    g = Graph()
    x = g.block("x")
    inner = Graph()
    inner.nodes.append(helper.make_node("ReduceSum", [x, "axes"], ["total"], name="total", keepdims=1))
    axes = g.constant(np.array([1]))
    inner.nodes[0].input[1] = axes
    if kind == "If":
        inner.nodes.append(helper.make_node("Add", [x, "total"], ["out"], name="out"))
        branch = helper.make_graph(
            inner.nodes, "branch", [], [helper.make_tensor_value_info("out", FLOAT, None)]
        )
        yes = g.op("Greater", [g.op("ReduceMax", ["x"], keepdims=0), g.constant(np.float32(-9e9))])
        y = g.op("If", [yes], then_branch=branch, else_branch=branch)
    else:
        inner.nodes.append(helper.make_node("Add", ["step", "total"], ["out"], name="out"))
        own = helper.make_tensor_value_info("step", FLOAT, None)
        made = helper.make_tensor_value_info("out", FLOAT, ["rows", 1, WIDTH])
        inner.nodes[0].input[0] = x
        body = helper.make_graph(inner.nodes, "body", [own], [made])
        steps = g.constant(np.zeros((2, 1, 1, WIDTH), np.float32))
        y = g.op("ReduceMax", [g.op("Scan", [steps], body=body, num_scan_inputs=1)], keepdims=0)
    merged(g.save(tmp_path / "m.onnx", y), 1, [kind])


@pytest.mark.parametrize("heads", [1, 2])
def test_batch_and_tokens_folded_around_products(heads: int, tmp_path: Path) -> None:
    """``view(-1, d)``, Gemm and Relu, ``view`` back, as in GPT-2: no barrier."""
    g = Graph()
    rows = g.constant([-1, WIDTH])

    def back(flat: str) -> str:
        return g.op(
            "Reshape",
            [flat, g.op("Concat", [g.op("Shape", ["x"], start=0, end=2), g.constant([WIDTH])], axis=0)],
        )

    def product(x: str) -> str:
        if heads > 1:  # from [batch, tokens, heads, features] at once
            x = g.op("Reshape", [x, g.constant([0, 0, heads, WIDTH // heads])])
        return back(g.op("Gemm", [g.op("Reshape", [x, rows]), g.weight(WIDTH, WIDTH), g.weight(WIDTH)]))

    def gated(x: str) -> str:
        flat = g.op("Reshape", [x, rows])
        first = g.op("Gemm", [flat, g.weight(16, WIDTH), g.weight(16)], transB=1)
        both = g.op("Mul", [g.op("Relu", [first]), g.op("Gemm", [flat, g.weight(WIDTH, 16)])])
        return back(g.op("Gemm", [both, g.weight(16, WIDTH)]))

    x = g.op("Add", ["x", g.mixed("x", product=product)])
    x = g.op("Add", [x, gated(x)])
    merged(g.save(tmp_path / "m.onnx", g.block(x)), 2)


@pytest.mark.parametrize(("reader", "barriers"), [("sum", ["ReduceMean"]), ("output", [])])
def test_what_is_read_folded_stays_folded(reader: str, barriers: list[str], tmp_path: Path) -> None:
    """A sum over all rows of the batch is a barrier, not something to unfold; an output is unmerged as it lies."""
    g = Graph()
    x = g.block("x")
    flat = g.op("Gemm", [g.op("Reshape", [x, g.constant([-1, WIDTH])]), g.weight(WIDTH, WIDTH)])
    y = g.op("Reshape", [flat, g.op("Shape", [x])])
    if reader == "sum":
        y = g.op("Add", [y, g.op("ReduceMean", [flat], keepdims=0)])
    file = g.save(tmp_path / "m.onnx", y)
    if reader == "output":
        model = onnx.load(file)
        model.graph.output.append(helper.make_tensor_value_info(flat, FLOAT, None))
        onnx.save(model, file)
    merged(file, 1, barriers)


def test_written_in_any_order(tmp_path: Path) -> None:
    """Nodes that read what comes later in the file, in an old format that lists no weights; a cache that is empty."""
    g = Graph()
    x = g.op("Concat", [g.block(g.block("x"))], axis=1)
    file = g.save(tmp_path / "m.onnx", x, opset=13)
    model = onnx.load(file)
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.ir_version = 3
    onnx.save(model, file)
    merged(file, 2)


def test_batch_normalisation(tmp_path: Path) -> None:
    """Over features, as PatchTST has it: followed by rewriter and reference alike."""
    g, x = Graph(), "x"
    for _ in range(2):
        x = g.block(x)
        numbers = [g.constant(np.linspace(0.5, 1.5, WIDTH, dtype=np.float32)) for _ in range(4)]
        turned = g.op("Transpose", [x], perm=[0, 2, 1])
        x = g.op("Transpose", [g.op("BatchNormalization", [turned, *numbers])], perm=[0, 2, 1])
    merged(g.save(tmp_path / "m.onnx", x), 2)


@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("positions", [False, True], ids=["rows", "positions"])
@pytest.mark.parametrize("width", [0, 4])
@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary_embedding_written_out(rank: int, positions: bool, width: int, interleaved: int) -> None:
    rng = np.random.default_rng(0)
    half = (width or 8) // 2
    shapes = {"x": (2, 5, 24) if rank == 3 else (2, 3, 5, 8)}
    shapes |= dict.fromkeys(("cos", "sin"), (7, half) if positions else (2, 5, half))
    feeds: dict[str, Any] = {
        name: rng.standard_normal(own).astype(np.float32) for name, own in shapes.items()
    }
    if positions:
        feeds["places"] = rng.integers(0, 7, (2, 5))
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feeds.items()
    ]
    node = helper.make_node(
        "RotaryEmbedding",
        list(feeds),
        ["y"],
        num_heads=3,
        interleaved=interleaved,
        rotary_embedding_dim=width,
    )
    graph = helper.make_graph([node], "rotary", inputs, [helper.make_tensor_value_info("y", FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    want = reference.ReferenceEvaluator(model).run(None, feeds)[0]
    unfuse(model)
    assert "RotaryEmbedding" not in {node.op_type for node in model.graph.node}
    got = ort.InferenceSession(model.SerializeToString()).run(None, feeds)[0]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_nothing_removed_is_said(tmp_path: Path) -> None:
    g = Graph()
    bundle = bundle_of(g.save(tmp_path / "m.onnx", g.block("x"), [2, 3, WIDTH]), MergeConfig(min_tokens=4))
    assert any("no token was removed" in note for note in bundle.verdicts["cost"]["notes"])
    assert bundle.verdicts["cost"]["speed"]["length"] == 3


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        (TensorProto.BFLOAT16, ["b", 8], "'x' is bfloat16; give a float32 export"),
        (FLOAT, ["b", 0, 8], r"'x' is \['b', 0, 8\] and holds nothing"),
        (TensorProto.STRING, ["b"], "neither numbers nor booleans"),
    ],
)
def test_inputs_that_nothing_can_be_made_up_for(kind: int, shape: list[Any], message: str) -> None:
    x = helper.make_tensor_value_info("x", kind, shape)
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "g", [x], [helper.make_tensor_value_info("y", kind, None)])
    with pytest.raises(UnsupportedError, match=message):
        read_inputs(helper.make_model(graph), "m.onnx")


def test_cycle() -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    x, y = (helper.make_tensor_value_info(name, FLOAT, ["b"]) for name in ("x", "b"))
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 18)]
    )
    with pytest.raises(UnsupportedError, match="form a cycle"):
        prepare(model, "m.onnx")


def test_splits_of_lengths() -> None:
    """Only a = b and c = d = e is needed."""
    names = "abcde"
    values = [helper.make_tensor_value_info(name, FLOAT, ["n0", name]) for name in names]
    node = helper.make_node("Sum", list(names), ["y"])
    model = helper.make_model(
        helper.make_graph([node], "g", values, [helper.make_tensor_value_info("y", FLOAT, None)])
    )
    inputs = read_inputs(model, "m")

    def run(feeds: dict[str, Any]) -> None:
        a, b, c, d, e = (feeds[name].shape[1] for name in names)
        if a != b or not c == d == e:
            raise ValueError

    found = find_sizes(run, inputs, "m")
    assert [item.spec.dims[1] for item in found.inputs] == ["a", "a", "c", "c", "c"]


def test_channels_declared_dynamic(tmp_path: Path) -> None:
    """A convolution's weights fix them, here 2 groups of 3; made-up channels would be as many as steps."""
    weights = numpy_helper.from_array(np.ones((4, 3, 1), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], group=2)],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["batch", "channels", "steps"])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [weights],
    )
    (found,) = read_inputs(helper.make_model(graph), "m.onnx")
    assert found.spec.dims == ("batch", 6, "steps")
