"""Unmerge, GatherPairs and DistancePlane of the library for CUDA's provider, their kernels emulated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.artefacts import built, component, model
from tests.ops.harness import session
from tests.plugins import copies
from tests.plugins.copies import Copy
from tsmerge_export import ops
from tsmerge_export.backends.onnxruntime.native import CUDA_LIBRARY
from tsmerge_export.backends.onnxruntime.static.form import static_form
from tsmerge_export.settings.config import MergeConfig


@pytest.mark.parametrize("kind", copies.DRAWS)
def test_equal_plain_indexing_on_random_problems(kind: str, emulated_operators: Path) -> None:
    for seed in range(48):
        assert copies.check(seed, kind, emulated_operators) is None


@pytest.mark.parametrize("kind", copies.DRAWS)
def test_the_functions_make_the_same_of_them(kind: str) -> None:
    for seed in range(8):
        assert copies.check(seed, kind, None) is None


def _feed(**values: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in values.items()}


def test_an_index_outside_reads_nothing(emulated_operators: Path) -> None:
    y = np.arange(1.0, 7, dtype=np.float32).reshape(1, 3, 2)
    far = [0, 3, -4, -1, 2**62]
    unmerge = Copy("Unmerge", "float", 0, 3, _feed(a=y, target=[far]), y)
    assert copies.run(unmerge, emulated_operators)[0].tolist() == [[1, 2], [0, 0], [0, 0], [5, 6], [0, 0]]
    feed = _feed(value=np.zeros((1, 2, 9, 9), np.float32), a=y[0], kept=[far], stride=[1], offset=[0])
    found = copies.run(Copy("GatherPairs", "float", 0, 4, feed, y), emulated_operators)[0, 1]
    assert found.tolist()[0] == [2, 0, 0, 6, 0]  # 0 + kept
    assert found.tolist()[1] == [0, 0, 6, 6, 0]  # 3 + kept: of three rows, -1 is the last one


def test_what_does_not_fit_is_an_error(emulated_operators: Path) -> None:
    x = np.zeros((2, 3, 4), np.float32)
    far = _feed(a=x, target=[[0]])
    short = _feed(a=x[0], centre=[2], tokens=[2])
    wide = _feed(value=x[None], a=x[0], kept=[[0]], stride=[1], offset=[0])
    for op_type, rank, feed, why in (
        ("Unmerge", 3, far, "differ in B"),
        ("DistancePlane", 3, short, "must reach from centre"),
        ("GatherPairs", 4, wide, "do not fit together"),
    ):
        with pytest.raises(Exception, match=why):
            copies.run(Copy(op_type, "float", 0, rank, feed, x), emulated_operators)


@pytest.mark.parametrize(
    ("name", "merge", "static"),
    [
        ("bolt-tiny", MergeConfig(ratio="1/4"), False),
        ("bolt-tiny", MergeConfig("pitome", ratio="1/4"), False),
        ("t5-tiny", MergeConfig(ratio="1/4"), False),
        ("bolt-tiny", MergeConfig(ratio="1/4", min_tokens=1000), True),
    ],
    ids=["bolt", "pitome", "t5", "as long as it was"],
)
def test_a_model_runs_by_the_operators_alone(
    name: str, merge: MergeConfig, static: bool, emulated_operators: Path
) -> None:
    """No function is left, also where nothing merges."""
    proto = onnx.load(built(name, merge).merged)
    feed = component(name).example(model(name), 2, 70)
    if static:
        proto = static_form(proto, {key: value.shape for key, value in feed.items()}, name)
    wanted = session(proto).run(None, feed)
    used = {node.op_type for node in proto.graph.node if node.domain == ops.DOMAIN}
    assert {"GatherPairs", "DistancePlane"} < used <= set(CUDA_LIBRARY.operators)
    del proto.functions[:]
    for found, want in zip(session(proto, plugin=emulated_operators).run(None, feed), wanted, strict=True):
        assert found.shape == want.shape
        np.testing.assert_allclose(found, want, rtol=0, atol=1e-5 * float(np.abs(want).max()))
