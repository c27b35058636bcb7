"""Cosines at the merge points against numpy on tokens caught by a hook of the test's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import artefacts
from tsmerge_export.eager.apply import merging
from tsmerge_export.eager.count import tokens_at
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.advise.redundancy import ALIKE, measure


def windows(count: int = 3, length: int = 120) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.cumsum(rng.standard_normal((count, length)), axis=1).astype(np.float32)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_figures_are_those_of_the_tokens() -> None:
    family, model, component = (
        artefacts.family("bolt-tiny"),
        artefacts.model("bolt-tiny"),
        artefacts.component("bolt-tiny"),
    )
    caught: list[np.ndarray] = []
    handles = [
        block.layer[0].register_forward_hook(lambda _m, _a, out: caught.append(out[0].detach().numpy()))
        for block in model.encoder.block  # type: ignore[union-attr]
    ]
    series = windows()
    with torch.no_grad():
        before = component.eager(model, {"context": torch.from_numpy(series)})["quantiles"]
    for handle in handles:
        handle.remove()
    found = measure(family, component, model, series)
    assert [one.layer for one in found] == [0, 1]
    for one, tokens in zip(found, caught, strict=True):
        free = tokens[:, :-1].astype(np.float64)  # the last is REG, which is protected
        first, second = free[:, 0::2], free[:, 1::2]
        near = cosine(first[:, : second.shape[1]], second)
        every = cosine(first[:, :, None], second[:, None])
        assert one.tokens == tokens.shape[1] == 16
        # 15 free tokens: the last first has no second behind it. It is near to none, yet has a best one.
        assert one.neighbours == pytest.approx(near.mean(), abs=1e-5)
        assert one.best == pytest.approx(every.max(2).mean(), abs=1e-5)
        assert one.alike == pytest.approx((near >= ALIKE).sum() / (3 * 16))
    with torch.no_grad():
        after = component.eager(model, {"context": torch.from_numpy(series)})["quantiles"]
    assert torch.equal(before, after)


def test_padding_is_no_partner() -> None:
    """A series half of which is missing: its tokens are those of the other half, whatever stands in front."""
    family, model, component = (
        artefacts.family("bolt-tiny"),
        artefacts.model("bolt-tiny"),
        artefacts.component("bolt-tiny"),
    )
    series = windows(2, 128)
    padded = np.concatenate([np.full((2, 64), np.nan, np.float32), series], axis=1)
    short, long = measure(family, component, model, series), measure(family, component, model, padded)
    for a, b in zip(short, long, strict=True):
        assert b.neighbours == pytest.approx(a.neighbours, abs=1e-4)
        assert b.best == pytest.approx(a.best, abs=1e-4)
        assert (a.tokens, b.tokens) == (17, 25)
    assert measure(family, component, model, np.full((2, 64), np.nan, np.float32)) == []


def test_chunks_of_windows_make_no_difference() -> None:
    family, model, component = (
        artefacts.family("t5-tiny"),
        artefacts.model("t5-tiny"),
        artefacts.component("t5-tiny"),
    )
    series = windows(11, 40)
    told: list[tuple[int, int]] = []
    whole = measure(family, component, model, series, lambda *args: told.append(args))
    assert told == [(1, 2), (2, 2)]
    parts = [measure(family, component, model, series[i : i + 1]) for i in range(11)]
    for layer, one in enumerate(whole):
        assert one.neighbours == pytest.approx(np.mean([part[layer].neighbours for part in parts]), abs=1e-5)
        assert one.alike == pytest.approx(np.mean([part[layer].alike for part in parts]))
    assert tokens_at(family, component, model, component.from_series(model, series[:1])) == 41


def test_a_model_that_merges_is_refused() -> None:
    family, model, component = (
        artefacts.family("bolt-tiny"),
        artefacts.model("bolt-tiny"),
        artefacts.component("bolt-tiny"),
    )
    with merging(model, MergeConfig(r=1)), pytest.raises(ValueError, match="remove it first"):
        measure(family, component, model, windows())
