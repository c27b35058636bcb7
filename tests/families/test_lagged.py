"""Time Series Transformer and Informer: parity of their encoders, a forward written by hand, forecasts, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import tsmerge_export as tsm
from tests.families.attention import attention
from tests.families.harness import NOTHING, SETTINGS, WITH_ATTENTION, Subject, describe
from tests.families.lagged_subjects import PLAIN, WHOLE
from tests.models import INFORMER
from tests.quick import quick_verdicts
from tsmerge_export import families
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.cli import main_export
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.merge import local_merge
from tsmerge_export.rewrite.merge_graph import merge_graph
from tsmerge_export.settings.config import MergeConfig

FULL = Subject("informer", INFORMER)
SPARSE = Subject("informer", {**INFORMER, "attention_type": "prob"})
ONE_RATIO = MergeConfig(ratio="1/4")


@pytest.mark.parametrize("merge", [*SETTINGS, *WITH_ATTENTION], ids=describe)
def test_parity(merge: MergeConfig) -> None:
    PLAIN.assert_parity(merge)


@pytest.mark.parametrize("merge", [SETTINGS[0], WITH_ATTENTION[1]], ids=describe)
def test_parity_with_channels_and_static_features(merge: MergeConfig) -> None:
    WHOLE.assert_parity(merge)


@pytest.mark.parametrize("merge", [SETTINGS[0], SETTINGS[3], SETTINGS[6], *WITH_ATTENTION[:2]], ids=describe)
def test_parity_of_informer_with_full_attention(merge: MergeConfig) -> None:
    FULL.assert_parity(merge, ["Pad", "Pad"])  # the two distilling convolutions


@pytest.mark.parametrize(
    "merge",
    [SETTINGS[0], SETTINGS[2], SETTINGS[6], SETTINGS[8], SETTINGS[9], WITH_ATTENTION[1]],
    ids=describe,
)
def test_parity_of_informer_with_probsparse_attention(merge: MergeConfig) -> None:
    SPARSE.assert_parity(merge)
    assert [entry.before for entry in SPARSE.built(merge).report.merges] == ["12"]  # the last layer


def test_parity_fails_for_another_setting_and_for_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for subject in (PLAIN, SPARSE):
        assert not subject.parity(MergeConfig(ratio="1/3"), of=SETTINGS[0], cases=subject.cases()[2:4]).passed
    from tsmerge_export.families import informer

    monkeypatch.setattr(informer._Torch, "randint", staticmethod(torch.randint))
    torch.manual_seed(0)
    assert not SPARSE.parity(SETTINGS[0], cases=SPARSE.cases()[2:]).passed


@pytest.mark.parametrize("merge", NOTHING[:2], ids=describe)
@pytest.mark.parametrize("subject", [PLAIN, FULL, SPARSE], ids=["time-series-transformer", "full", "prob"])
def test_nothing_to_merge_is_bit_identical(subject: Subject, merge: MergeConfig) -> None:
    subject.assert_bit_identical(merge)


@pytest.mark.parametrize("subject", [PLAIN, WHOLE, FULL, SPARSE], ids=["plain", "whole", "full", "prob"])
def test_dynamic_and_removable(subject: Subject) -> None:
    subject.assert_dynamic_and_removable()


def by_hand(feed: dict[str, np.ndarray]) -> Tensor:
    """Encoder states of PLAIN with local merging of a quarter after every attention."""
    config, encoder = PLAIN.model.config, PLAIN.model.model.encoder
    values, mask = torch.from_numpy(feed["past_values"]), torch.from_numpy(feed["past_observed_mask"])
    seen = mask[:, -config.context_length :]
    scale = (values[:, -config.context_length :] * seen).abs().sum(1, keepdim=True) / seen.sum(
        1, keepdim=True
    )
    lags = [(values / scale)[:, 12 - lag : 12 - lag + config.context_length] for lag in config.lags_sequence]
    static = torch.stack([torch.zeros_like(scale), scale.log()], -1).expand(-1, config.context_length, -1)
    clock = torch.from_numpy(feed["past_time_features"])[:, -config.context_length :]
    h = (
        torch.cat([torch.stack(lags, -1), static, clock], -1)
        @ encoder.value_embedding.value_projection.weight.T
    )
    place = torch.arange(config.context_length)[:, None] / 10000 ** (2 * torch.arange(8) / 16)
    h = h + torch.cat([place.sin(), place.cos()], 1)
    width = (config.d_model,)

    def norm(module: Any, x: Tensor) -> Tensor:
        return F.layer_norm(x, width, module.weight, module.bias)

    h, size = norm(encoder.layernorm_embedding, h), None
    for layer in encoder.layers:
        merged = local_merge(
            norm(layer.self_attn_layer_norm, h + attention(layer.self_attn, h)),
            size=size,
            ratio="1/4",
            min_tokens=4,
        )
        h, size = merged.y, merged.size
        inner = F.linear(
            F.gelu(F.linear(h, layer.fc1.weight, layer.fc1.bias)), layer.fc2.weight, layer.fc2.bias
        )
        h = norm(layer.final_layer_norm, h + inner)
    return h


def test_eager_and_exported_equal_a_forward_written_by_hand() -> None:
    series = np.random.default_rng(1).normal(5, 1, size=(4, 70)).astype(np.float32)
    series[1, 20:40] = np.nan
    feed = PLAIN.component.from_series(PLAIN.model, series)
    with torch.no_grad():
        want = by_hand(feed)
        assert want.shape == (4, 21, 16)  # 48 steps
        with tsm.merging(PLAIN.model, ONE_RATIO):
            eager = PLAIN.component.eager(PLAIN.model, {k: torch.from_numpy(v) for k, v in feed.items()})
    torch.testing.assert_close(eager["last_hidden_state"], want, rtol=1e-4, atol=5e-5)
    got = open_session(PLAIN.built(ONE_RATIO).merged, 1).run(["last_hidden_state"], feed)[0]
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=5e-5)


def test_probsparse_reads_every_key_once() -> None:
    """Deterministic ProbSparse by its definition (arXiv 2012.07436, equation 4): the top queries attend, others get
    the mean of the values."""
    module = SPARSE.model.model.encoder.layers[0].self_attn
    hidden = torch.randn(2, 20, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), families.get("informer").deterministic():  # type: ignore[attr-defined]
        got = module(hidden)[0]
        assert torch.equal(got, module(hidden)[0])
    q, k, v = (
        p(hidden).unflatten(-1, (4, 4)).transpose(1, 2) for p in (module.q_proj, module.k_proj, module.v_proj)
    )
    scores = q @ k.transpose(2, 3) / 2
    measure = scores.amax(-1) - scores.mean(-1)
    top = measure.argsort(-1, descending=True)[..., : 2 * 4]  # factor 2, ceil(log(21)) = 4
    chosen = torch.zeros_like(measure, dtype=torch.bool).scatter(-1, top, True)[..., None]
    mixed = torch.where(chosen, scores.softmax(-1) @ v, v.mean(2, keepdim=True))
    want = module.out_proj(mixed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("merge", [None, ONE_RATIO, WITH_ATTENTION[1]], ids=describe)
def test_forecasts_follow_the_decoder_of_the_merged_model(merge: MergeConfig | None) -> None:
    """The path of means equals generate's own loop, where a distribution without width is drawn from."""
    series = np.random.default_rng(0).normal(2, 1, size=(2, 60)).astype(np.float32)
    subject, config = PLAIN, PLAIN.model.config
    feed = subject.component.from_series(subject.model, series)
    tensors = {name: torch.from_numpy(value) for name, value in feed.items()}
    from tsmerge_export.forecast.history import clock

    future = torch.from_numpy(clock(0, 4, 2)).expand(2, -1, -1)
    model = subject.model
    original, config.num_parallel_samples = model.output_distribution, 1

    class Sure:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.mean = original(*args, **kwargs).mean

        def sample(self) -> Tensor:
            return self.mean

    try:
        model.output_distribution = Sure
        active = merge or MergeConfig(method="none")
        with tsm.merging(model, active), torch.no_grad():
            want = model.generate(**tensors, future_time_features=future).sequences[:, 0]
    finally:
        del model.output_distribution
    session = open_session(subject.built(active).merged, 1)
    names = [spec.name for spec in subject.component.outputs]
    got = subject.family.forecast(
        model, lambda given: dict(zip(names, session.run(names, given), strict=True)), series
    )
    assert got.shape == (2, 1, 4)
    np.testing.assert_allclose(got[:, 0], want.numpy(), rtol=1e-4, atol=1e-5)


