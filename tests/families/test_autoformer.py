"""Autoformer: its encoder exported and proved without merging, forecasts with its own decoder, merging refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tsmerge_export as tsm
from tests.families.harness import Subject
from tests.models import AUTOFORMER
from tsmerge_export.compile.onnx_export import prove_dynamic
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.families import autoformer
from tsmerge_export.forecast.history import clock
from tsmerge_export.settings.config import MergeConfig

EVEN = Subject("autoformer", AUTOFORMER)
ODD = Subject("autoformer", {**AUTOFORMER, "context_length": 45, "input_size": 2, "scaling": "std"})


@pytest.mark.parametrize(
    "subject",
    [
        pytest.param(EVEN, id="even length"),
        pytest.param(ODD, id="odd length", marks=pytest.mark.slow),
    ],
)
def test_exported_without_merging(subject: Subject) -> None:
    prove_dynamic(subject.component, subject.model, subject.plain)
    report = subject.parity(MergeConfig(method="none"))
    assert report.failures == []
    assert report.passed


@pytest.mark.parametrize("length", [2, 7, 48])
def test_transforms_in_real_numbers(length: int) -> None:
    x, y = torch.randn(2, 3, length, 4, generator=torch.Generator().manual_seed(0)).unbind(0)
    want = torch.fft.irfft(
        torch.fft.rfft(x, n=length, dim=1) * torch.conj(torch.fft.rfft(y, n=length, dim=1)), n=length, dim=1
    )
    spectrum = autoformer._rfft(x, length, 1) * autoformer._Torch.conj(autoformer._rfft(y, length, 1))
    torch.testing.assert_close(autoformer._irfft(spectrum, length, 1), want, rtol=1e-4, atol=1e-5)


def test_forecasts_are_the_models() -> None:
    series = np.random.default_rng(0).normal(size=(2, 60)).astype(np.float32)
    feed = EVEN.component.from_series(EVEN.model, series)
    given = {name: torch.from_numpy(value) for name, value in feed.items()}
    with torch.no_grad():
        out = EVEN.model(
            **given, future_values=torch.zeros(2, 4), use_cache=False,
            future_time_features=torch.from_numpy(clock(0, 4, 2)).expand(2, -1, -1),
        )  # fmt: skip
        want = EVEN.model.output_distribution(out.params, loc=out.loc, scale=out.scale).mean[:, -4:]
    np.testing.assert_allclose(EVEN.forecast(series)[:, 0], want.numpy(), rtol=1e-4, atol=5e-5)


def test_merging_is_refused_with_the_reason() -> None:
    with pytest.raises(UnsupportedError, match="autoformer: no token can be merged: auto-correlation shifts"):
        tsm.apply(EVEN.model, MergeConfig())
