"""Sampling against transformers' own warpers and against its distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from tsmerge_export.errors import TsmergeError
from tsmerge_export.forecast.sampling import Sampling, draw, top_k, uniforms


def logits(rows: int, vocab: int, ties: bool) -> np.ndarray:
    values = np.random.default_rng(vocab).standard_normal((rows, vocab)) * 3
    return (np.round(values) if ties else values).astype(np.float32)


def reference(scores: np.ndarray, uniform: np.ndarray, how: Sampling) -> np.ndarray:
    tensor = torch.from_numpy(scores.copy())
    if how.banned is not None:
        tensor[:, how.banned] = -torch.inf
    warpers = [TemperatureLogitsWarper(float(how.temperature))]
    warpers += [TopKLogitsWarper(how.top_k)] if how.top_k else []
    warpers += [TopPLogitsWarper(how.top_p)] if how.top_p < 1 else []
    for warper in warpers:
        tensor = warper(None, tensor)
    cumulative = tensor.softmax(-1).double().cumsum(1).numpy()
    return (cumulative <= (uniform * cumulative[:, -1])[:, None]).sum(1)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("vocab", [30, 64, 1000, 4096])
@pytest.mark.parametrize(
    "how",
    [
        Sampling(), Sampling(top_k=1), Sampling(top_k=50), Sampling(0.6, 50, 0.9, 1), Sampling(1.7, 0, 0.5, 0),
        Sampling(top_p=0.0), Sampling(top_k=29, top_p=0.99), Sampling(top_k=10**6),
    ],
    ids=str,
)  # fmt: skip
def test_draws_are_those_of_the_warpers(how: Sampling, vocab: int, ties: bool) -> None:
    # Which of equal scores top-p drops is up to the sort: no ties there.
    scores = logits(200, vocab, ties and how.top_p == 1)
    uniform = np.random.default_rng(1).random(200)
    want = reference(scores, uniform, how)
    np.testing.assert_array_equal(draw(scores.copy(), uniform, how), want)


@pytest.mark.parametrize("k", [1, 5, 63, 64])
@pytest.mark.parametrize("ties", [False, True])
def test_top_k_keeps_what_the_warper_keeps(k: int, ties: bool) -> None:
    scores = logits(50, 1027, ties)
    scores[:, 3] = -np.inf
    kept, tokens = top_k(scores, k)
    warped = TopKLogitsWarper(k)(None, torch.from_numpy(scores)).numpy()
    for row in range(50):
        finite = np.isfinite(kept[row])
        np.testing.assert_array_equal(tokens[row][finite], np.flatnonzero(np.isfinite(warped[row])))
        np.testing.assert_array_equal(kept[row][finite], scores[row][tokens[row][finite]])


def test_frequencies_follow_the_softmax() -> None:
    scores = np.log(np.array([0.1, 0.2, 0.0, 0.3, 0.4], np.float32), where=[True, True, False, True, True],
                    out=np.full(5, -np.inf, np.float32))  # fmt: skip
    uniform = (np.arange(10_000) + 0.5) / 10_000
    drawn = draw(np.tile(scores, (10_000, 1)), uniform, Sampling())
    np.testing.assert_allclose(np.bincount(drawn, minlength=5) / 10_000, [0.1, 0.2, 0, 0.3, 0.4], atol=2e-4)


@pytest.mark.parametrize("uniform", [0.0, np.nextafter(1.0, 0)])
def test_extreme_numbers_draw_tokens_that_can_be(uniform: float) -> None:
    scores = np.full((1, 100), -np.inf, np.float32)
    scores[0, [20, 40]] = 0
    expected = 20 if uniform == 0 else 40
    assert draw(scores, np.array([uniform]), Sampling(top_k=50)).item() == expected


def test_shape_is_kept_and_the_banned_token_never_drawn() -> None:
    scores = np.zeros((2, 3, 64), np.float32)
    scores[..., 7] = 100
    drawn = draw(scores, np.full((2, 3), 0.5), Sampling(banned=7))
    assert drawn.shape == (2, 3)
    assert (drawn != 7).all()


@pytest.mark.parametrize("how", [Sampling(), Sampling(top_k=1), Sampling(top_k=3)])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 65, 130])
def test_a_logit_that_is_not_finite_is_an_error(how: Sampling, bad: float, place: int) -> None:
    logits = np.random.default_rng(0).standard_normal((3, 131)).astype(np.float32)
    logits[1, place] = bad
    with pytest.raises(TsmergeError, match="not finite"):
        draw(logits, np.zeros(3), how)


def test_logits_without_a_finite_one_are_an_error() -> None:
    with pytest.raises(TsmergeError, match="not finite"):
        draw(np.full((1, 8), -np.inf, np.float32), np.zeros(1), Sampling())


def test_streams_of_series_are_their_own() -> None:
    first = uniforms(3, 0, 0, 4, 6)
    np.testing.assert_array_equal(first, uniforms(3, 0, 0, 4, 6))
    assert first.shape == (4, 6)
    for other in (uniforms(4, 0, 0, 4, 6), uniforms(3, 1, 0, 4, 6), uniforms(3, 0, 1, 4, 6)):
        assert not (first == other).any()
