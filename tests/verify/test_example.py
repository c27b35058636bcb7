"""What the report shows: the columns chosen, the decisions read from a file, how many time steps a token is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests import artefacts
from tsmerge_export.console.progress import NoProgress, Stopwatch
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import example
from tsmerge_export.verify.cost import ColumnCost, CostReport
from tsmerge_export.verify.parity import run_eager
from tsmerge_export.verify.speed import SpeedReport


def report(*changes: tuple[float, float]) -> CostReport:
    columns = tuple(
        ColumnCost(f"c{i}", {"mse": before}, {"mse": after}, {}) for i, (before, after) in enumerate(changes)
    )
    return CostReport("x.csv", 1, 8, 2, 4, columns, SpeedReport(1, 8, 1, 5, 2.0, 1.0), ())


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ([(1, 2)], [0]),
        ([(1, 2), (1, 1)], [1, 0]),
        ([(1, 3), (1, 1), (2, 4)], [2, 1, 0]),  # by share: +200 %, 0 %, +100 %
        ([(1, 3), (0, 1), (2, 4), (math.nan, math.nan), (1, 1), (1, 5)], [2, 4, 5]),
        ([(0, 1), (math.nan, 1), (1, math.nan)], [0]),
        ([(0, 1), (1, 1)], [1]),
    ],
)
def test_columns(changes: list[tuple[float, float]], chosen: list[int]) -> None:
    found = example.choose_columns(report(*changes))
    assert [index for index, _ in found] == chosen
    assert len({role for _, role in found}) == len(found)
    if len(found) == 3:
        assert ["middle" in found[0][1], "least" in found[1][1], "most" in found[2][1]] == [True] * 3


@pytest.mark.parametrize(
    ("steps", "count", "protected", "expected"),
    [
        (512, 513, (0, 1), (1, (0, 1))),  # a token behind the steps
        (512, 512, (0, 1), (1, (0, 0))),  # the last step is protected
        (512, 33, (0, 1), (16, (0, 1))),
        (500, 33, (0, 1), (16, (0, 1))),  # the first patch is padded
        (512, 32, (0, 0), (16, (0, 0))),
        (512, 34, (1, 1), (16, (1, 1))),
        (17, 2, (0, 0), (None, None)),  # 9 to 16 all fit
        (512, 700, (0, 1), (None, None)),
        (512, 65, (0, 0), (None, None)),  # 7.9 or so: no whole number
        (5, 1, (0, 1), (None, None)),
    ],
)
def test_steps_per_token(
    steps: int, count: int, protected: tuple[int, int], expected: tuple[int | None, tuple[int, int] | None]
) -> None:
    assert example.steps_per_token(steps, count, protected) == expected


@pytest.mark.parametrize(("name", "newest"), [("bolt-tiny", 0), ("bolt-tiny", 3), ("t5-tiny", 0)])
def test_decisions_are_those_of_the_eager_model(name: str, newest: int) -> None:
    merge = MergeConfig("local", ratio="1/3", protect_newest=newest)
    model, component = artefacts.model(name), artefacts.component(name)
    series = np.random.default_rng(3).standard_normal((1, 96)).astype(np.float32)
    series[0, :20] = np.nan  # padding on the left
    feed = component.from_series(model, series)
    points = artefacts.family(name).merge_points(model)
    found = example.read_tokens(
        artefacts.built(name, merge).merged,
        feed,
        steps=96,
        special=(points.protect_first, points.protect_last),
    )
    assert found is not None
    assert found["protected"] == [0, 1 + newest]
    _, decided = run_eager(component, model, merge, feed)
    assert len(found["layers"]) == len(decided)
    size = np.array(found["size"])
    assert found["count"] == len(size)
    assert (size[: 20 // (found["steps_per_token"] or 1)] == 0).all()
    assert size[-1] == 1
    assert found["special"] == [0, 1]
    for layer, want in zip(found["layers"], decided, strict=True):
        assert layer["kept"] == want.kept[0].tolist()
        assert layer["target"] == want.target[0].tolist()
        summed = np.zeros(len(layer["kept"]))
        np.add.at(summed, layer["target"], size)
        np.testing.assert_allclose(layer["size"], summed)
        size = summed
    assert (size[-1 - newest :] == 1).all()


@pytest.mark.parametrize("merge", [MergeConfig(ratio="1/3"), MergeConfig("dynamic", threshold=0.6)])
def test_products_are_counted_over_the_same_series(merge: MergeConfig) -> None:
    """As torch counts them in the eager model, which the other counts must not know of."""
    model, component = artefacts.model("bolt-tiny"), artefacts.component("bolt-tiny")
    flat = np.ones((1, 256), np.float32)
    noise = np.random.default_rng(1).standard_normal((1, 256)).astype(np.float32)
    artefact = artefacts.built("bolt-tiny", merge).merged
    left = []
    for series in (flat, noise):
        feed = component.from_series(model, series)
        found = example.read_tokens(artefact, feed, steps=256, special=(0, 1))
        assert found is not None
        counts = {}
        for name, setting in (("unmerged", MergeConfig("none")), ("merged", merge)):
            with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
                run_eager(component, model, setting, feed)
            counts[name] = counter.get_total_flops()
        assert {name: found["flops"][name] for name in counts} == counts
        assert found["flops"]["merge_nodes"] == 0
        assert found["flops"]["ratio"] == pytest.approx(counts["unmerged"] / counts["merged"])
        left.append(counts["merged"])
    assert (left[0] != left[1]) == (merge.method == "dynamic")


def test_a_file_without_merging_has_no_decisions() -> None:
    built = artefacts.built("bolt-tiny", MergeConfig("none"))
    feed = {"context": torch.randn(1, 64).numpy()}
    assert example.read_tokens(built.merged, feed, steps=64, special=(0, 1)) is None


def test_stopwatch(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("tsmerge_export.console.progress.time.monotonic", lambda: now[0])
    watch = Stopwatch(NoProgress())
    for name, seconds in (("load", 1.0), ("export", 2.0), ("rewrite", 4.0), ("export", 8.0)):
        watch.step(name)
        watch.update(1, 2)
        now[0] += seconds
    watch.stop()
    watch.stop()
    now[0] += 100
    assert watch.seconds == {"load": 1.0, "export": 10.0, "rewrite": 4.0}
