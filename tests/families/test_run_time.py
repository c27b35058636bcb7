"""One file for all ratios: it forecasts, at every ratio, what the file does that was made for that ratio alone."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import tsmerge_export as tsm
from tests.families.harness import Subject
from tsmerge_export.errors import UsageError
from tsmerge_export.merge.run import MergeRun
from tsmerge_export.settings.config import MergeConfig

CHOSEN = MergeConfig(ratio="runtime:1/4")
SERIES = [
    np.random.default_rng(3).standard_normal(steps).cumsum().astype(np.float32) for steps in (200, 61, 200)
]


@cache
def subject(name: str) -> Subject:
    return Subject(name)


def forecaster(name: str, merge: MergeConfig) -> Any:
    return tsm.pipeline(subject(name).bundle(merge), threads=1)


@pytest.mark.parametrize("name", ["chronos-bolt", "chronos-t5"])
def test_parity_at_every_ratio(name: str) -> None:
    one = subject(name)
    one.assert_parity(CHOSEN)
    names = [case.name for case in one.parity(CHOSEN, cases=one.cases()[2:4]).cases]
    assert [name.partition(" ratio=")[2] for name in names] == ["", "", "0", "1/2", "1/3", "1/10"]
    # Another default, and a file without the input: what the other ratios are is not enough.
    assert not one.parity(CHOSEN, of=MergeConfig(ratio="runtime:1/5"), cases=one.cases()[2:4]).passed
    assert not one.parity(CHOSEN, of=MergeConfig(ratio="1/4"), cases=one.cases()[2:4]).passed


@pytest.mark.parametrize("name", ["chronos-bolt", "chronos-t5"])
def test_forecasts_are_those_of_a_file_of_that_ratio(name: str) -> None:
    model = forecaster(name, CHOSEN)
    options = {"num_samples": 3} if model.forecast_type == "samples" else {}
    assert str(model.default_ratio) == "1/4"
    pairs = ((0.5, "1/2"), (None, "1/4"), ("10%", "1/10"))
    for given, fixed in pairs[:1] if options else pairs:  # drawing paths takes long
        want = forecaster(name, MergeConfig(ratio=fixed))
        got = model.predict(SERIES, seed=1, ratio=given, **options)
        np.testing.assert_array_equal(got, want.predict(SERIES, seed=1, **options))
        got = model.at(given).predict_quantiles(SERIES, 3, seed=1, **options)
        for mine, theirs in zip(got, want.predict_quantiles(SERIES, 3, seed=1, **options), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    unmerged = forecaster(name, MergeConfig("none")).predict(SERIES, seed=1, **options)
    scale = float(np.abs(unmerged).max())
    np.testing.assert_allclose(model.predict(SERIES, seed=1, ratio=0, **options), unmerged, atol=1e-5 * scale)
    frame = pd.DataFrame(
        {"item_id": "a", "timestamp": pd.date_range("2024", periods=99, freq="D"), "target": 1.0}
    )
    frame["target"] = SERIES[0][:99]
    slow, fast = (
        model.predict_df(frame, prediction_length=4, seed=1, ratio=ratio, **options)["predictions"]
        for ratio in (0, "1/2")
    )
    assert len(slow) == 4 and not slow.equals(fast)


def test_a_session_takes_the_ratio_beside_its_inputs() -> None:
    session = tsm.load(subject("chronos-bolt").bundle(CHOSEN), threads=1)
    assert [info.name for info in session.inputs] == ["context"] and str(session.default_ratio) == "1/4"
    feed = {"context": np.stack([SERIES[0], SERIES[2]])}
    fast = session.run(feed, ratio="1/2")["quantiles"]
    assert not np.array_equal(fast, session.run(feed)["quantiles"])
    np.testing.assert_array_equal(session.at(0.5).run(feed)["quantiles"], fast)
    assert str(session.default_ratio) == "1/4"
    for wrong in (0.6, -1, np.nan, "fast", [0.1, 0.2]):
        with pytest.raises(UsageError, match="is not a ratio; give a number from 0"):
            session.run(feed, ratio=wrong)
    with pytest.raises(UsageError, match="input 'merge_ratio' is not known"):
        session.run({**feed, "merge_ratio": np.float32(0.1)})


def test_a_bundle_of_one_ratio_refuses_another() -> None:
    bundle = subject("chronos-bolt").bundle(MergeConfig(ratio="1/4"))
    assert tsm.load(bundle).default_ratio is None
    for refused in (
        lambda: tsm.load(bundle).run({"context": np.ones((1, 99), np.float32)}, ratio=0.1),
        lambda: tsm.load(bundle).at(0.1),
        lambda: tsm.pipeline(bundle).predict(SERIES, ratio=0.1),
    ):
        with pytest.raises(
            UsageError, match=r"its ratio was fixed when it was exported.*export with --ratio runtime"
        ):
            refused()


def test_gradients_flow_at_the_ratio_that_is_set() -> None:
    """For training that draws a ratio a step."""
    one = subject("chronos-bolt")
    feed = {"context": torch.from_numpy(SERIES[0][None])}
    removed = []
    with tsm.merging(one.model, CHOSEN) as run:
        assert isinstance(run, MergeRun)
        for ratio in (0, "1/10", "1/2"):
            run.ratio = ratio
            one.component.eager(one.model, feed)["quantiles"].sum().backward()
            removed.append(sum(step.removed for step in run.steps))
    assert removed[0] == 0 < removed[1] < removed[2]
    one.model.zero_grad(set_to_none=True)