def test_what_sparse_attention_refuses() -> None:
    with pytest.raises(UnsupportedError, match="--metric key"):
        merge_graph(SPARSE.plain.clone(), MergeConfig(metric="key"), scope=SPARSE.component.hints.scope)
    feed = SPARSE.component.from_series(SPARSE.model, np.ones((1, 60), np.float32))
    tensors = {name: torch.from_numpy(value) for name, value in feed.items()}
    with (
        pytest.raises(UnsupportedError, match="--metric key"),
        tsm.merging(SPARSE.model, MergeConfig(metric="key")),
    ):
        SPARSE.component.eager(SPARSE.model, tensors)


@pytest.mark.parametrize("subject", [WHOLE, SPARSE], ids=["time-series-transformer", "informer"])
def test_command_line(
    subject: Subject, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quick_verdicts(monkeypatch)
    subject.model.save_pretrained("tiny")
    np.savetxt("series.csv", np.sin(np.arange(300) / 4) + 2, header="a", comments="")
    assert main_export(["tiny", "--ratio", "1/4", "-o", "out", "--data", "series.csv", "--threads", "1"]) == 0
    bundle = tsm.Bundle.open("out")
    assert bundle.manifest["family"] == subject.family_name
    assert bundle.verdicts["parity"]["passed"]
    assert bundle.verdicts["cost"]["horizon"] == 4
