"""Autoformer: both its files proved without merging, forecasts by them, what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import tsmerge_export as tsm
from tests.exports import export_component
from tests.families.decoder_subjects import AT_ONCE
from tests.families.harness import Subject
from tests.models import AUTOFORMER, tiny
from tsmerge_export import families
from tsmerge_export.compile.build import merge_and_lower
from tsmerge_export.compile.onnx_export import prove_dynamic
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.families import autoformer_decoder
from tsmerge_export.families.autoformer_modules import auto_correlation, each_alone
from tsmerge_export.forecast.history import clock
from tsmerge_export.forecast.lagged_decoder import Arrays, Floats, at_once
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import generation
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.parity import ParityReport

EVEN = AT_ONCE
ODD = Subject(
    "autoformer",
    {
        **AUTOFORMER, "context_length": 45, "label_length": 7, "input_size": 2, "scaling": "std",
        "distribution_output": "normal",
    },
)  # fmt: skip
#: The decoder has more steps than the encoder, whose states are then filled up with zeros; no time features.
SHORT = Subject(
    "autoformer",
    {
        **AUTOFORMER, "context_length": 8, "label_length": 5, "prediction_length": 9, "scaling": False,
        "num_time_features": 0, "num_static_categorical_features": 2, "cardinality": [3, 5],
        "num_static_real_features": 1, "distribution_output": "negative_binomial", "encoder_layers": 1,
    },
)  # fmt: skip
SUBJECTS = [
    pytest.param(EVEN, id="even length"),
    pytest.param(ODD, id="odd length", marks=pytest.mark.slow),
    pytest.param(SHORT, id="short context", marks=pytest.mark.slow),
]
NONE = MergeConfig(method="none")


@pytest.mark.parametrize("subject", SUBJECTS)
def test_exported_without_merging(subject: Subject) -> None:
    prove_dynamic(subject.component, subject.model, subject.plain)
    report = subject.parity(NONE)
    assert report.failures == []
    assert report.passed


@pytest.mark.parametrize("subject", SUBJECTS)
def test_both_files_in_a_row_give_what_generate_draws_from(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = subject.family.components(subject.model)[1]
    plain = export_component(decoder, subject.model)
    prove_dynamic(decoder, subject.model, plain)
    built = [
        subject.built(NONE),
        merge_and_lower(decoder, plain, NONE, inline=False, folder=tmp_path, scratch=tmp_path),
    ]

    def report() -> ParityReport:
        checks = Checks(cases=subject.cases(), threads=1)
        return generation.check(subject.family, subject.model, NONE, built, checks)

    found = report()
    assert found.failures == []
    assert found.passed

    def moved(feed: Arrays, encoded: Arrays, times: Floats) -> Arrays:
        given = at_once(feed, encoded, times)
        return given | {"static_features": given["static_features"] + 0.1}

    monkeypatch.setattr(autoformer_decoder, "at_once", moved)
    assert not report().passed


@pytest.mark.parametrize(("queries", "values"), [(7, 7), (48, 48), (6, 20), (9, 5)])
def test_auto_correlation_in_real_numbers(queries: int, values: int) -> None:
    module = EVEN.model.model.decoder.layers[0].encoder_attn
    rng = torch.Generator().manual_seed(0)
    hidden, states = (torch.randn(3, steps, 16, generator=rng) for steps in (queries, values))
    with torch.no_grad():
        rows = zip(hidden.split(1), states.split(1), strict=True)
        want = torch.cat([module(own, key_value_states=others)[0] for own, others in rows])
        torch.testing.assert_close(auto_correlation(module, hidden, states), want, rtol=1e-4, atol=1e-5)


def test_a_series_is_computed_as_if_it_was_alone() -> None:
    """In transformers it is not; a batch of one is right there, and is what every series gets."""
    series = np.random.default_rng(2).normal(size=(3, 60)).astype(np.float32)

    def states(rows: np.ndarray) -> torch.Tensor:
        feed = EVEN.component.from_series(EVEN.model, rows)
        found = EVEN.model.model(**{k: torch.from_numpy(v) for k, v in feed.items()}, use_cache=False)
        return found.encoder_last_hidden_state

    with torch.no_grad():
        alone = torch.cat([states(row) for row in np.split(series, 3)])
        assert (states(series) - alone).abs().max() > 0.1
        with each_alone():
            torch.testing.assert_close(states(series), alone, rtol=1e-4, atol=1e-5)


def test_forecasts_are_the_models() -> None:
    """Of the training forward, which prepares the decoder's inputs by itself; its future values change nothing."""
    series = np.random.default_rng(0).normal(size=(2, 60)).astype(np.float32)
    feed = EVEN.component.from_series(EVEN.model, series)
    given = {name: torch.from_numpy(value) for name, value in feed.items()}
    with torch.no_grad(), each_alone():
        out = EVEN.model(
            **given, future_values=torch.ones(2, 4), use_cache=False,
            future_time_features=torch.from_numpy(clock(0, 4, 2)).expand(2, -1, -1),
        )  # fmt: skip
        want = EVEN.model.output_distribution(out.params, loc=out.loc, scale=out.scale).mean[:, -4:]
    np.testing.assert_allclose(EVEN.forecast(series)[:, 0], want.numpy(), rtol=1e-4, atol=5e-5)


@pytest.mark.slow
def test_paths_are_draws_from_the_models_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the same noise, those of ``generate``."""
    series = np.random.default_rng(0).normal(3, 1, (2, 60)).astype(np.float32)
    config, net = ODD.model.config, ODD.model
    past = torch.from_numpy(series[:, -ODD.family.context(net) :])[..., None].expand(-1, -1, 2)
    noise = [
        [
            np.random.default_rng(np.random.SeedSequence(5, spawn_key=(row, step))).standard_normal((3, 2))
            for step in range(config.prediction_length)
        ]
        for row in range(2)
    ]
    given = torch.tensor(np.array(noise)).transpose(1, 2).flatten(0, 1)  # [series * paths, steps, channels]
    original = net.output_distribution

    def drawn(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        return SimpleNamespace(sample=lambda: found.mean + found.stddev * given)

    monkeypatch.setattr(config, "num_parallel_samples", 3)
    net.output_distribution = drawn
    length = past.shape[1]
    times = {
        "past_time_features": torch.from_numpy(clock(-length, length, 2)).expand(2, -1, -1),
        "future_time_features": torch.from_numpy(clock(0, 4, 2)).expand(2, -1, -1),
    }
    try:
        with each_alone():
            want = net.generate(past_values=past, past_observed_mask=torch.ones_like(past), **times).sequences
    finally:
        del net.output_distribution
    got = tsm.pipeline(ODD.bundle(NONE), threads=1).predict(series, num_samples=3, seed=5)
    np.testing.assert_allclose(got, want[..., 0].numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("label", [0, 49])
def test_a_label_that_the_model_fails_with_is_refused(label: int) -> None:
    model = tiny("autoformer", config={**AUTOFORMER, "label_length": label})
    with pytest.raises(UnsupportedError, match=f"label_length {label} is not within 1 to 48"):
        families.get("autoformer").components(model)


def test_merging_is_refused_with_the_reason() -> None:
    with pytest.raises(UnsupportedError, match="autoformer: no token can be merged: auto-correlation shifts"):
        tsm.apply(EVEN.model, MergeConfig())
