"""Chronos-2's forecaster against upstream's own pipeline: groups, covariates, long horizons, data frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from chronos import Chronos2Pipeline

import tsmerge_export as tsm
from tests.families.harness import describe
from tests.forecast import upstream
from tests.forecast.subjects import CHRONOS_2, NONE, RATIO
from tsmerge_export.forecast import long_horizon
from tsmerge_export.settings.config import MergeConfig

pytestmark = pytest.mark.filterwarnings("ignore:the model was made for", "ignore:We recommend")
MERGES = pytest.mark.parametrize("merge", [NONE, RATIO], ids=describe)
#: Those of the tiny model.
LEVELS = [0.1, 0.5, 0.9]
OWN = {"unrolled_quantiles": LEVELS}
NAN = np.float32("nan")


def ours(merge: MergeConfig = NONE, **options: Any) -> Any:
    return tsm.pipeline(CHRONOS_2.bundle(merge), threads=1, **options)


def theirs() -> Chronos2Pipeline:
    return Chronos2Pipeline(CHRONOS_2.model)


def assert_all_close(got: Any, want: Any) -> None:
    assert isinstance(got, list)
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        other = other.numpy()
        assert one.dtype == np.float32
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())


def alone(inputs: Any, *args: Any, merge: MergeConfig = NONE, **options: Any) -> list[torch.Tensor]:
    """Upstream's forecast of each input by itself: merging counts the padding of what is beside it."""
    with tsm.merging(CHRONOS_2.model, merge):
        return [theirs().predict([one], *args, **OWN, **options)[0] for one in inputs]


def dicts(steps: int, lengths: tuple[int, ...] = (130, 97, 44), variates: int = 1) -> list[dict[str, Any]]:
    """Numbers and words, known or not, some missing, a word that is new, one covariate without any value."""
    rng = np.random.default_rng(steps)
    out = []
    for place, n in enumerate(lengths):
        target = upstream.walks(variates, n, seed=n)
        kinds = rng.choice(["sun", "rain", "snow"], n).astype(object)
        kinds[3] = None
        out.append(
            {
                "target": target[0] if variates == 1 else target,
                "past_covariates": {
                    "heat": np.arange(n) % 7 + place,
                    "kind": kinds,
                    "open": rng.random(n) < 0.5,
                    "past": upstream.walks(1, n, seed=n + 1)[0],
                    "empty": np.full(n, NAN),
                },
                "future_covariates": {
                    "kind": np.array(["rain", "hail", None][place:] + ["sun"] * (steps - 3 + place), object),
                    "heat": rng.integers(0, 9, steps),
                    "open": rng.random(steps) < 0.5,
                },
            }
        )
    return out


INPUTS = {
    "batch": torch.from_numpy(np.nan_to_num(upstream.walks(6, 90, seed=1)).reshape(2, 3, 90)),
    "lists": [upstream.walks(1, 300, seed=2)[0], upstream.walks(3, 70, seed=3), upstream.walks(1, 9, seed=4)],
    "dicts": dicts(20),
    "dicts beyond one run": dicts(61),
    "several targets": dicts(20, variates=2),
}


@MERGES
@pytest.mark.parametrize("name", INPUTS)
def test_inputs_are_upstreams(name: str, merge: MergeConfig) -> None:
    """Values and shapes, of horizons within one run and beyond it, where known covariates stand in for quantiles."""
    given = INPUTS[name]
    for steps in {"lists": (20, 61), "dicts beyond one run": (61,)}.get(name, (20,)):
        if isinstance(
            given[0], dict
        ):  # all of them decide which categories there are: in one call, each its own batch
            with tsm.merging(CHRONOS_2.model, merge):
                want = theirs().predict(given, steps, batch_size=1, **OWN)
        else:
            want = alone(given, steps, merge=merge)
        assert_all_close(ours(merge).predict(given, steps), want)


