"""The cost model: what is counted, and constants that are known."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

from tests import artefacts
from tsmerge_export.inspection.flops import shrinking_share
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.advise.cost_model import Work, fit, time_of, work_of

pytest.importorskip("scipy", reason="scipy is not installed: pip install scipy")


def test_nodes_products_and_values_of_a_graph() -> None:
    model = parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]> g (float[N, 3] x, float[3, 4] w) => (float[M] z) '
        "{ y = MatMul(x, w) s = Constant<value = int64[1] {-1}>() f = Reshape(y, s) z = Relu(f) }"
    )
    inputs = {"x": np.ones((2, 3), np.float32), "w": np.ones((3, 4), np.float32)}
    # A Constant is no node at run time; Reshape is one, but writes nothing.
    assert work_of(model, inputs) == Work(nodes=3, flops=2 * 2 * 3 * 4, values=8 + 8)


def test_constants_are_found_again() -> None:
    rng = np.random.default_rng(0)
    works = [Work(100, int(10**e), int(rng.integers(10**4, 10**6))) for e in np.linspace(6, 10, 7)]
    true = np.array([2e-6, 3e-11, 4e-9])
    times = [float(work.row @ true) for work in works]
    model = fit(works, times)
    assert model.constants == pytest.approx(true, rel=1e-6)
    assert model.seconds(Work(10, 10**9, 10**5)) == pytest.approx(2e-5 + 3e-2 + 4e-4)


def test_no_constant_is_negative() -> None:
    works = [Work(10, 10**n, 10**3) for n in (6, 7, 8)]
    model = fit(works, [1e-3, 1.2e-3, 0.9e-3])
    assert min(model.constants) >= 0
    assert model.seconds(works[0]) > 0


def test_the_time_is_that_of_the_fastest_run(monkeypatch: pytest.MonkeyPatch) -> None:
    # Begin, then start and end of three runs that take 5, 2 and 3 seconds.
    ticks = iter([0.0, 1.0, 6.0, 10.0, 12.0, 20.0, 23.0])
    monkeypatch.setattr("tsmerge_export.tools.advise.cost_model.time.perf_counter", lambda: next(ticks))
    calls: list[int] = []
    assert time_of(lambda: calls.append(1), runs=3) == 2.0
    assert len(calls) == 2 + 3


def test_the_share_that_shrinks() -> None:
    merge = MergeConfig(ratio="1/2")
    graph = onnx.load(artefacts.built("bolt-tiny", merge).merged)
    component, model = artefacts.component("bolt-tiny"), artefacts.model("bolt-tiny")
    long, short = (component.example(model, 2, length) for length in (240, 16))
    share = shrinking_share(graph, long)
    # The first layer's attention runs before anything merges, and the decoder has one token.
    assert 0.5 < share < 0.95
    assert shrinking_share(graph, short) == 0  # three tokens: min_tokens keeps all
