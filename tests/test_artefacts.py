"""Whole models, exported: parity over the settings, bit identity where nothing merges, the other runtimes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests import artefacts, web
from tsmerge_export.build import Built
from tsmerge_export.config import MergeConfig
from tsmerge_export.validate import parity
from tsmerge_export.validate.corpus import ENTRIES, Case

NAMES = list(artefacts.FAMILY)


def some_cases(name: str) -> list[Case]:
    """Batches 1, 2 and 5 at lengths that are short, odd, no multiple of a patch, and longer than in training."""
    context = artefacts.family(name).context(artefacts.model(name))
    sizes = [(1, 1), (2, 5), (5, 37), (2, context // 2 + 1), (1, context), (2, context + context // 4 + 3)]
    usual = [entry for entry in ENTRIES if not entry.degenerate]
    odd = [entry for entry in ENTRIES if entry.degenerate]
    pick = [usual[0], odd[0], usual[1], usual[2], odd[-1], usual[-1]]
    return [Case(entry, batch, length, seed=5) for entry, (batch, length) in zip(pick, sizes, strict=True)]


def parity_of(name: str, merge: MergeConfig, built: Built, cases: list[Case]) -> parity.ParityReport:
    """The eager model merged by ``merge`` against the files of ``built``."""
    return parity.check(
        artefacts.family(name), artefacts.component(name), artefacts.model(name), merge, built.merged,
        cases=cases, threads=2,
    )  # fmt: skip


@pytest.mark.parametrize("ratio", ["1/10", "1/4", "1/2"])
@pytest.mark.parametrize("k", [1, 2, 5, "global"])
@pytest.mark.parametrize("name", NAMES)
def test_parity(name: str, k: int | str, ratio: str) -> None:
    merge = MergeConfig(k=k, ratio=ratio)
    built = artefacts.built(name, merge)
    report = parity_of(name, merge, built, some_cases(name))
    assert report.failures == []
    assert report.to_dict()["kept_mismatches"] == 0
    assert report.passed
    assert built.report.barriers == []
    assert len(built.report.merges) == artefacts.family(name).merge_points(artefacts.model(name)).count


@pytest.mark.parametrize(
    "merge",
    [
        MergeConfig(r=7, positions="compact"),
        MergeConfig(ratio="1/3", layers=(1,), k=3),
        MergeConfig(method="global", ratio="1/4", schedule="linear"),
        MergeConfig(ratio="1/4", prop_attn=True),
        MergeConfig(ratio="1/4", metric="key"),
        MergeConfig(ratio="1/4", similarity="l2"),
        MergeConfig(ratio="1/4", causal=True),
        MergeConfig(method="global", ratio="1/3", similarity="dot", metric="key"),
        MergeConfig(method="dynamic", k=2, threshold=0.3, similarity="l2"),
        MergeConfig(r="9,4", layers=(0, 1), k=2, prop_attn=True),
    ],
    ids=lambda merge: merge.describe(),
)
@pytest.mark.parametrize("name", NAMES)
def test_parity_of_other_settings(name: str, merge: MergeConfig) -> None:
    built = artefacts.built(name, merge)
    report = parity_of(name, merge, built, some_cases(name))
    assert report.failures == []
    assert report.passed


@pytest.mark.parametrize("name", NAMES)
def test_parity_fails_for_another_merge_setting(name: str) -> None:
    built = artefacts.built(name, MergeConfig(ratio="1/4"))
    report = parity_of(name, MergeConfig(ratio="1/3"), built, some_cases(name)[3:4])
    assert not report.passed


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("positions", ["gather", "compact"])
@pytest.mark.parametrize("k", [1, 5, "global"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_merge_is_bit_identical_to_the_unmerged_file(
    name: str, k: int | str, positions: str, threads: int
) -> None:
    merge = MergeConfig(k=k, ratio="1/2", min_tokens=100_000, positions=positions, prop_attn=k == 5)  # type: ignore[arg-type]
    built = artefacts.built(name, merge)
    merges = [node for node in onnx.load(built.merged).graph.node if node.op_type == "LocalMerge"]
    assert len(merges) == artefacts.family(name).merge_points(artefacts.model(name)).count
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    plain, merged = (ort.InferenceSession(str(file), options) for file in (built.unmerged, built.merged))
    for case in some_cases(name):
        inputs = artefacts.component(name).from_series(artefacts.model(name), case.series())
        for want, got in zip(plain.run(None, inputs), merged.run(None, inputs), strict=True):
            assert want.shape == got.shape
            assert want.tobytes() == got.tobytes()


@pytest.mark.parametrize("inline", [False, True], ids=["functions", "inlined"])
@pytest.mark.parametrize("k", [1, 2, "global"])
@pytest.mark.parametrize("name", ["bolt-nano", "t5-nano"])
def test_onnxruntime_web_computes_the_same(name: str, k: int | str, inline: bool) -> None:
    reason = web.missing()
    if reason is not None:
        pytest.skip(reason)
    built = artefacts.built(name, MergeConfig(k=k, ratio="1/4"), inline)
    feeds = [
        artefacts.component(name).from_series(artefacts.model(name), case.series())
        for case in some_cases(name)[1:5:2]
    ]
    native = ort.InferenceSession(str(built.merged))
    for feed, got in zip(feeds, web.run(built.merged, feeds), strict=True):
        for value, want in zip(native.get_outputs(), native.run(None, feed), strict=True):
            scale = np.abs(want).max()
            np.testing.assert_allclose(got[value.name], want, rtol=1e-4, atol=5e-5 * max(scale, 1e-30))


@pytest.mark.parametrize("k", [1, 2, "global"])
@pytest.mark.parametrize("name", ["bolt-nano", "t5-nano"])
def test_inlined_form_runs_in_openvino(name: str, k: int | str) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed: pip install openvino")
    built = artefacts.built(name, MergeConfig(k=k, ratio="1/4"), True)
    proto = onnx.load(built.merged)
    assert not proto.functions
    assert {node.domain for node in proto.graph.node} <= {"", "ai.onnx"}
    network = openvino.Core().compile_model(str(built.merged), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    native = ort.InferenceSession(str(built.merged))
    for case in some_cases(name)[1:5:2]:
        feed = artefacts.component(name).from_series(artefacts.model(name), case.series())
        got = network(feed)
        for value, want in zip(native.get_outputs(), native.run(None, feed), strict=True):
            np.testing.assert_allclose(
                got[value.name], want, rtol=1e-4, atol=5e-5 * max(np.abs(want).max(), 1e-30)
            )


@pytest.mark.parametrize("opset", [20, 23])
def test_newer_opsets(opset: int) -> None:
    import tempfile
    from pathlib import Path

    from tsmerge_export.build import merge_and_lower

    name, merge = "bolt-tiny", MergeConfig(ratio="1/4")
    with tempfile.TemporaryDirectory() as folder:
        built = merge_and_lower(
            artefacts.component(name), artefacts.plain(name, opset), merge,
            inline=False, folder=Path(folder), scratch=Path(folder),
        )  # fmt: skip
        imports = {entry.domain: entry.version for entry in onnx.load(built.merged).opset_import}
        assert imports[""] == opset
        report = parity.check(
            artefacts.family(name), artefacts.component(name), artefacts.model(name), merge, built.merged,
            cases=some_cases(name)[2:4], threads=2,
        )  # fmt: skip
    assert report.failures == []
    assert report.passed


# Dynamic merging: another number of tokens for every batch.


def _points(name: str) -> int:
    return artefacts.family(name).merge_points(artefacts.model(name)).count


@pytest.mark.parametrize(
    ("threshold", "k"), [(0.9, 1), (0.5, 1), (0.7, 2), (1.0, "global"), ("per layer", "global")]
)
@pytest.mark.parametrize("name", NAMES)
def test_parity_of_dynamic_merging(name: str, threshold: float | str, k: int | str) -> None:
    if threshold == "per layer":
        threshold = ",".join(str(0.8 - 0.2 * layer) for layer in range(_points(name)))
    merge = MergeConfig(
        method="dynamic", k=k, threshold=threshold, positions="compact" if k == 2 else "gather"
    )
    built = artefacts.built(name, merge)
    report = parity_of(name, merge, built, some_cases(name))
    assert report.failures == []
    assert report.passed
    assert built.report.barriers == []
    assert [entry.op_type for entry in built.report.merges] == ["DynamicMerge"] * _points(name)


@pytest.mark.parametrize("name", ["bolt-tiny", "t5-tiny"])
def test_parity_fails_for_another_threshold(name: str) -> None:
    built = artefacts.built(name, MergeConfig(method="dynamic", threshold=0.5))
    other = MergeConfig(method="dynamic", threshold=-0.5)
    assert not parity_of(name, other, built, some_cases(name)[3:4]).passed


@pytest.mark.parametrize("k", [1, "global"])
@pytest.mark.parametrize("name", NAMES)
def test_dynamic_merging_with_nothing_to_merge_is_bit_identical(name: str, k: int | str) -> None:
    merge = MergeConfig(method="dynamic", k=k, threshold=-1, min_tokens=100_000)
    built = artefacts.built(name, merge)
    nodes = [node for node in onnx.load(built.merged).graph.node if node.op_type == "DynamicMerge"]
    assert len(nodes) == _points(name)
    plain, merged = (ort.InferenceSession(str(file)) for file in (built.unmerged, built.merged))
    for case in some_cases(name):
        inputs = artefacts.component(name).from_series(artefacts.model(name), case.series())
        for want, got in zip(plain.run(None, inputs), merged.run(None, inputs), strict=True):
            assert want.tobytes() == got.tobytes()


def _same(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=5e-5 * max(np.abs(want).max(), 1e-30))


@pytest.mark.parametrize("name", ["bolt-nano", "t5-nano"])
def test_dynamic_merging_in_onnxruntime_web_and_openvino(name: str) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed: pip install openvino")
    reason = web.missing()
    if reason is not None:
        pytest.skip(reason)
    merge = MergeConfig(method="dynamic", threshold=0.5)
    built, inlined = artefacts.built(name, merge), artefacts.built(name, merge, True)
    feeds = [
        artefacts.component(name).from_series(artefacts.model(name), case.series())
        for case in some_cases(name)[1:5]
    ]
    native = ort.InferenceSession(str(built.merged))
    network = openvino.Core().compile_model(str(inlined.merged), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for feed, in_web in zip(feeds, web.run(built.merged, feeds), strict=True):
        in_openvino = network(feed)
        for value, want in zip(native.get_outputs(), native.run(None, feed), strict=True):
            _same(in_web[value.name], want)
            _same(in_openvino[value.name], want)
