"""PatchTST: parity of all heads, norms and scalers, a forward written by hand, forecasts, what is refused."""

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
from tests.models import PATCHTST
from tests.quick import quick_verdicts
from tsmerge_export import families
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.cli import main_export
from tsmerge_export.eager.apply import apply
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.merge import local_merge, unmerge
from tsmerge_export.settings.config import MergeConfig

FLATTEN = Subject("patchtst", PATCHTST)
MEAN = Subject("patchtst", {**PATCHTST, "pooling_type": "mean", "norm_type": "layernorm", "pre_norm": False})
CLS = Subject("patchtst", {**PATCHTST, "use_cls_token": True, "pre_norm": False, "scaling": "mean"})
STUDENT = Subject(
    "patchtst", {**PATCHTST, "loss": "nll", "share_embedding": False, "scaling": None, "pooling_type": "max"}
)
HEADS = {
    "flatten": (FLATTEN, ["Reshape"]),
    "mean": (MEAN, ["ReduceMean"]),
    "cls": (CLS, []),
    "student-t": (STUDENT, []),
}


@pytest.mark.parametrize("merge", [*SETTINGS, *WITH_ATTENTION], ids=describe)
def test_parity(merge: MergeConfig) -> None:
    FLATTEN.assert_parity(merge, ["Reshape"])


@pytest.mark.parametrize("merge", [SETTINGS[0], SETTINGS[3], SETTINGS[6], *WITH_ATTENTION[:2]], ids=describe)
@pytest.mark.parametrize("head", ["mean", "cls", "student-t"])
def test_parity_of_other_heads(head: str, merge: MergeConfig) -> None:
    subject, barriers = HEADS[head]
    subject.assert_parity(merge, barriers)


def test_parity_fails_for_another_setting() -> None:
    assert not FLATTEN.parity(MergeConfig(ratio="1/3"), of=SETTINGS[0], cases=FLATTEN.cases()[2:4]).passed


@pytest.mark.parametrize("merge", NOTHING, ids=describe)
@pytest.mark.parametrize("head", ["flatten", "cls"])
def test_nothing_to_merge_is_bit_identical(head: str, merge: MergeConfig) -> None:
    HEADS[head][0].assert_bit_identical(merge)


@pytest.mark.parametrize("head", HEADS)
def test_dynamic_and_removable(head: str) -> None:
    HEADS[head][0].assert_dynamic_and_removable()


def norm(module: Any, x: Tensor) -> Tensor:
    """Batch normalisation by its definition."""
    bn = module.batchnorm
    return (x - bn.running_mean) / (bn.running_var + bn.eps).sqrt() * bn.weight + bn.bias


def by_hand(values: Tensor, mask: Tensor, ratio: str) -> Tensor:
    """The flatten model channel by channel, merging with the reference after every attention."""
    model, config = FLATTEN.model, FLATTEN.model.config
    out = []
    for channel in range(config.num_input_channels):
        x, seen = values[..., channel], mask[..., channel]
        count = seen.sum(1, keepdim=True).clamp(min=1)
        loc = (x * seen).sum(1, keepdim=True) / count
        scale = ((((x - loc) * seen) ** 2).sum(1, keepdim=True) / count + 1e-5).sqrt()
        patches = ((x - loc) / scale).unfold(1, config.patch_length, config.patch_stride)
        embedding = model.model.encoder.embedder.input_embedding
        h = (
            F.linear(patches, embedding.weight, embedding.bias)
            + model.model.encoder.positional_encoder.position_enc
        )
        size, targets = None, []
        for layer in model.model.encoder.layers:
            h = h + attention(layer.self_attn, norm(layer.norm_sublayer1, h))
            merged = local_merge(h, size=size, ratio=ratio, min_tokens=4)
            h, size = merged.y, merged.size
            targets.append(merged.target)
            first, last = layer.ff[0], layer.ff[3]
            inner = F.gelu(F.linear(norm(layer.norm_sublayer3, h), first.weight, first.bias))
            h = h + F.linear(inner, last.weight, last.bias)
        for target in reversed(targets):
            h = unmerge(h, target)
        out.append(
            F.linear(h.flatten(1), model.head.projection.weight, model.head.projection.bias) * scale + loc
        )
    return torch.stack(out, 2)


