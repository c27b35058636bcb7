"""Whole models, exported: parity over the settings, bit identity where nothing merges, the other runtimes."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import onnx
import onnxruntime
import pytest

from tests import artefacts, web
from tests.verdicts import NAMES, parity_of, proved, some_cases
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import parity
from tsmerge_export.verify.checks import Checks

TRAINED = ["bolt-nano", "t5-nano"]


def points(name: str) -> int:
    """Merge points of the model."""
    return artefacts.family(name).merge_points(artefacts.model(name)).count


def feeds_of(name: str) -> list[dict[str, np.ndarray]]:
    """Inputs of the model's component for :func:`some_cases`."""
    component, model = artefacts.component(name), artefacts.model(name)
    return [component.from_series(model, case.series()) for case in some_cases(name)]


#: Neighbourhoods and ratios: each once, the other combinations among the slow tests.
_QUICK = {(1, "1/10"), (2, "1/2"), (5, "1/4"), ("global", "1/4")}


@pytest.mark.parametrize(
    ("name", "k", "ratio"),
    [
        pytest.param(name, k, ratio, marks=[pytest.mark.slow] * ((k, ratio) not in _QUICK))
        for name in NAMES
        for k in (1, 2, 5, "global")
        for ratio in ("1/10", "1/4", "1/2")
    ],
)
def test_parity(name: str, k: int | str, ratio: str) -> None:
    merge = MergeConfig(k=k, ratio=ratio)
    built = artefacts.built(name, merge)
    report = parity_of(name, merge, built, some_cases(name))
    assert report.failures == []
    assert report.to_dict()["kept_mismatches"] == 0
    assert report.passed
    assert built.report.barriers == []
    assert len(built.report.merges) == points(name)


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
    proved(name, merge)


@pytest.mark.parametrize("name", NAMES)
def test_parity_fails_for_another_merge_setting(name: str) -> None:
    built = artefacts.built(name, MergeConfig(ratio="1/4"))
    report = parity_of(name, MergeConfig(ratio="1/3"), built, some_cases(name)[3:4])
    assert not report.passed


def assert_bit_identical(name: str, merge: MergeConfig, op_type: str, threads: int = 1) -> None:
    """All merge nodes are there, remove nothing, and every output has the bits of the unmerged file's."""
    built = artefacts.built(name, merge)
    merges = [node for node in onnx.load(built.merged).graph.node if node.op_type == op_type]
    assert len(merges) == points(name)
    plain, merged = (open_session(file, threads, timed=True) for file in (built.unmerged, built.merged))
    for inputs in feeds_of(name):
        for want, got in zip(plain.run(None, inputs), merged.run(None, inputs), strict=True):
            assert want.shape == got.shape
            assert want.tobytes() == got.tobytes()


