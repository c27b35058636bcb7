"""The native operators where the ratio is chosen at run time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import parser

from tests.ops.harness import merge_model, native_form, session
from tests.plugins.native import PLAIN

AT_RUN_TIME = {**PLAIN, "ratio_num": 1, "ratio_den": 7, "run_time": 1}


def _chosen(plugin: Path, form: Any, ratio: float, **settings: int) -> list[np.ndarray]:
    x = np.random.default_rng(5).standard_normal((3, 41, 6)).astype(np.float32)
    size = np.ones((3, 41), np.float32)
    size[1, :9] = 0
    model = form(merge_model({**AT_RUN_TIME, **settings}))
    feed = {"x": x, "metric": x, "size": size, "merge_ratio": np.array(ratio, np.float32)}
    return session(model, 1, plugin if form is native_form else None).run(None, feed)


@pytest.mark.parametrize("k", [1, 4, 0])
@pytest.mark.parametrize("library", ["operators", "emulated_operators"])
def test_a_ratio_that_is_chosen_at_run_time(k: int, library: str, request: pytest.FixtureRequest) -> None:
    """As the functions do, which the reference proves; the ratio that the node was made for does not count."""
    plugin = request.getfixturevalue(library)
    for ratio in (0.0, 0.1, 1 / 3, 0.5):
        given, want = (_chosen(plugin, form, ratio, k=k) for form in (native_form, lambda model: model))
        for index in (1, 2, 3, 4):
            np.testing.assert_array_equal(given[index], want[index])
        np.testing.assert_allclose(given[0], want[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("node", "share", "words"),
    [
        ("run_time = 1", [3, 4], "share must be from 0 to 1/2"),
        ("run_time = 1", [1, 0], "share must be from 0 to 1/2"),
        ("run_time = 1", [-1, 4], "share must be from 0 to 1/2"),
        ("run_time = 1", [2**62, 3], "share must be from 0 to 1/2"),
        ("run_time = 1", [1, 4, 4], r"share must be \[2\]"),
        ("run_time = 1", None, "run_time = 1 needs the input share"),
        ("run_time = 0", [1, 4], "the input share needs run_time = 1"),
    ],
)
def test_shares_from_elsewhere_are_refused(
    node: str, share: list[int] | None, words: str, operators: Path
) -> None:
    """A file may feed the operator anything; the graph's own share is made by ExactRatio."""
    settings = ", ".join(
        f"{name} = {value}" for name, value in {**PLAIN, "ratio_num": 1, "ratio_den": 4}.items()
    )
    model = parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 18, "tsmerge" : 1]>
        g (float[B, N, D] x, float[B, N] size{"" if share is None else ", int64[S] share"})
            => (float[B, M, D] y, float[B, M] s, int64[B, M] kept, int64[B, N] target)
        {{
            y, s, kept, target
                = tsmerge.LocalMerge<{settings}, {node}>(x, x, size{"" if share is None else ", share"})
        }}""")
    feed = {"x": np.ones((1, 9, 2), np.float32), "size": np.ones((1, 9), np.float32)}
    feed |= {} if share is None else {"share": np.array(share)}
    with pytest.raises(Exception, match=words):
        session(model, 1, operators).run(None, feed)
