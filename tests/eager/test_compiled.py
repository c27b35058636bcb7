"""torch.compile over a merged model: one graph, the same forecast as without it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch

import tsmerge_export as tsm
from tests.models import tiny
from tsmerge_export.settings.config import tokens_removed


def _agrees(model: Any, lengths: tuple[int, ...], merge: tsm.MergeConfig, **options: Any) -> None:
    """Compiled without a graph break, at every length what the eager model says; it must have merged."""
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, **options)
    series = torch.randn(2, max(lengths), generator=torch.Generator().manual_seed(3)).cumsum(1)
    for length in lengths:
        with torch.no_grad():
            plain = model(series[:, :length]).quantile_preds
            with tsm.merging(model, merge) as run:
                eager = model(series[:, :length]).quantile_preds
                assert sum(step.removed for step in run.steps) > 0
                found = compiled(series[:, :length]).quantile_preds
        assert not torch.equal(eager, plain)
        torch.testing.assert_close(found, eager, rtol=1e-5, atol=1e-5)


def test_a_merged_model_is_one_graph() -> None:
    _agrees(
        tiny("chronos-bolt"),
        (128,),
        tsm.MergeConfig("local", k=1, ratio="1/4"),
        backend="eager",
        dynamic=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "merge",
    [
        tsm.MergeConfig("local", k=4, r=2, positions="compact", prop_attn=True),
        tsm.MergeConfig("local", k=1, ratio="1/3", similarity="l2", protect_newest=2),
        tsm.MergeConfig("global", ratio="1/4", metric="key"),
        tsm.MergeConfig("pitome", ratio="1/4"),
    ],
    ids=lambda merge: merge.method,
)
def test_of_other_methods(merge: tsm.MergeConfig) -> None:
    _agrees(tiny("chronos-bolt"), (128,), merge, backend="eager", dynamic=False)


@pytest.mark.slow
def test_lengths_that_become_symbols() -> None:
    """The second length is compiled for any: bounds of r(N) within each other must not keep sympy busy."""
    _agrees(tiny("chronos-bolt"), (128, 112, 96), tsm.MergeConfig("local", k=1, ratio="1/4"), backend="eager")


def test_the_count_is_the_formula() -> None:
    """r(N) = min(max(0, floor(N q) or r), (N - protected) // 2, N - min_tokens), not below 0; R2.4 with Fractions."""
    ratios = (Fraction(1, 10), Fraction(1, 4), Fraction(1, 3), Fraction(49, 99), Fraction(1, 2))
    for tokens in range(40):
        for protected in (0, 1, 3, 39, 60):
            for least in (0, 4, 38, 60):
                bound = max(0, min(max(0, tokens - protected) // 2, tokens - least))
                for ratio in ratios:
                    exact = (
                        tokens * ratio.numerator - tokens * ratio.numerator % ratio.denominator
                    ) / Fraction(ratio.denominator)
                    assert tokens_removed(tokens, ratio=ratio, min_tokens=least, protected=protected) == min(
                        exact, bound
                    )
                for r in (0, 1, 7, 100):
                    assert tokens_removed(tokens, r=r, min_tokens=least, protected=protected) == min(r, bound)
