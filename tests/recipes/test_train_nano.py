"""The training recipe: its evaluation against plain loops, and a few steps of both families end to end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from chronos import BaseChronosPipeline, ChronosBoltPipeline, ChronosPipeline

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

import train_nano
from nano import chronos_t5, evaluate, loop, series

from tsmerge_export.tools.distill import synthetic

TINY = ["--d-model", "16", "--d-ff", "32", "--layers", "1", "--decoder-layers", "1", "--heads", "2"]
TINY += ["--synthetic-series", "20", "--synthetic-only"]


@pytest.fixture(autouse=True)
def _torch_as_before() -> Iterator[None]:
    """The script sets threads and seed of the whole process, as a script may and a test must not."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("family", ["chronos-bolt", "chronos-t5"])
def test_trains_resumes_and_loads_upstream(family: str, tmp_path: Path) -> None:
    common = ["--family", family, "-o", str(tmp_path), *TINY]
    assert train_nano.main([*common, "--steps", "3"]) == 0
    assert json.loads((tmp_path / "training.json").read_text())["steps"] == 3
    before = (tmp_path / "model.safetensors").read_bytes()

    assert train_nano.main([*common, "--steps", "5", "--resume"]) == 0
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["steps"] == 5
    assert len(record["training_loss"]) == 2, "the record of the first part is kept"
    assert (tmp_path / "model.safetensors").read_bytes() != before

    pipeline = BaseChronosPipeline.from_pretrained(tmp_path)
    assert isinstance(pipeline, ChronosBoltPipeline if family == "chronos-bolt" else ChronosPipeline)
    forecast = pipeline.predict(torch.randn(2, 100), prediction_length=64)
    assert forecast.shape[0] == 2
    assert forecast.shape[-1] == 64
    assert torch.isfinite(forecast).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "training-state.pt",
        "training.json",
    ]


def test_interrupted_and_resumed_equals_one_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.numpy import load_file

    common = ["--family", "chronos-bolt", *TINY, "--steps", "4"]
    assert train_nano.main([*common, "-o", str(tmp_path / "whole")]) == 0
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    capsys.readouterr()

    set_rate = loop.set_rate

    def interrupt_in_second_step(
        optimizer: torch.optim.Optimizer, peak: float, step: int, share: float
    ) -> None:
        if (
            step == 1
        ):  # as Python would: a real signal ended the worker of two whole runs, and of no smaller one
            handler = signal.getsignal(signal.SIGINT)
            assert callable(handler)
            handler(signal.SIGINT, None)
        set_rate(optimizer, peak, step, share)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "set_rate", interrupt_in_second_step)
        assert train_nano.main([*common, "-o", str(tmp_path / "cut")]) == 130
    assert "interrupted at step 2; continue" in capsys.readouterr().err
    assert not (tmp_path / "cut" / "training.json").exists()

    assert train_nano.main([*common, "-o", str(tmp_path / "cut"), "--resume"]) == 0
    resumed = load_file(tmp_path / "cut" / "model.safetensors")
    assert resumed.keys() == whole.keys()
    for name, tensor in whole.items():
        np.testing.assert_array_equal(resumed[name], tensor, err_msg=name)


