"""Single nodes of a graph, run alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from tsmerge_export.errors import UnsupportedError
from tsmerge_export.graphs.nodes import NodeRunner


def _runner() -> NodeRunner:
    graph = helper.make_graph([], "g", [], [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    assert isinstance(model, onnx.ModelProto)
    return NodeRunner(model, {"x": np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)}, 1)


def test_resize_to_sizes_of_run_time() -> None:
    """Its shape inference wants to know how many sizes there are; another run may have others (BEiT, old exporter)."""
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], name="resize", mode="nearest")
    runner, x = _runner(), np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    for scale in (2, 3):
        sizes = np.array([1, 1, 2 * scale, 2 * scale])
        (found,) = runner.run(node, {"x": x, "sizes": sizes})
        assert found is not None and found.shape == tuple(sizes)
    (found,) = runner.run(node, {"x": x, "sizes": np.array([1, 1, 4, 4])})
    np.testing.assert_array_equal(found, x.repeat(2, 2).repeat(2, 3))


def test_a_node_that_does_not_run_alone_is_named() -> None:
    node = helper.make_node("NoSuchOperator", ["x"], ["y"], name="odd")
    with pytest.raises(UnsupportedError, match=r"node 'odd' \(NoSuchOperator\): ONNX Runtime does not run"):
        _runner().run(node, {"x": np.zeros((1, 1, 2, 2), np.float32)})