@pytest.mark.parametrize(
    ("positions", "threads"),
    [
        ("gather", 1),
        ("compact", 2),
        pytest.param("gather", 2, marks=pytest.mark.slow),
        pytest.param("compact", 1, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("k", [1, 5, "global"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_merge_is_bit_identical_to_the_unmerged_file(
    name: str, k: int | str, positions: str, threads: int
) -> None:
    merge = MergeConfig(k=k, ratio="1/2", min_tokens=100_000, positions=positions, prop_attn=k == 5)  # type: ignore[arg-type]
    assert_bit_identical(name, merge, "LocalMerge", threads)


@pytest.mark.parametrize(
    ("merge", "op_type"),
    [
        (MergeConfig(method="dynamic", k=1, threshold=-1, min_tokens=100_000), "DynamicMerge"),
        (MergeConfig(method="dynamic", k="global", threshold=-1, min_tokens=100_000), "DynamicMerge"),
        (MergeConfig(method="pitome", ratio="1/2", min_tokens=100_000), "PitomeMerge"),
        (MergeConfig(method="pitome", energy="gaussian", ratio="1/2", min_tokens=100_000), "PitomeMerge"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.describe(),
)
@pytest.mark.parametrize("name", NAMES)
def test_other_methods_with_nothing_to_merge_are_bit_identical(
    name: str, merge: MergeConfig, op_type: str
) -> None:
    assert_bit_identical(name, merge, op_type)


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    """Equal to the tolerance of whole models, relative to the output's scale."""
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=5e-5 * max(np.abs(want).max(), 1e-30))


#: One setting for each method and body.
ELSEWHERE = [
    MergeConfig(k=1, ratio="1/4"),
    MergeConfig(k=2, ratio="1/4"),
    MergeConfig(k="global", ratio="1/4"),
    MergeConfig(method="dynamic", threshold=0.5),
    MergeConfig(method="pitome", ratio="1/4"),
]
in_other_runtimes = pytest.mark.parametrize("merge", ELSEWHERE, ids=lambda merge: merge.describe())


@cache
def in_web(name: str) -> dict[tuple[MergeConfig, bool], list[dict[str, np.ndarray]]]:
    """Outputs of all settings, as functions and inlined, in one process of node: it starts longer than it computes."""
    settings = list(product(ELSEWHERE, (False, True)))
    feeds = feeds_of(name)[1:5:2]
    return dict(
        zip(
            settings, web.run_many([(artefacts.built(name, *s).merged, feeds) for s in settings]), strict=True
        )
    )


@pytest.mark.parametrize("inline", [False, True], ids=["functions", "inlined"])
@in_other_runtimes
@pytest.mark.parametrize("name", TRAINED)
def test_onnxruntime_web_computes_the_same(name: str, merge: MergeConfig, inline: bool) -> None:
    reason = web.missing()
    if reason is not None:
        pytest.skip(reason)
    native = open_session(artefacts.built(name, merge, inline).merged)
    for feed, got in zip(feeds_of(name)[1:5:2], in_web(name)[merge, inline], strict=True):
        for value, want in zip(native.get_outputs(), native.run(None, feed), strict=True):
            assert_close(got[value.name], want)


@in_other_runtimes
@pytest.mark.parametrize("name", TRAINED)
def test_inlined_form_runs_in_openvino(name: str, merge: MergeConfig) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed: pip install openvino")
    built = artefacts.built(name, merge, True)
    proto = onnx.load(built.merged)
    assert not proto.functions
    assert {node.domain for node in proto.graph.node} <= {"", "ai.onnx"}
    network = openvino.Core().compile_model(str(built.merged), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    native = open_session(built.merged)
    for feed in feeds_of(name)[1:5:2]:
        got = network(feed)
        for value, want in zip(native.get_outputs(), native.run(None, feed), strict=True):
            assert_close(got[value.name], want)


#: 23; or 21, the newest that ONNX Runtime 1.20 loads, where it is older than 1.23.
NEWEST = 23 if tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 23) else 21


@pytest.mark.parametrize(
    ("name", "opset"),
    [
        ("t5-tiny", NEWEST),
        *(pytest.param("bolt-tiny", opset, marks=pytest.mark.slow) for opset in (20, NEWEST)),
    ],
)
def test_newer_opsets(name: str, opset: int) -> None:
    import tempfile
    from pathlib import Path

    from tsmerge_export.compile.build import merge_and_lower

    merge = MergeConfig(ratio="1/4")
    with tempfile.TemporaryDirectory() as folder:
        built = merge_and_lower(
            artefacts.component(name), artefacts.plain(name, opset), merge,
            inline=False, folder=Path(folder), scratch=Path(folder),
        )  # fmt: skip
        imports = {entry.domain: entry.version for entry in onnx.load(built.merged).opset_import}
        assert imports[""] == opset
        report = parity.check(
            artefacts.family(name), artefacts.component(name), artefacts.model(name), merge, built.merged,
            Checks(cases=some_cases(name)[2:4], threads=1),
        )  # fmt: skip
    assert report.failures == []
    assert report.passed


# Dynamic merging: another number of tokens for every batch.


@pytest.mark.parametrize(
    ("threshold", "k"), [(0.9, 1), (0.5, 1), (0.7, 2), (1.0, "global"), ("per layer", "global")]
)
@pytest.mark.parametrize("name", NAMES)
def test_parity_of_dynamic_merging(name: str, threshold: float | str, k: int | str) -> None:
    if threshold == "per layer":
        threshold = ",".join(str(0.8 - 0.2 * layer) for layer in range(points(name)))
    merge = MergeConfig(
        method="dynamic", k=k, threshold=threshold, positions="compact" if k == 2 else "gather"
    )
    built, _ = proved(name, merge)
    assert built.report.barriers == []
    assert [entry.op_type for entry in built.report.merges] == ["DynamicMerge"] * points(name)


@pytest.mark.parametrize("name", ["bolt-tiny", "t5-tiny"])
def test_parity_fails_for_another_threshold(name: str) -> None:
    built = artefacts.built(name, MergeConfig(method="dynamic", threshold=0.5))
    other = MergeConfig(method="dynamic", threshold=-0.5)
    assert not parity_of(name, other, built, some_cases(name)[3:4]).passed
