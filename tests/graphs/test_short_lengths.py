"""Dims that are as long as a window, until the input is shorter than it: found, and merged right on either side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.graphs.models import export
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.compile.build import merge_and_lower
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.families.base import TensorSpec
from tsmerge_export.graphs import verdicts
from tsmerge_export.graphs.model import GraphModel, GraphOptions, load_graph_model
from tsmerge_export.graphs.prepare import prepare
from tsmerge_export.graphs.sizes import find_sizes
from tsmerge_export.graphs.windows import windows
from tsmerge_export.inspection.feeds import Input, read_inputs
from tsmerge_export.inspection.measure import measure
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify.checks import Checks

# The decoder reads the last eight steps of the input, and as many zeros.
WINDOW = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GraphModel:
    file = tmp_path_factory.mktemp("window") / "window.onnx"
    export("plain", file, old=True, opset=17)
    return load_graph_model(file, GraphOptions())


def steps(length: int) -> dict[str, Any]:
    return {"x": np.random.default_rng(length).standard_normal((2, length, 3)).astype(np.float32)}


@pytest.mark.parametrize("min_tokens", [4, 100_000])
def test_merged_below_the_window_as_above_it(model: GraphModel, min_tokens: int, tmp_path: Path) -> None:
    """Against the untouched graph: with the reference in it, node by node, and by itself where nothing merges."""
    merge = MergeConfig(ratio="1/4", min_tokens=min_tokens)
    built = merge_and_lower(
        model.component, model.measured, merge, inline=False, folder=tmp_path, scratch=tmp_path, stay={}
    )
    assert len(built.report.merges) == 5
    original, unmerged, merged = (
        open_session(one, 1) for one in (model.original, built.unmerged, built.merged)
    )
    reference = verdicts.reference_of(model, merge, built, 1)
    for length in (1, 2, 4, WINDOW - 1, WINDOW, WINDOW + 1):
        feeds, tokens = steps(length), 2 * min(length, WINDOW)
        plain, alone, got = (session.run(["y"], feeds)[0] for session in (original, unmerged, merged))
        want, decided = reference.run(feeds)
        assert decided[3].target.shape == (2, tokens)
        np.testing.assert_allclose(got, want["y"], rtol=1e-4, atol=1e-5)
        if tokens <= min_tokens:
            np.testing.assert_array_equal(got, alone)
            np.testing.assert_allclose(got, plain, rtol=1e-4, atol=1e-5)
        else:
            assert decided[3].kept.shape[1] < tokens
            assert np.abs(got - plain).max() > 1e-3


def test_the_verdict_covers_short_lengths(model: GraphModel, tmp_path: Path) -> None:
    merge = MergeConfig(ratio="1/4", min_tokens=4)
    built = merge_and_lower(
        model.component, model.measured, merge, inline=False, folder=tmp_path, scratch=tmp_path, stay={}
    )
    found = verdicts.parity(model, merge, built, Checks(threads=1), progress=lambda *_: None)
    assert found.passed
    assert {2, 3} <= {case.tokens[0] for case in found.details or ()}


GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[batch, n] x) => (float[batch, n] y)
{
    from = Constant <value_ints = [-8]> ()
    end = Constant <value_ints = [9223372036854775807]> ()
    one = Constant <value_ints = [1]> ()
    last = Slice (x, from, end, one)
    fixed = Constant <value_ints = [6]> ()
    zero = Constant <value_ints = [0]> ()
    shape = Shape (x)
    n = Gather (shape, one)
    least = Max (n, fixed)
    missing = Sub (least, n)
    pads = Concat <axis = 0> (zero, missing, zero, zero)
    filled = Pad (x, pads)
    sum = ReduceSum <keepdims = 1> (filled, one)
    y = Add (x, sum)
}
"""


def test_cuts_and_paddings_are_no_fixed_length() -> None:
    plain = onnx.parser.parse_model(GRAPH)
    inputs, session = read_inputs(plain, "g"), open_session(plain, 1)
    found = find_sizes(lambda feeds: session.run(None, feeds), inputs, "g")
    assert [sizes["n"] for sizes in found.short] == [2, 3]
    measured, _ = measure(plain, found.inputs, (*found.sizes, *found.short))
    values = (value for node in measured.graph for value in node.outputs)
    dims = {value.name: str(value.shape[1]) for value in values if value.shape and len(value.shape) == 2}
    assert dims["sum"] == "1" and dims["y"] == "n"
    assert len({"n", "8", dims["last"], dims["filled"]}) == 4


