"""Files of one shape: the same bits, every length a constant, nothing left for the CPU between a GPU's kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests.artefacts import built, component, model
from tests.families.harness import Subject
from tests.models import CONFIGS
from tsmerge_export import ops
from tsmerge_export.backends.onnxruntime.static.check import faults
from tsmerge_export.backends.onnxruntime.static.cuda import on_the_cpu
from tsmerge_export.backends.onnxruntime.static.fold import MOST_BYTES, fixed, known
from tsmerge_export.backends.onnxruntime.static.form import static_form
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.settings.config import MergeConfig

#: What must not be in a file that runs as a CUDA graph, of those kinds that any family has.
VARYING = {"Compress", "If", "Loop", "NonZero", "Range", "Scan", "Shape", "Size", "Unique"}
LOCAL = MergeConfig(ratio="1/4")
MERGES = [
    LOCAL,
    MergeConfig(k=2, ratio="1/3", prop_attn=True),
    MergeConfig(method="global", r=3),
    MergeConfig("none"),
]


def session(proto: onnx.ModelProto, saved: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if saved is not None:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(saved)
    return ort.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])


def check_form(
    portable: onnx.ModelProto, feed: dict[str, np.ndarray], folder: Path, *, far: float = 0.0
) -> onnx.ModelProto:
    """The form at the shapes of a feed: what it computes, up to ``far`` of its scale, and what is in it."""
    form = static_form(portable, {name: value.shape for name, value in feed.items()}, "model")
    onnx.checker.check_model(form)
    for want, found in zip(session(portable).run(None, feed), session(form).run(None, feed), strict=True):
        np.testing.assert_allclose(found, want, rtol=0, atol=far * float(np.abs(want).max(initial=0)))
    for block in (form.graph, *form.functions):
        types = {value.name: value.type for value in (*form.graph.output, *block.value_info)}
        for node in block.node:
            assert node.op_type not in VARYING
            assert all(known(types.get(name)) is not None for name in node.output if name), node
    # What ONNX Runtime itself makes of it, functions expanded and constants folded, is what it places on a device.
    session(form, folder / "optimised.onnx")
    ran = onnx.load(folder / "optimised.onnx")
    assert not {node.op_type for node in ran.graph.node} & VARYING
    return form


@pytest.mark.parametrize("merge", MERGES, ids=lambda merge: merge.describe())
def test_it_computes_the_same(merge: MergeConfig, tmp_path: Path) -> None:
    portable = onnx.load(built("bolt-tiny", merge).merged)
    before = portable.SerializeToString(deterministic=True)
    rng = np.random.default_rng(0)
    context = rng.standard_normal((3, 131)).astype(np.float32)
    context[1, :40] = np.nan
    # Any k but 1 sums what goes into one by a matrix product, whose order is another.
    form = check_form(portable, {"context": context}, tmp_path, far=1e-6 * (merge.k != 1))
    assert portable.SerializeToString(deterministic=True) == before
    assert not on_the_cpu(form)
    assert {node.op_type for node in portable.graph.node} & VARYING
    merges = [[n for n in each.graph.node if n.op_type == "LocalMerge"] for each in (portable, form)]
    assert [n.name for n in merges[1]] == [n.name for n in merges[0]]
    assert list(map(ops.attributes_of, merges[1])) == list(map(ops.attributes_of, merges[0]))
    # A body for each length, which the next layer has another of.
    assert len({node.overload for node in merges[1]}) == len(merges[1])
    again = static_form(portable, {"context": context.shape}, "model")
    assert again.SerializeToString(deterministic=True) == form.SerializeToString(deterministic=True)


def test_its_shape_and_no_other() -> None:
    form = static_form(onnx.load(built("bolt-tiny", LOCAL).merged), {"context": (2, 64)}, "model")
    assert known(form.graph.input[0].type) == (2, 64)
    for shape in ((1, 64), (2, 48), (2, 80)):
        with pytest.raises(Exception, match="Got invalid dimensions"):
            session(form).run(None, {"context": np.zeros(shape, np.float32)})


def test_several_inputs_and_an_output_that_is_a_constant(tmp_path: Path) -> None:
    portable = onnx.load(built("t5-tiny", LOCAL).merged)
    check_form(portable, component("t5-tiny").example(model("t5-tiny"), 2, 40, seed=1), tmp_path)
    text = """
      <ir_version: 10, opset_import: ["" : 18]>
      g (float[B, N] x) => (int64[2] size, float[B, N] y) { size = Shape(x)
      y = Identity(x) }
    """
    check_form(onnx.parser.parse_model(text), {"x": np.ones((2, 3), np.float32)}, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_every_family(family: str, tmp_path: Path) -> None:
    subject = Subject(family, CONFIGS[family])
    merges = subject.family.merge_points(subject.model).count
    portable = onnx.load(subject.built(LOCAL if merges else MergeConfig("none")).merged)
    series = np.random.default_rng(1).standard_normal((3, 57)).astype(np.float32)
    feed = subject.component.from_series(subject.model, series)
    if family == "mamba":
        with pytest.raises(UnsupportedError, match="model: Scan"):
            check_form(portable, feed, tmp_path)
        return
    assert set(on_the_cpu(check_form(portable, feed, tmp_path))) == (
        {"Asinh", "Sinh"} if family == "chronos-2" else set()
    )


@pytest.mark.parametrize(
    ("merge", "said"),
    [
        (
            MergeConfig("dynamic", threshold=0.5),
            "DynamicMerge: how many tokens stay follows from the data, but a file",
        ),
        (
            MergeConfig("pitome", ratio="1/4"),
            "has no form of constant lengths; use --merge local or global, or leave",
        ),
        (MergeConfig(ratio="runtime:1/4"), "its ratio is chosen at run time"),
    ],
)
def test_what_has_no_form(merge: MergeConfig, said: str) -> None:
    portable = onnx.load(built("bolt-tiny", merge).merged)
    with pytest.raises(UnsupportedError, match=said):
        static_form(portable, {"context": (2, 64)}, "model")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("p = NonZero(x)\n y = Cast<to = 1>(p)", "NonZero"),
        ("k = Cast<to = 7>(x)\n l = ReduceMax<keepdims = 0>(k)\n z = Constant<value_int = 0>()\n"
         "o = Constant<value_int = 1>()\n p = Range(z, l, o)\n y = Cast<to = 1>(p)", "Range"),
        # Of a length that is known, yet its kernel waits for the CPU.
        ("a = Cast<to = 7>(x)\n s = ReduceMax<keepdims = 0>(a)\n o = Constant<value_ints = [1]>()\n"
         "t = Reshape(s, o)\n y = CumSum(x, t)", "CumSum"),
        # Shapes of what follows are not known either.
        ("p = NonZero(x)\n q = Cast<to = 1>(p)\n y = Transpose(q)", "2 such nodes|3 such nodes"),
    ],
)  # fmt: skip
def test_lengths_that_follow_from_data(body: str, said: str) -> None:
    text = f'<ir_version: 10, opset_import: ["" : 18]> g (float[N] x) => (float[A] y) {{ {body} }}'
    with pytest.raises(UnsupportedError, match=said):
        static_form(onnx.parser.parse_model(text), {"x": (4,)}, "model")


def test_what_is_not_folded() -> None:
    """What is random, and what would make the file larger; a node on constants alone is no fault."""
    wide = MOST_BYTES // 4 + 1
    text = f"""
      <ir_version: 10, opset_import: ["" : 18]>
      g (float[N] x) => (float[A] y) {{
        n = Shape(x)
        r = ConstantOfShape(n)
        noise = RandomUniformLike<seed = 1.0>(r)
        w = Constant<value_ints = [{wide}]>()
        long = Expand(x, w)
        ones = ConstantOfShape(w)
        sum = Add(long, ones)
        first = ReduceMax<keepdims = 0>(sum)
        y = Add(noise, first)
      }}
    """
    form = fixed(
        onnx.parser.parse_model(text.replace("long = Expand(x, w)", "long = Expand(r, w)")), {"x": (1,)}
    )
    assert {"RandomUniformLike", "ConstantOfShape"} <= {node.op_type for node in form.graph.node}
    assert not {"Shape"} & {node.op_type for node in form.graph.node}
    assert sum(len(tensor.raw_data) for tensor in form.graph.initializer) <= MOST_BYTES
    assert not faults(form)


def test_kinds_without_a_kernel() -> None:
    text = """
      <ir_version: 10, opset_import: ["" : 18]>
      g (float[N] x, int64[N] i) => (float[N] y, int64[N] j) { a = Asinh(x)
      b = Sin(a)
      y = Asinh(b)
      c = ReduceMean<keepdims = 1>(i)
      j = Add(i, c) }
    """
    assert on_the_cpu(fixed(onnx.parser.parse_model(text), {"x": (3,), "i": (3,)})) == {
        "Asinh": 2,
        "ReduceMean": 1,
    }


def test_two_calls_that_differ_in_a_constant_alone_have_bodies_of_their_own() -> None:
    """Of the same types; what the body computes of the constant is another shape."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18, "own" : 1]> '
        "g (float[N] x) => (float[A, B] y, float[C, D] z) <int64[2] tall = {3, 2}, int64[2] wide = {2, 3}> "
        "{ y = own.shaped (x, tall)  z = own.shaped (x, wide) } "
        '<domain: "own", opset_import: ["" : 18]> shaped (x, s) => (y) { t = Identity (s)  y = Reshape (x, t) }'
    )
    made = fixed(model, {"x": (6,)})
    assert len({one.overload for one in made.functions}) == len(made.functions) == 2
    x = np.arange(6, dtype=np.float32)
    y, z = session(made).run(["y", "z"], {"x": x})
    np.testing.assert_array_equal(y, x.reshape(3, 2))
    np.testing.assert_array_equal(z, x.reshape(2, 3))
