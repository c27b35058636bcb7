"""PatchTSMixer: exported and proved without merging; merging is refused with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tsmerge_export as tsm
from tests.families.harness import Subject
from tests.models import PATCHTSMIXER
from tsmerge_export.cli import main, main_export
from tsmerge_export.compile.onnx_export import prove_dynamic
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.settings.config import MergeConfig

MIXING = Subject("patchtsmixer", PATCHTSMIXER)
NORMAL = Subject(
    "patchtsmixer",
    {
        **PATCHTSMIXER,
        "loss": "nll",
        "distribution_output": "normal",
        "norm_mlp": "BatchNorm",
        "mode": "common_channel",
        "prediction_channel_indices": [0, 2],
        "self_attn": True,
    },
)


@pytest.mark.parametrize("subject", [MIXING, NORMAL], ids=["mixing channels", "normal distribution"])
def test_exported_without_merging(subject: Subject) -> None:
    prove_dynamic(subject.component, subject.model, subject.plain)
    report = subject.parity(MergeConfig(method="none"))
    assert report.failures == []
    assert report.passed


def test_forecasts_are_the_models() -> None:
    series = np.random.default_rng(0).normal(size=(2, 80)).astype(np.float32)
    past = torch.from_numpy(series[:, -64:, None]).expand(-1, -1, 3)
    with torch.no_grad():
        want = MIXING.model(past_values=past).prediction_outputs[..., 0]
        normal = NORMAL.model(past_values=past)
    np.testing.assert_allclose(MIXING.forecast(series)[:, 0], want.numpy(), rtol=1e-4, atol=1e-5)
    mean = normal.prediction_outputs[0] * normal.scale + normal.loc
    np.testing.assert_allclose(NORMAL.forecast(series)[:, 0], mean[..., 0].numpy(), rtol=1e-4, atol=1e-5)


def test_merging_is_refused_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsupportedError, match="mixes patches by a matrix of fixed size"):
        tsm.apply(MIXING.model, MergeConfig())
    MIXING.model.save_pretrained("tiny")
    np.savetxt("series.csv", np.sin(np.arange(300) / 4), header="a", comments="")
    flags = ["-o", "out", "--data", "series.csv", "--threads", "1"]
    capsys.readouterr()
    assert main_export(["tiny", "--merge", "local", *flags]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "patchtsmixer: no token can be merged: it mixes patches" in error
    assert "--merge none" in error
    assert not Path("out").exists()
    for command in (["bench", "tiny"], ["tune", "tiny", "--data", "series.csv", "--max-increase", "3%"]):
        assert main(command) == 3
        error = capsys.readouterr().err
        assert "mixes patches by a matrix" in error
        assert error.count("\n") == 1
    assert main_export(["tiny", "--merge", "none", *flags]) == 0
    assert tsm.Bundle.open("out").verdicts["parity"]["passed"]