@pytest.mark.parametrize(
    ("runs", "short"),
    [
        (lambda a, b: a % 8 == b % 8 == 0, [(8, 8)]),
        (lambda a, b: b > 20, [(2, 29), (3, 29), (29, 24)]),
        (lambda a, b: a == b == 29, []),
    ],
    ids=["multiples", "one is long", "fixed"],
)
def test_the_shortest_lengths_that_run(runs: Any, short: list[tuple[int, int]]) -> None:
    value = onnx.helper.make_tensor_value_info
    ends = [value(name, 1, ["n0", name]) for name in "ab"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Sum", ["a", "b"], ["y"])], "g", ends, [value("y", 1, None)]
    )

    def run(feeds: dict[str, Any]) -> None:
        if not runs(feeds["a"].shape[1], feeds["b"].shape[1]):
            raise ValueError

    found = find_sizes(run, read_inputs(onnx.helper.make_model(graph), "g"), "g")
    assert [(sizes["a"], sizes["b"]) for sizes in found.short] == short


def test_a_search_for_sizes_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that fails late, behind products of [tokens, tokens] matrices: 16,000 tokens would take minutes."""
    now, tried = [0.0], []

    def run(feeds: dict[str, np.ndarray]) -> None:
        batch, length, _ = feeds["x"].shape
        tried.append(length)
        now[0] += batch * (length / 1000) ** 3 / 20
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr("tsmerge_export.graphs.sizes.time.monotonic", lambda: now[0])
    x = Input(TensorSpec("x", "float32", ("batch", "tokens", 8)), "values")
    with pytest.raises(UnsupportedError, match=r"lengths 29 to 4000 tried.*shapes do not fit"):
        find_sizes(run, [x], "m.onnx")
    assert max(tried) == 4000
    monkeypatch.setenv("TSMERGE_MAX_SECONDS", "5000")
    with pytest.raises(UnsupportedError, match="lengths 29 to 16000 tried"):
        find_sizes(run, [x], "m.onnx")


WIDE = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[batch, n, 4] x) => (float[batch, m, 2] y, float[batch, f, 1] filled)
{
    from = Constant <value_ints = [-1000]> ()
    end = Constant <value_ints = [9223372036854775807]> ()
    one = Constant <value_ints = [1]> ()
    last = Slice (x, from, end, one)
    zero = Constant <value_ints = [0]> ()
    some = Constant <value_ints = [3000]> ()
    two = Constant <value_ints = [2]> ()
    y = Slice (last, zero, two, two)
    thin = Slice (x, zero, one, two)
    least = Constant <value_ints = [600]> ()
    shape = Shape (x)
    n = Gather (shape, one)
    most = Max (n, least)
    missing = Sub (most, n)
    pads = Concat <axis = 0> (zero, zero, zero, zero, missing, zero)
    filled = Pad (thin, pads)
}
"""


def test_a_window_longer_than_what_is_tried_has_a_name_of_its_own(tmp_path: Path) -> None:
    """The last 1,000 steps, and at least 600: neither is as long as the input, nor a number."""
    file = tmp_path / "wide.onnx"
    onnx.save(onnx.parser.parse_model(WIDE), file)
    found = load_graph_model(file, GraphOptions())
    (given,), (last, filled) = found.component.inputs, found.component.outputs
    assert given.dims == ("batch", "n", 4)
    assert {len(spec.dims) for spec in (last, filled)} == {3}
    assert last.dims[0] == filled.dims[0] == "batch"
    assert len({"n", last.dims[1], filled.dims[1]}) == 3
    assert isinstance(last.dims[1], str) and isinstance(filled.dims[1], str)
    assert max(sizes["n"] for sizes in found.short) == 1005


def test_numbers_that_are_no_windows_cost_nothing(model: GraphModel) -> None:
    """A cut along features, an end that stands for any, a window that was passed: no more runs."""
    assert windows(model.measured, 58) == []
    text = WIDE.replace("[-1000]", "[-20]").replace("[600]", "[30]")
    plain = prepare(onnx.parser.parse_model(text), "g")
    inputs = read_inputs(plain, "g")
    measured, _ = measure(plain, inputs, [{"batch": 2, "n": 29}, {"batch": 3, "n": 58}])
    assert windows(measured, 58) == []
    assert windows(measured, 20) == [30, 20]