@MERGES
def test_one_series_and_arrays_of_series_are_those_of_a_list(merge: MergeConfig) -> None:
    """Upstream takes neither; as of every family they are one array."""
    model, series = ours(merge), upstream.walks(2, 60, seed=5)
    want = model.predict(list(series), 5)
    np.testing.assert_array_equal(model.predict(series, 5), np.concatenate(want))
    np.testing.assert_allclose(model.predict(list(map(float, series[0])), 5), want[0], rtol=1e-5, atol=1e-5)
    quantiles, points = model.predict_quantiles(series[0], 5, quantile_levels=[0.1, 0.3])
    assert (quantiles.shape, points.shape) == ((1, 5, 2), (1, 5))


def test_levels_and_points_are_upstreams() -> None:
    given, levels = INPUTS["lists"], [0.1, 0.25, 0.5, 0.9]
    want = theirs().predict_quantiles(given, 20, quantile_levels=levels, **OWN)
    got = ours().predict_quantiles(given, 20, quantile_levels=levels)
    for one, other in zip(got, want, strict=True):
        assert_all_close(one, other)


@MERGES
def test_cross_learning_is_upstreams(merge: MergeConfig) -> None:
    """Rows of a batch are one group, padded alike, so that there it needs no series apart."""
    given = [INPUTS["lists"][0][-90:], INPUTS["lists"][1], upstream.walks(1, 80, seed=9)[0]]
    for size in (256, 4, 1):
        with tsm.merging(CHRONOS_2.model, merge):
            want = theirs().predict(given, 30, cross_learning=True, batch_size=size, **OWN)
        assert_all_close(ours(merge).predict(given, 30, size, cross_learning=True), want)
    together = ours(merge).predict(given, 30, cross_learning=True)
    assert np.abs(together[2] - ours(merge).predict(given, 30)[2]).max() > 1e-2 * np.abs(together[2]).max()


def test_contexts_and_patches_of_a_run_are_upstreams() -> None:
    given = INPUTS["lists"]
    options: dict[str, Any] = {"context_length": 40, "max_output_patches": 1}
    want = theirs().predict(given, 20, **options, **OWN)
    called: list[int] = []
    got = ours().predict(given, 20, **options, after_batch=lambda: called.append(1))
    assert_all_close(got, want)
    assert len(called) == 2  # a run for each number of variates
    with pytest.warns(UserWarning, match="context_length 999 is longer than the model's own 256"):
        whole = ours().predict(given, 20, context_length=999)
    assert_all_close(whole, theirs().predict(given, 20, **OWN))


def test_levels_of_the_paths_come_in_any_order() -> None:
    series, levels = INPUTS["lists"][:1], [0.9, 0.1, 0.5]
    want = theirs().predict(series, 61, unrolled_quantiles=sorted(levels))
    assert_all_close(ours().predict(series, 61, unrolled_quantiles=levels), want)