def test_resume_refuses_other_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--family", "chronos-bolt", "-o", str(tmp_path), *TINY]
    assert train_nano.main([*common, "--steps", "1"]) == 0
    assert train_nano.main([*common, "--steps", "2", "--resume", "--seed", "9"]) == 2
    assert "error: --resume" in capsys.readouterr().err
    (tmp_path / "training-state.pt").write_bytes(b"not a state")
    assert train_nano.main([*common, "--steps", "2", "--resume"]) == 2
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["--steps", "0"], "--steps"),
        (["--minutes", "nan"], "--minutes"),
        (["--family", "lstm"], "--family"),
        (["--d-model", "17", "--steps", "1", "--synthetic-only"], "--d-model"),
        (["--resume", "--steps", "1", "--synthetic-only", "--synthetic-series", "2"], "--resume"),
        (["--data", "does-not-exist", "--steps", "1"], "--data"),
    ],
)
def test_mistakes_are_one_line(
    args: list[str], names: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_nano.main(["--family", "chronos-bolt", "-o", str(tmp_path / "out"), *args]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert names in errors[0]


def test_script_reports_a_mistake_without_traceback(tmp_path: Path) -> None:
    command = [sys.executable, train_nano.__file__, "--family", "chronos-t5"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in result.stderr


def test_altered_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ETTh1.csv").write_text("date,a\n0,1\n")
    with pytest.raises(series.UserError, match="differs from the upstream file"):
        series.locate(tmp_path, tmp_path / "cache")


def test_download_is_verified_before_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = tmp_path / "body"
    body.write_text("date,a\n0,1\n")
    good = series.Source("made", "made.csv", body.as_uri(), series.sha256_of(body))
    bad = series.Source("made", "made.csv", body.as_uri(), "0" * 64)
    cache = tmp_path / "cache"
    monkeypatch.setattr(series, "SOURCES", (bad,))
    with pytest.raises(series.UserError, match="another SHA-256"):
        series.locate(None, cache)
    assert list(cache.iterdir()) == []
    monkeypatch.setattr(series, "SOURCES", (good,))
    assert series.locate(None, cache)["made"].read_text() == body.read_text()
    body.unlink()
    assert series.locate(None, cache)["made"].exists(), "a verified file is not fetched again"


def test_seasonal_naive_closed_form() -> None:
    # On a line of slope 1 the naive forecast lags by 24, 48 and 72 steps.
    line = np.arange(576, dtype=np.float32)[None]
    predicted = evaluate.seasonal_naive(line[:, :512])
    lag = line[:, 512:] - predicted
    assert lag[0].tolist() == [24.0] * 24 + [48.0] * 24 + [72.0] * 16
    expected = (24 * 24**2 + 24 * 48**2 + 16 * 72**2) / 64
    assert evaluate.column_mse(predicted, line[:, 512:]) == pytest.approx(expected, rel=1e-12)
    # On a repeated day it is exact.
    day = np.tile(np.random.default_rng(0).normal(size=24), 24).astype(np.float32)[None]
    assert evaluate.column_mse(evaluate.seasonal_naive(day[:, :512]), day[:, 512:]) == 0.0


@pytest.mark.parametrize(("split", "low", "high"), [("validation", 0.6, 0.8), ("test", 0.8, 1.0)])
def test_score_equals_a_plain_loop(split: str, low: float, high: float) -> None:
    rng = np.random.default_rng(1)
    raw = np.cumsum(rng.normal(size=(3000, 2)), axis=0)
    panel = series.Panel("made", ("a", "b"), series.standardise(raw))
    result = evaluate.score(panel, lambda contexts: np.repeat(contexts[:, -1:], 64, axis=1), split, None)

    for column in range(2):
        head = raw[:1800, column]
        values = (raw[:, column] - head.mean()) / head.std()
        last_value, naive, windows = [], [], 0
        start = int(3000 * low)
        while start + 64 <= int(3000 * high):
            for step in range(64):
                actual = np.float32(values[start + step])
                last_value.append((actual - np.float32(values[start - 1])) ** 2)
                naive.append((actual - np.float32(values[start - 24 + step % 24])) ** 2)
            windows += 1
            start += 64
        assert result.windows == windows
        assert result.model[column] == pytest.approx(np.mean(last_value), rel=1e-5)
        assert result.naive[column] == pytest.approx(np.mean(naive), rel=1e-5)


def test_training_never_sees_the_last_forty_percent() -> None:
    values = np.concatenate([np.random.default_rng(2).normal(size=(3000, 1)), np.full((2000, 1), 1e9)])
    pool = synthetic.Pool.build(0, [series.Panel("made", ("a",), values)], 1)
    assert [len(column) for column in pool.real] == [3000]
    assert max(float(column.max()) for column in pool.real) < 1e9


def test_sampler_drops_constant_and_far_windows() -> None:
    flat = np.ones(512, dtype=np.float32)
    noise = np.random.default_rng(3).normal(size=576).astype(np.float32)
    assert not synthetic.Sampler.usable(flat, flat[:64])
    assert not synthetic.Sampler.usable(noise[:512], noise[512:] + 100)
    assert not synthetic.Sampler.usable(np.full(512, np.nan, dtype=np.float32), noise[512:])
    assert synthetic.Sampler.usable(noise[:512], noise[512:])


def phase_share() -> float:
    """Share of an untrained T5's first cross-attention on the same hour, give or take one; mean over two days."""
    torch.manual_seed(0)
    family = chronos_t5.ChronosT5Family()
    model = family.build(family.defaults).eval()
    model.set_attn_implementation("eager")
    wave = torch.from_numpy(np.tile(np.random.default_rng(4).normal(size=24), 11).astype(np.float32))[None]
    tokenizer = family.pipeline(model).tokenizer
    ids, mask, scale = tokenizer.context_input_transform(wave[:, :200])
    future, _ = tokenizer.label_input_transform(wave[:, 200:], scale)
    start = torch.full_like(ids[:, :1], model.config.decoder_start_token_id)
    shifted = torch.cat([start, future[:, :48]], dim=1)
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=mask, decoder_input_ids=shifted, output_attentions=True)
    attention = out.cross_attentions[0][0].mean(0)[:, :200]  # [decoder step, position]
    shares = [
        sum(float(attention[step, (200 + step - lag) % 24 :: 24].sum()) for lag in (-1, 0, 1))
        for step in range(48)
    ]
    return float(np.mean(shares))


def test_initial_phase_code_prefers_the_same_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = 3 / 24
    assert phase_share() > 2 * chance
    monkeypatch.setattr(chronos_t5, "initialise", lambda model: None)
    assert phase_share() < 1.2 * chance, "without the initialisation there is no such preference"


def test_saved_weights_are_the_running_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.numpy import load_file

    steps: list[dict[str, np.ndarray]] = []
    make_optimizer = loop.make_optimizer

    def recording(model: torch.nn.Module, rate: float) -> torch.optim.AdamW:
        optimizer = make_optimizer(model, rate)
        optimizer.register_step_post_hook(
            lambda *_: steps.append({name: p.detach().numpy().copy() for name, p in model.named_parameters()})
        )
        return optimizer

    monkeypatch.setattr(loop, "make_optimizer", recording)
    args = ["--family", "chronos-bolt", "-o", str(tmp_path), *TINY, "--steps", "3"]
    assert train_nano.main(args) == 0
    saved = load_file(tmp_path / "model.safetensors")
    compared = 0
    for name, tensor in saved.items():
        if name not in steps[0]:
            continue
        one, two, three = (step[name].astype(np.float64) for step in steps)
        average = 0.999 * (0.999 * one + 0.001 * two) + 0.001 * three
        np.testing.assert_allclose(tensor, average, rtol=1e-6, atol=1e-9, err_msg=name)
        compared += int(np.abs(three - average).max() > 1e-5)
    assert compared > 5, "the average must differ from the last step somewhere"


def test_point_forecast_of_chronos_t5_is_the_mean_of_its_samples() -> None:
    torch.manual_seed(0)
    family = chronos_t5.ChronosT5Family()
    sizes = {"d_model": 16, "d_ff": 32, "layers": 1, "decoder_layers": 1, "heads": 2}
    model = family.build(replace(family.defaults, **sizes)).eval()
    contexts = np.random.default_rng(5).normal(size=(3, 40)).astype(np.float32)
    torch.manual_seed(1)
    point = family.point(model, contexts)
    torch.manual_seed(1)
    samples = family.pipeline(model).predict(torch.from_numpy(contexts), prediction_length=64).numpy()
    assert samples.shape == (3, 20, 64)
    np.testing.assert_allclose(point, samples.astype(np.float64).mean(1), rtol=1e-5, atol=1e-6)
    assert np.abs(point - np.median(samples, axis=1)).max() > 1e-3