def test_eager_and_exported_equal_a_forward_written_by_hand(tmp_path: Path) -> None:
    merge = MergeConfig(ratio="1/4")
    rng = np.random.default_rng(1)
    series = rng.normal(size=(4, 96)).cumsum(1).astype(np.float32)
    series[1, :30] = np.nan
    feed = FLATTEN.component.from_series(FLATTEN.model, series)
    tensors = {name: torch.from_numpy(value) for name, value in feed.items()}
    with torch.no_grad():
        want = by_hand(*tensors.values(), ratio="1/4")
        with tsm.merging(FLATTEN.model, merge) as run:
            eager = FLATTEN.model(**tensors).prediction_outputs
            assert run.steps[0].kept.shape == (12, 18)  # 4 rows of 3 channels, 23 patches
    torch.testing.assert_close(eager, want, rtol=1e-4, atol=1e-4)

    got = open_session(FLATTEN.built(merge).merged, 1).run(None, feed)[0]
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-4)


def test_series_become_channels_and_forecasts() -> None:
    series = np.array([[1.0, np.nan, 3.0], [4.0, 5.0, 6.0]], np.float32)
    feed = FLATTEN.component.from_series(FLATTEN.model, series)
    assert feed["past_values"].shape == (2, 96, 3)
    assert feed["past_values"][0, -3:].T.tolist() == [[1, 1, 3], [4, 5, 6], [1, 1, 3]]
    assert feed["past_values"][0, :-3, 1].tolist() == [4] * 93
    assert feed["past_observed_mask"][0, -4:].T.tolist() == [[0, 1, 0, 1], [0, 1, 1, 1], [0, 1, 0, 1]]
    long = np.random.default_rng(0).normal(size=(2, 130)).astype(np.float32)
    with torch.no_grad():
        past = torch.from_numpy(long[:, -96:, None]).expand(-1, -1, 3)
        want = FLATTEN.model(past_values=past).prediction_outputs[..., 0]
        got = FLATTEN.forecast(long)
        np.testing.assert_allclose(got[:, 0], want.numpy(), rtol=1e-4, atol=1e-5)
        result = STUDENT.model(past_values=past)
        mean = STUDENT.model.distribution_output.distribution(
            result.prediction_outputs, loc=result.loc, scale=result.scale
        ).mean
    np.testing.assert_allclose(STUDENT.forecast(long)[:, 0], mean[..., 0].numpy(), rtol=1e-4, atol=1e-5)


def test_channel_attention_is_exported_without_merging_only() -> None:
    # Smaller weights: two saturated attentions a layer blow rounding up to 3e-4 of the output.
    subject = Subject("patchtst", {**PATCHTST, "channel_attention": True, "init_std": 0.1})
    with pytest.raises(UnsupportedError, match=r"channel attention needs the same patches.*--merge none"):
        apply(subject.model, MergeConfig())
    assert subject.parity(MergeConfig(method="none")).passed
    with pytest.raises(UnsupportedError, match="fails in transformers itself"):
        families.get("patchtst").components(
            Subject("patchtst", {**PATCHTST, "share_projection": False}).model
        )


def test_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quick_verdicts(monkeypatch)
    CLS.model.save_pretrained("tiny")
    Subject("patchtst", {**PATCHTST, "channel_attention": True}).model.save_pretrained("mixing")
    np.savetxt("series.csv", np.sin(np.arange(500) / 4), header="a", comments="")
    flags = ["--data", "series.csv", "--threads", "1"]
    assert main_export(["tiny", "--ratio", "1/4", "-o", "out", *flags]) == 0
    assert "patchtst: local" in capsys.readouterr().out
    bundle = tsm.Bundle.open("out")
    assert bundle.verdicts["cost"]["horizon"] == 6
    assert main_export(["mixing", "--merge", "local", "-o", "no", *flags]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "channel attention" in error
    assert not Path("no").exists()
