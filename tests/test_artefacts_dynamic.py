"""Whole models with dynamic merging: parity, bit identity where nothing merges, the other runtimes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests import artefacts, web
from tests.test_artefacts import NAMES, parity_of, some_cases
from tsmerge_export.config import MergeConfig

RUNTIMES = pytest.mark.parametrize("name", ["bolt-nano", "t5-nano"])


def layers(name: str) -> int:
    return artefacts.family(name).merge_points(artefacts.model(name)).count


@pytest.mark.parametrize(
    ("threshold", "k"), [(0.9, 1), (0.5, 1), (0.5, 2), (1.0, "global"), (0.7, "global"), ("per layer", 1)]
)
@pytest.mark.parametrize("name", NAMES)
def test_parity(name: str, threshold: float | str, k: int | str) -> None:
    if threshold == "per layer":
        threshold = ",".join(str(0.8 - 0.2 * layer) for layer in range(layers(name)))
    merge = MergeConfig(
        method="dynamic", k=k, threshold=threshold, positions="compact" if k == 2 else "gather"
    )
    built = artefacts.built(name, merge)
    report = parity_of(name, merge, built, some_cases(name))
    assert report.failures == []
    assert report.passed
    assert built.report.barriers == []
    assert [entry.op_type for entry in built.report.merges] == ["DynamicMerge"] * layers(name)


@pytest.mark.parametrize("name", ["bolt-tiny", "t5-tiny"])
def test_parity_fails_for_another_threshold(name: str) -> None:
    built = artefacts.built(name, MergeConfig(method="dynamic", threshold=0.5))
    other = MergeConfig(method="dynamic", threshold=-0.5)
    assert not parity_of(name, other, built, some_cases(name)[3:4]).passed


@pytest.mark.parametrize(
    "merge",
    [
        MergeConfig(method="dynamic", threshold=-1, min_tokens=100_000),
        MergeConfig(method="dynamic", threshold=-1, k="global", min_tokens=100_000, positions="compact"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_merge_is_bit_identical_to_the_unmerged_file(name: str, merge: MergeConfig) -> None:
    built = artefacts.built(name, merge)
    nodes = [node for node in onnx.load(built.merged).graph.node if node.op_type == "DynamicMerge"]
    assert len(nodes) == layers(name)
    plain, merged = (ort.InferenceSession(str(file)) for file in (built.unmerged, built.merged))
    for case in some_cases(name):
        inputs = artefacts.component(name).from_series(artefacts.model(name), case.series())
        for want, got in zip(plain.run(None, inputs), merged.run(None, inputs), strict=True):
            assert want.tobytes() == got.tobytes()


def _same(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=5e-5 * max(np.abs(want).max(), 1e-30))


@RUNTIMES
def test_onnxruntime_web_computes_the_same(name: str) -> None:
    reason = web.missing()
    if reason is not None:
        pytest.skip(reason)
    built = artefacts.built(name, MergeConfig(method="dynamic", threshold=0.5))
    feeds = [
        artefacts.component(name).from_series(artefacts.model(name), case.series())
        for case in some_cases(name)[1:5]
    ]
    native = ort.InferenceSession(str(built.merged))
    for feed, got in zip(feeds, web.run(built.merged, feeds), strict=True):
        for value, want in zip(native.get_outputs(), native.run(None, feed), strict=True):
            _same(got[value.name], want)


@RUNTIMES
def test_inlined_form_runs_in_openvino(name: str) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed: pip install openvino")
    built = artefacts.built(name, MergeConfig(method="dynamic", threshold=0.5), True)
    network = openvino.Core().compile_model(str(built.merged), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    native = ort.InferenceSession(str(built.merged))
    for case in some_cases(name)[1:5]:
        feed = artefacts.component(name).from_series(artefacts.model(name), case.series())
        got = network(feed)
        for value, want in zip(native.get_outputs(), native.run(None, feed), strict=True):
            _same(got[value.name], want)
