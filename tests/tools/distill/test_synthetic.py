"""The series that models are trained on: always the same ones for a seed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tsmerge_export.errors import UsageError
from tsmerge_export.tools.distill import synthetic
from tsmerge_export.tools.distill.synthetic import MadeWhenRead, Pool, Sampler, Shares


def panel(values: np.ndarray, train_end: int) -> SimpleNamespace:
    return SimpleNamespace(values=values, train_end=train_end)


def test_a_seed_draws_what_the_shipped_models_were_trained_on() -> None:
    """Figures of the code that trained them, before it became part of the package."""
    raw = np.random.default_rng(2).normal(size=(3000, 2)).cumsum(0)
    head = raw[:1800]
    pool = Pool.build(0, [panel((raw - head.mean(0)) / head.std(0), 1800)], 6)
    sampler = Sampler(pool, np.random.default_rng(1))
    total = 0.0
    for context in (512, 200):
        for shares in (Shares(0.3, 0.4), Shares(0.1, 0.0)):
            contexts, targets = sampler.batch(24, context, shares)
            total += float(targets.astype(np.float64).sum())
    squares = [float(np.nanmean(part.astype(np.float64) ** 2)) for part in (contexts, targets)]
    assert squares == pytest.approx([9.628325098758982, 10.556790519688679], rel=1e-6)
    # The generator is where it was then: not one draw more or less.
    assert sampler.rng.random() == 0.46389980042325796


def test_series_that_are_made_when_read_are_the_same_in_any_order() -> None:
    one, other = (MadeWhenRead(synthetic.mixture, (5, 4), 8, 300) for _ in range(2))
    backwards = [other[i] for i in reversed(range(8))][::-1]
    assert len(one) == 8 and one[1].shape == (300,)
    for mine, theirs in zip(one, backwards, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert one[3] is one[3], "made once"
    assert not np.array_equal(one[0], one[1])
    with pytest.raises(IndexError):
        one[8]


def test_data_without_a_usable_window_is_a_mistake_not_a_loop() -> None:
    pool = Pool.made_when_read(0, [panel(np.full((400, 1), np.nan), 400)], 2, 400)
    with pytest.raises(UsageError, match="--data: its training part"):
        Sampler(pool, np.random.default_rng(0)).batch(2, 100, Shares(0.0, 1.0), 10)


def test_a_missing_step_of_the_future_does_not_spoil_a_window() -> None:
    context = np.random.default_rng(0).normal(size=100).astype(np.float32)
    target = np.array([0.0, np.nan, 0.5], np.float32)
    assert Sampler.usable(context, target)
    assert not Sampler.usable(context, np.full(3, np.nan, np.float32))
    assert not Sampler.usable(context, np.array([np.nan, 100.0], np.float32))