def test_parts_that_fit_into_memory_are_the_whole() -> None:
    for name in ("lists", "dicts"):
        want = ours().predict(INPUTS[name], 20)
        got = ours(memory=1).predict(INPUTS[name], 20)
        for one, other in zip(got, want, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


def test_what_preprocess_makes_is_taken() -> None:
    from chronos.chronos2 import preprocess

    prepared: Any = preprocess.from_list_of_dicts(dicts(20), 20)
    assert_all_close(ours().predict(prepared, 20), theirs().predict(prepared, 20, **OWN))


@pytest.mark.parametrize("size", [2, 5, 400])
def test_weighted_quantiles_are_upstreams(size: int) -> None:
    from chronos.utils import weighted_quantile

    rng = np.random.default_rng(size)
    samples = rng.standard_normal((3, 4, size)).astype(np.float32)
    samples[0, 0] = 1
    weights = rng.random(size).astype(np.float32) + 0.01
    levels = [0.001, 0.1, 0.5, 0.93, 0.999]
    want = weighted_quantile(levels, torch.from_numpy(weights), torch.from_numpy(samples)).numpy()
    # Sums of 400 weights in float32 differ by 1e-6, which is up to 1e-4 of a value where few samples are.
    np.testing.assert_allclose(long_horizon.weighted_quantiles(samples, weights, levels), want, atol=2e-4)
    mass = Chronos2Pipeline._get_prob_mass_per_quantile_level(torch.tensor([0.01, 0.2, 0.5, 0.9])).numpy()
    np.testing.assert_allclose(long_horizon.masses([0.01, 0.2, 0.5, 0.9]), mass, rtol=1e-6)


def data() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two series of days, out of order, with a number, a bool and a category; the future of two of them."""
    rng, parts, ahead = np.random.default_rng(0), [], []
    kinds = pd.CategoricalDtype(["wet", "dry", "unused"])
    for name, n in (("b", 60), ("a", 47)):
        days = pd.date_range("2024-01-31", periods=n + 9)
        whole = pd.DataFrame(
            {
                "item_id": name,
                "timestamp": days,
                "target": rng.standard_normal(n + 9).cumsum(),
                "visits": rng.standard_normal(n + 9).cumsum(),
                "heat": rng.integers(0, 30, n + 9),
                "open": rng.random(n + 9) < 0.5,
                "kind": pd.Series(rng.choice(["dry", "wet"], n + 9)).astype(kinds),
            }
        )
        parts.append(whole[:n])
        ahead.append(whole[n:].drop(columns=["target", "visits", "open"]))
    mixed = pd.concat(parts, ignore_index=True).sample(frac=1, random_state=1)
    mixed["item_id"] = pd.Categorical(mixed["item_id"], ["b", "a"]).astype(str)
    order = mixed["item_id"].map({"b": 0, "a": 1}).sort_values(kind="stable").index
    return mixed.loc[order], pd.concat(ahead[::-1], ignore_index=True)


@pytest.mark.parametrize("target", ["target", ["target", "visits"]], ids=["one", "two"])
@pytest.mark.parametrize("known", [False, True], ids=["past", "known"])
def test_data_frames_are_upstreams(target: Any, known: bool) -> None:
    df, future = data()
    options: dict[str, Any] = {"target": target, "prediction_length": 9, "quantile_levels": LEVELS}
    for more in ({}, {"cross_learning": True, "context_length": 30}) if known else ({},):
        given = (df, future) if known else (df,)
        want = theirs().predict_df(*given, **options, **more, **OWN)
        got = ours().predict_df(*given, **options, **more)
        same = ["item_id", "timestamp", "target_name"]
        assert list(got.columns) == list(want.columns)
        pd.testing.assert_frame_equal(got[same], want[same], check_dtype=False)
        numbers = want.columns.difference(same)
        np.testing.assert_allclose(got[numbers], want[numbers], rtol=1e-4, atol=1e-4)


def test_gaps_of_a_frequency_are_missing_in_covariates_too() -> None:
    df, future = data()
    whole = df[df["item_id"] == "a"].sort_values("timestamp").reset_index(drop=True).astype({"open": object})
    future = future[future["item_id"] == "a"]
    holes = [3, 4, 20]
    options: dict[str, Any] = {"prediction_length": 9, "freq": "D"}
    with_nan = whole.copy()
    with_nan.loc[holes, ["target", "visits", "heat", "open", "kind"]] = None
    want = ours().predict_df(with_nan, future, **options)
    pd.testing.assert_frame_equal(ours().predict_df(whole.drop(index=holes), future, **options), want)


def test_missing_values_of_pandas_are_missing() -> None:
    """Beside numbers and beside words."""
    inputs = [
        [
            {
                "target": np.arange(9.0),
                "past_covariates": {
                    "x": pd.array([1, missing, *range(7)], object),
                    "kind": np.array(["a", missing, *"bcabcab"], object),
                },
            }
        ]
        for missing in (None, pd.NA)
    ]
    want, got = (ours().predict(given, 4) for given in inputs)
    np.testing.assert_array_equal(got[0], want[0])


def test_names_of_columns_need_not_be_strings() -> None:
    df, future = data()
    names = {"heat": 7, "kind": ("k", 1), "target": 0}
    want = ours().predict_df(df, future, prediction_length=9)
    df, future = (frame.set_axis([names.get(n, n) for n in frame.columns], axis=1) for frame in (df, future))
    got = ours().predict_df(df, future, prediction_length=9, target=0)
    np.testing.assert_allclose(got["predictions"], want["predictions"], rtol=1e-5, atol=1e-5)
