"""Draws and means in numpy against scipy's and torch's distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from transformers.time_series_utils import NegativeBinomialOutput, NormalOutput, StudentTOutput

from tsmerge_export.errors import UsageError
from tsmerge_export.forecast import distributions

GIVEN = {
    "student_t": ({"df": 3.5, "loc": 0.4, "scale": 1.3}, StudentTOutput),
    "normal": ({"loc": -0.4, "scale": 0.3}, NormalOutput),
    "negative_binomial": ({"total_count": 2.5, "logits": 0.7}, NegativeBinomialOutput),
}
LOC, SCALE, COUNT = np.float32(2), np.float32(5), 40_000


@pytest.mark.parametrize("name", GIVEN)
def test_draws_and_means(name: str) -> None:
    numbers, upstream = GIVEN[name]
    assert tuple(numbers) == distributions.PARAMETERS[name] == tuple(upstream.args_dim)
    given = {key: np.full((COUNT, 1), value, np.float32) for key, value in numbers.items()}
    drawn = distributions.draw(name, given, LOC, SCALE, np.random.default_rng(0))
    assert drawn.shape == (COUNT, 1) and drawn.dtype == np.float32
    torch_given = tuple(torch.tensor([value]) for value in numbers.values())
    original = upstream(dim=1).distribution(torch_given, torch.tensor([LOC]), torch.tensor([SCALE]))
    np.testing.assert_allclose(
        distributions.mean(name, given, LOC, SCALE)[0], original.mean.numpy(), rtol=1e-5
    )
    if name == "negative_binomial":
        # Failures with probability 1 / (1 + scale * exp(logits)) until ``total_count`` successes.
        chance = 1 / (1 + 5 * np.exp(0.7))
        values = np.arange(0, 120, 7)
        seen = (drawn[:, 0][:, None] <= values).mean(0)
        np.testing.assert_allclose(seen, stats.nbinom(2.5, chance).cdf(values), atol=0.01)
    else:
        base = stats.t(3.5, 0.4, 1.3) if name == "student_t" else stats.norm(-0.4, 0.3)
        assert stats.kstest((drawn[:, 0] - LOC) / SCALE, base.cdf).pvalue > 0.01
    with pytest.raises(UsageError, match="distribution 'poisson' is not known"):
        distributions.check("poisson")
