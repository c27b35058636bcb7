"""The same uniform numbers give the same tokens as chronos-forecasting's own generation on the eager merged model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tsmerge_export as tsm
from tests import artefacts
from tests.forecast import upstream
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import parity
from tsmerge_export.verify.decisions import near_tie
from tsmerge_export.verify.tolerances import SCORE_NOISE

#: Probabilities of two float32 implementations differ by less.
DRAW_NOISE = 2e-6

NONE = MergeConfig(method="none")
MERGES = [NONE, MergeConfig(ratio="1/4"), MergeConfig(ratio="1/3", prop_attn=True, metric="key")]


@pytest.mark.parametrize(
    "settings",
    [{"top_k": 1}, {}, {"temperature": 0.7, "top_k": 20, "top_p": 0.9}, {"top_k": 0, "temperature": 1.5}],
    ids=["greedy", "defaults", "narrow", "wide"],
)
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("merge", MERGES, ids=lambda merge: merge.describe())
def test_tokens_equal_those_of_the_eager_model(
    merge: MergeConfig, batch: int, settings: dict[str, float]
) -> None:
    check("t5-tiny", merge, batch, 100, samples=5, steps=16, **settings)


@pytest.mark.parametrize("merge", [NONE, MergeConfig(ratio="1/4")], ids=lambda merge: merge.describe())
def test_tokens_of_the_trained_model(merge: MergeConfig) -> None:
    check("t5-nano", merge, 8, 512, samples=3, steps=40)


def test_tokens_of_a_horizon_in_pieces() -> None:
    check("t5-tiny", NONE, 3, 140, samples=4, steps=37)


def check(
    name: str, merge: MergeConfig, batch: int, length: int, samples: int, steps: int, **settings: float
) -> None:
    """Values are compared bit for bit, up to the first draw of a path that hangs on float noise."""
    series = decided(name, merge, batch, length)
    ours = tsm.pipeline(artefacts.bundle(name, merge), threads=1)
    got = ours.predict(series, steps, num_samples=samples, seed=11, **settings)
    theirs = upstream.t5(name)
    own = theirs.model_prediction_length
    lengths = [min(own, steps - start) for start in range(0, steps, own)]
    with (
        tsm.merging(theirs.model.model, merge),
        upstream.drawing(11, len(series), samples, lengths) as margins,
    ):
        want = theirs.predict(torch.from_numpy(series), steps, num_samples=samples, **settings)
    assert got.dtype == np.float32
    sure = (torch.stack(margins).cummin(0).values > DRAW_NOISE).T.reshape(len(series), samples, steps).numpy()
    assert sure.mean() > 0.95
    np.testing.assert_array_equal(got[sure], want.numpy()[sure])
    assert settings.get("top_k") != 1 or (got == got[:, :1]).all()
    assert settings.get("top_k") == 1 or (got != got[:, :1]).any()


def decided(name: str, merge: MergeConfig, batch: int, length: int) -> np.ndarray:
    """Series whose merge decisions do not hang on float noise: any two runtimes then merge the same tokens."""
    pool, model = upstream.walks(16 * batch, length), artefacts.model(name)
    component = artefacts.component(name)
    _, decisions = parity.run_eager(component, model, merge, component.from_series(model, pool))
    clear = pool[~near_tie(decisions, SCORE_NOISE, len(pool))]
    assert len(clear) >= batch
    return clear[:batch]
