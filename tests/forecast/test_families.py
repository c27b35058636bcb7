"""Forecasters of the families beside those of Chronos against the original models, merged and unmerged."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import tsmerge_export as tsm
from tests.families.decoder_subjects import AT_ONCE, SPARSE
from tests.families.harness import Subject, describe
from tests.families.lagged_subjects import WHOLE
from tests.forecast import upstream
from tests.forecast.subjects import CHRONOS_2, NONE, POINTS, RATIO, SAMPLES, TIMESFM
from tests.forecast.without_torch import SCRIPT
from tsmerge_export.errors import UsageError
from tsmerge_export.forecast import distributions
from tsmerge_export.settings.config import MergeConfig

PROPORTIONAL = MergeConfig(ratio="1/4", prop_attn=True)
MERGES = pytest.mark.parametrize("merge", [NONE, RATIO], ids=describe)

MIXER = Subject("patchtsmixer")


def model(subject: Subject, merge: MergeConfig = NONE, **options: Any) -> Any:
    return tsm.pipeline(subject.bundle(merge), threads=1, **options)


def ragged(*lengths: int) -> list[np.ndarray]:
    return [np.nan_to_num(upstream.walks(1, n, seed=n)[0]) for n in lengths]


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


@MERGES
@pytest.mark.parametrize("name", TIMESFM)
def test_timesfm_equals_the_model(name: str, merge: MergeConfig) -> None:
    """Flip invariance and the cut at 0 are the original's own, series by series."""
    subject = TIMESFM[name]
    for series in (ragged(200, 200, 61), [np.abs(row) / 9 for row in ragged(120, 40)]):
        more = {"freq": [0]} if name == "timesfm" else {}
        with torch.no_grad(), tsm.merging(subject.model, merge):
            alone = [
                subject.model(
                    past_values=[torch.from_numpy(row)], forecast_context_len=-(-len(row) // 8) * 8, **more
                ).full_predictions
                for row in series
            ]
        got = model(subject, merge).predict(series)
        assert_close(got, torch.cat(alone)[..., 1:].transpose(1, 2).numpy())
        assert model(subject, merge).predict(series, 3).shape == (len(series), 3, 3)


@pytest.mark.parametrize("merge", [NONE, PROPORTIONAL], ids=describe)
def test_patchtst_equals_the_model(merge: MergeConfig) -> None:
    series = np.nan_to_num(upstream.walks(3, 120))
    past = torch.from_numpy(series[:, -96:, None].repeat(3, 2))
    with torch.no_grad(), tsm.merging(POINTS.model, merge):
        want = POINTS.model(past_values=past).prediction_outputs[..., 0].numpy()
    assert_close(model(POINTS, merge).predict(series)[:, 0], want)
    with pytest.warns(UserWarning, match="quantile levels beyond"):
        quantiles, points = model(POINTS, merge).predict_quantiles(series, 5, quantile_levels=[0.1, 0.5])
    assert_close(points, want[:, :5])
    assert_close(quantiles[..., 0], want[:, :5])
    assert np.isfinite(model(POINTS, merge).predict(ragged(20, 500))).all()


def test_patchtsmixer_equals_the_model() -> None:
    series = np.nan_to_num(upstream.walks(2, 64))
    with torch.no_grad():
        want = MIXER.model(past_values=torch.from_numpy(series[..., None].repeat(3, 2))).prediction_outputs
    assert_close(model(MIXER).predict(series)[:, 0], want[..., 0].numpy())


def test_patchtst_with_a_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means in place of draws are the original's; parts that fit into memory draw what the whole draws."""
    series, ours = np.nan_to_num(upstream.walks(3, 96)), model(SAMPLES)
    paths = ours.predict(series, 4, seed=1)
    assert paths.shape == (3, 7, 4)
    np.testing.assert_allclose(model(SAMPLES, memory=1).predict(series, 4, seed=1), paths, rtol=1e-4)
    assert (ours.predict(series, 4, seed=2) != paths).any()
    np.testing.assert_allclose(ours.predict_quantiles(series, 4, seed=1)[1], paths.mean(1))
    monkeypatch.setattr(distributions, "draw", lambda *given: distributions.mean(*given[:4]))
    with torch.no_grad():
        out = SAMPLES.model(past_values=torch.from_numpy(series[..., None].repeat(3, 2)))
        original = SAMPLES.model.distribution_output.distribution(out.prediction_outputs, out.loc, out.scale)
    assert_close(ours.predict(series)[:, 0], original.mean[..., 0].numpy())


@pytest.mark.parametrize(
    ("subject", "merge"),
    [
        pytest.param(subject, merge, id=f"{subject.family_name}-{describe(merge)}")
        for subject, merge in (*product((SPARSE, WHOLE), (NONE, PROPORTIONAL)), (AT_ONCE, NONE))
    ],
)
def test_lagged_paths_are_those_of_generate(
    subject: Subject, merge: MergeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a distribution without width is drawn from; with features of the user's."""
    net, rng = subject.model, np.random.default_rng(1)
    config, ours = net.config, model(subject, merge)
    length, channels = ours.model_context_length, config.input_size
    series = np.nan_to_num(upstream.walks(2, length)) + 3
    known: dict[str, Any] = {}
    if config.num_time_features:
        known["past_time_features"] = rng.standard_normal((2, length, 2)).astype(np.float32)
        known["future_time_features"] = rng.standard_normal((2, config.prediction_length, 2)).astype(
            np.float32
        )
    else:
        known["static_categorical_features"] = np.array([[1, 4], [2, 0]])
        known["static_real_features"] = np.array([[0.3], [-1]], np.float32)
    original = net.output_distribution

    class Sure:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.mean = original(*args, **kwargs).mean

        def sample(self) -> Tensor:
            return self.mean

    given = {name: torch.from_numpy(value) for name, value in known.items()}
    for name, steps in (("past_time_features", length), ("future_time_features", config.prediction_length)):
        given.setdefault(name, torch.zeros(2, steps, 0))
    past = torch.from_numpy(series)
    past = past if channels == 1 else past[..., None].expand(-1, -1, channels)
    monkeypatch.setattr(config, "num_parallel_samples", 1)
    net.output_distribution = Sure
    try:
        with torch.no_grad(), tsm.merging(net, merge), subject.family.deterministic():  # type: ignore[attr-defined]
            want = net.generate(past_values=past, past_observed_mask=torch.ones_like(past), **given).sequences
    finally:
        del net.output_distribution
    monkeypatch.setattr(distributions, "draw", lambda *given: distributions.mean(*given[:4]))
    got = ours.predict(series, num_samples=2, features=known)
    assert_close(got[:, 1], (want if channels == 1 else want[..., 0]).numpy()[:, 0])


def test_lagged_samples() -> None:
    """Seeds, parts, ragged series, a data frame in chunks, refusals."""
    series, ours = [*ragged(70, 9), upstream.walks(1, 300)[0]], model(SPARSE)
    paths = ours.predict(series, 5, num_samples=9, seed=3)
    assert paths.shape == (3, 9, 5) and np.isfinite(paths).all()
    assert len(np.unique(paths[0, :, 0])) == 9
    np.testing.assert_allclose(
        model(SPARSE, memory=1).predict(series, 5, num_samples=9, seed=3), paths, rtol=1e-4, atol=1e-4
    )
    assert (ours.predict(series, 5, num_samples=9, seed=4) != paths).any()
    assert ours.predict(series[:1], 1).shape == (1, SPARSE.model.config.num_parallel_samples, 1)
    frame = pd.concat(
        pd.DataFrame({"item_id": i, "timestamp": pd.date_range("2026-01-01", periods=40), "target": row})
        for i, row in enumerate(upstream.walks(3, 40))
    )
    frames = [ours.predict_df(frame, prediction_length=3, batch_size=size, seed=0) for size in (1, 256)]
    assert len(frames[0]) == 9
    np.testing.assert_allclose(frames[0]["predictions"], frames[1]["predictions"], rtol=1e-4, atol=1e-4)
    for bad, match in (
        ({"past_time": 1}, "'past_time' is none of past_time_features, future_time_features"),
        ({"future_time_features": np.zeros((3, 5, 2))}, r"shape \[3, 5, 2\], expected \[3, 12, 2\]"),
    ):
        with pytest.raises(UsageError, match=match):
            ours.predict(series, features=bad)


@pytest.mark.parametrize("subject", [TIMESFM["timesfm"], POINTS, SAMPLES, SPARSE])
def test_longer_horizons_are_refused(subject: Subject) -> None:
    ours = model(subject)
    with pytest.raises(UsageError, match=f"longer than the model's own {ours.model_prediction_length}, and"):
        ours.predict([1.0, 2.0, 3.0], ours.model_prediction_length + 1)


def test_neither_torch_nor_onnx_is_imported() -> None:
    subjects = (CHRONOS_2, *TIMESFM.values(), POINTS, SAMPLES, MIXER, SPARSE, AT_ONCE)
    folders = [subject.bundle(NONE) for subject in subjects]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *map(str, folders)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
