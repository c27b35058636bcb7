"""The forecast of a series is that of the series alone, whatever is forecast beside it, in whatever order and parts."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tsmerge_export as tsm
from tests import artefacts
from tests.families.decoder_subjects import SPARSE
from tests.families.harness import describe
from tests.families.subjects import OVERLAPPING
from tests.forecast import upstream
from tests.forecast.subjects import CHRONOS_2, NONE, POINTS, RATIO, SAMPLES, TIMESFM
from tsmerge_export.forecast.base import Forecaster
from tsmerge_export.settings.config import MergeConfig

pytestmark = pytest.mark.filterwarnings("ignore:the model was made for")

SUBJECTS = {
    "chronos-2": CHRONOS_2,
    "informer": SPARSE,
    "overlapping": OVERLAPPING,
    "patchtst": POINTS,
    "patchtst-samples": SAMPLES,
    **TIMESFM,
}
FAMILIES = ["chronos-bolt", "chronos-t5", *SUBJECTS]
PER_SERIES = MergeConfig("dynamic", threshold=0.4, per_series=True)
#: Every method but ``dynamic``, which counts over the batch by definition unless it is told to count per series.
METHODS = [
    MergeConfig(k="global", ratio="1/3", prop_attn=True),
    MergeConfig(method="global", r=5),
    MergeConfig(method="pitome", ratio="1/4"),
    MergeConfig(method="ssm", ratio="1/4"),
]
CASES = [
    pytest.param(name, merge, marks=[pytest.mark.slow] * (merge in METHODS), id=f"{name}-{describe(merge)}")
    for name in FAMILIES
    for merge in (NONE, RATIO, *METHODS)
]
CASES += [
    pytest.param(
        name, PER_SERIES, marks=[pytest.mark.slow] * (name != "chronos-bolt"), id=f"{name}-per-series"
    )
    for name in ("chronos-bolt", "chronos-t5", "chronos-2", "overlapping", *TIMESFM)
]


def bundle(name: str, merge: MergeConfig) -> Path:
    if name in SUBJECTS:
        return SUBJECTS[name].bundle(merge)
    return artefacts.bundle({"chronos-bolt": "bolt-tiny", "chronos-t5": "t5-tiny"}[name], merge)


@cache
def forecaster(name: str, merge: MergeConfig, memory: int = 2**29) -> Forecaster:
    return tsm.pipeline(bundle(name, merge), threads=1, memory=memory)


def series(length: int) -> np.ndarray:
    """Some start with a gap: to the model that is a series as long, and no padding of ours."""
    row = upstream.walks(1, length, seed=length)[0]
    row[-1] = length % 7
    if length % 5 == 0:
        row[: length // 3] = np.nan
    return row


@cache
def alone(name: str, merge: MergeConfig, length: int, place: int, steps: int) -> np.ndarray:
    return forecaster(name, merge).predict(series(length), steps, **options(name, merge, place))[0]


def options(name: str, merge: MergeConfig, first: int) -> dict[str, Any]:
    if forecaster(name, merge).forecast_type == "quantiles":
        return {}
    return {"seed": 7, "first_series": first, "num_samples": 3}


@pytest.mark.parametrize(("name", "merge"), CASES)
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    lengths=st.lists(st.one_of(st.integers(1, 40), st.integers(1, 300)), min_size=2, max_size=6),
    memory=st.sampled_from([1, 2**21, 2**29]),
    longer=st.booleans(),
)
def test_a_forecast_is_that_of_the_series_alone(
    name: str, merge: MergeConfig, lengths: list[int], memory: int, longer: bool
) -> None:
    """Lengths with equally many patches and other, cut ones too; parts of one, some and all series; long horizons."""
    model = forecaster(name, merge, memory)
    goes_on = name in ("chronos-2", "chronos-bolt", "chronos-t5", "overlapping")
    steps = 2 * model.model_prediction_length + 3 if longer and goes_on else 3
    found = model.predict([series(length) for length in lengths], steps, **options(name, merge, 0))
    for place, (length, got) in enumerate(zip(lengths, found, strict=True)):
        got = got.reshape(-1, got.shape[-1])  # of a list, Chronos-2 gives the variates of each
        want = alone(name, merge, length, place, steps)
        if name == "chronos-t5":  # drawn tokens
            np.testing.assert_array_equal(got, want)
        # The random PatchTST blows up the rounding of one row or several: that is all its batch changes.
        noise = 1e-4 if name.startswith("patchtst") else 1e-5
        np.testing.assert_allclose(got, want, rtol=0, atol=noise * np.abs(want).max())


@pytest.mark.parametrize("merge", [NONE, RATIO, PER_SERIES], ids=describe)
def test_data_frames_in_any_order_and_chunks(merge: MergeConfig) -> None:
    model = forecaster("chronos-bolt", merge)
    lengths = (90, 12, 200, 14, 31, 90)
    frames = [
        pd.DataFrame(
            {"item_id": f"{place}", "timestamp": pd.date_range("2026-01-01", periods=n), "target": series(n)}
        )
        for place, n in enumerate(lengths)
    ]
    want = np.stack([model.predict_quantiles(series(n), 20)[0][0] for n in lengths])
    for order, size in ((range(6), 256), ((3, 0, 5, 2, 1, 4), 4), (range(5, -1, -1), 1)):
        found = model.predict_df(
            pd.concat([frames[place] for place in order]), prediction_length=20, batch_size=size
        )
        assert list(found["item_id"].unique()) == [f"{place}" for place in order]
        got = found[[str(level / 10) for level in range(1, 10)]].to_numpy().reshape(6, 20, 9)
        np.testing.assert_allclose(got, want[list(order)], rtol=0, atol=1e-5 * np.abs(want).max())


def test_merging_forecasts_as_many_series_at_once_as_it_may() -> None:
    """One run for each number of patches; one for all without merging, but where patches overlap."""
    for name, merge, runs in (
        ("chronos-bolt", NONE, [4]), ("chronos-bolt", RATIO, [2, 1, 1]), ("overlapping", NONE, [3, 1])
    ):  # fmt: skip
        model, sizes = tsm.pipeline(bundle(name, merge), threads=1), []
        run = model.session.run
        model.session.run = lambda feed, run=run, sizes=sizes: sizes.append(len(feed["context"])) or run(feed)  # type: ignore[method-assign, misc]
        model.predict([series(n) for n in (17, 90, 24, 25)], 3)
        assert sizes == runs
