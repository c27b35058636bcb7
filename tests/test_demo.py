"""The trained models that ship."""

from __future__ import annotations

from fractions import Fraction

import torch

import tsmerge_export as tsm
from tsmerge_export import demo


def test_the_distilled_model_is_for_half_of_the_tokens() -> None:
    loaded = tsm.load_model(demo.CHRONOS_BOLT_HALF)
    assert loaded.trained is not None
    assert loaded.trained.merge == tsm.MergeConfig("local", k=1, ratio="1/2")
    assert loaded.trained.unmerged is not None and loaded.trained.unmerged > 0.5


def test_half_of_the_tokens_hardly_change_its_forecast() -> None:
    """Merged it is near the model that taught it, which is far off when it merges as much; on series of this test."""
    steps = torch.arange(1024.0)
    context = torch.stack(
        [
            torch.sin(2 * torch.pi * (steps + shift) / 24) + steps * slope
            for shift, slope in ((0, 0), (7, 1e-3))
        ]
    )
    half = tsm.MergeConfig("local", k=1, ratio=Fraction(1, 2))
    original, distilled = (tsm.load_model(path).model for path in (demo.CHRONOS_BOLT, demo.CHRONOS_BOLT_HALF))
    with torch.no_grad():
        expected = original(context=context).quantile_preds
        with tsm.merging(original, half):
            as_it_is = original(context=context).quantile_preds
        with tsm.merging(distilled, half):
            found = distilled(context=context).quantile_preds
    assert (found - expected).abs().mean() < 0.5 * (as_it_is - expected).abs().mean()
