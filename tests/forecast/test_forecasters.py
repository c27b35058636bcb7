"""Forecasters as chronos-forecasting tests its own: shapes, dtypes, ragged inputs, limits; and against its values."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tsmerge_export as tsm
from tests import artefacts
from tests.forecast import upstream
from tests.forecast.without_torch import SCRIPT
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.forecast.chronos_bolt import ChronosBolt
from tsmerge_export.forecast.chronos_t5 import ChronosT5
from tsmerge_export.settings.config import MergeConfig

NONE = MergeConfig(method="none")
LEVELS = [0.1, 0.25, 0.5, 0.9]
pytestmark = pytest.mark.filterwarnings("ignore:the model was made for", "ignore:We recommend")


def t5(**options: Any) -> ChronosT5:
    model = tsm.pipeline(artefacts.bundle("t5-tiny", MergeConfig(ratio="1/4")), threads=1, **options)
    assert isinstance(model, ChronosT5)
    return model


def bolt(**options: Any) -> ChronosBolt:
    model = tsm.pipeline(artefacts.bundle("bolt-tiny", NONE), threads=1, **options)
    assert isinstance(model, ChronosBolt)
    return model


INPUTS = {
    "one": (upstream.walks(1, 40)[0], 1),
    "batch": (upstream.walks(4, 40), 4),
    "ragged": ([upstream.walks(1, n)[0] for n in (40, 7, 1000)], 3),
    "tensors": ([torch.from_numpy(upstream.walks(1, n)[0]) for n in (40, 7)], 2),
    "numbers": ([1.0, 2.0, 4.0], 1),
}


def test_reprs_are_one_line() -> None:
    for model, said in ((t5(), "ChronosT5"), (bolt(), "ChronosBolt")):
        where, kind = repr(str(model.bundle.path)), model.forecast_type
        lengths = (
            f"context_length={model.model_context_length}, prediction_length={model.model_prediction_length}"
        )
        assert repr(model) == f"{said}({where}, {lengths}, forecast_type={kind!r})"
        if said == "ChronosBolt":
            sides = "inputs=('context',), outputs=('quantiles',)"
            assert repr(model.session) == f"Session({where}, {sides})"
            assert repr(model.session["model"]) == f"GraphSession({sides})"
        else:
            assert repr(model.session).startswith(f"Session({where}, components=('encoder', ")


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("steps", [None, 1, 5, 16, 33])
def test_shapes_and_dtypes(name: str, steps: int | None) -> None:
    given, batch = INPUTS[name]
    horizon = steps or 16
    for model, width in ((t5(), 4), (bolt(), 3)):
        paths = model.predict(given, steps)
        assert paths.shape == (batch, width, horizon)
        quantiles, mean = model.predict_quantiles(given, steps, quantile_levels=LEVELS)
        assert quantiles.shape == (batch, horizon, 4)
        assert mean.shape == (batch, horizon)
        assert {paths.dtype, quantiles.dtype, mean.dtype} == {np.dtype(np.float32)}
        assert np.isfinite(quantiles).all()
        assert (np.diff(np.sort(quantiles, axis=-1)) >= 0).all()
        assert (model.model_context_length, model.model_prediction_length) == ({4: 128, 3: 256}[width], 16)


def test_quantiles_of_samples_are_torchs() -> None:
    series = upstream.walks(3, 60)
    model = t5()
    paths = model.predict(series, seed=5, num_samples=9)
    quantiles, mean = model.predict_quantiles(series, quantile_levels=LEVELS, seed=5, num_samples=9)
    want = torch.quantile(torch.from_numpy(paths), torch.tensor(LEVELS), dim=1).permute(1, 2, 0)
    np.testing.assert_allclose(quantiles, want.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mean, paths.mean(1), rtol=1e-6)


def test_seeds() -> None:
    series, model = upstream.walks(3, 60), t5()
    first = model.predict(series, seed=1)
    np.testing.assert_array_equal(first, model.predict(series, seed=1))
    assert (first != model.predict(series, seed=2)).any()
    assert (model.predict(series) != model.predict(series)).any()


def test_parts_that_fit_into_memory_are_the_whole() -> None:
    """One path of one series at a time gives the same paths as all at once, in more runs of the encoder.

    Forecasts that are computed, not drawn, may differ by a rounding: ONNX Runtime 1.20's Sqrt rounds an element of a
    full vector register otherwise than one of the rest, and which is which depends on the batch.
    """
    series, calls = upstream.walks(5, 60), []
    whole = t5().predict(series, seed=1, num_samples=7)
    small = t5(memory=1)
    start = small._decoder.start
    small._decoder.start = lambda *given: calls.append(given[1]) or start(*given)  # type: ignore[assignment]
    np.testing.assert_array_equal(small.predict(series, seed=1, num_samples=7), whole)
    assert calls == [1] * 35
    points = bolt().predict(series, 40)
    rounding = float(np.spacing(np.abs(points).max()))
    np.testing.assert_allclose(bolt(memory=1).predict(series, 40), points, rtol=0, atol=2 * rounding)


def test_a_middling_budget_takes_some_series_at_a_time() -> None:
    model = t5()
    sizes = []
    for exponent in range(10, 31):
        model._memory = 2**exponent
        sizes.append(model._parts(61, 7, 16))
    assert sizes[0] == (1, 1)
    assert sizes[-1][0] > 1000 and sizes[-1][1] == 7
    products = [series * paths for series, paths in sizes]
    assert products == sorted(products)


@pytest.mark.parametrize("steps", [5, 16, 17, 60])
@pytest.mark.parametrize("name", ["bolt-tiny", "bolt-nano"])
def test_bolt_equals_upstream(name: str, steps: int) -> None:
    """Beyond 16 (tiny) and 64 (nano) steps by the autoregressive rule."""
    steps = steps if name == "bolt-tiny" else 4 * steps
    series = [upstream.walks(1, n, seed=n)[0] for n in (300, 100, 9)]
    ours, theirs = tsm.pipeline(artefacts.bundle(name, NONE), threads=1), upstream.bolt(name)
    tensors = [torch.from_numpy(row) for row in series]
    want = theirs.predict(tensors, steps).numpy()
    got = ours.predict(series, steps)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
    for levels in ([0.1, 0.5, 0.9], LEVELS):
        want_q, want_mean = theirs.predict_quantiles(tensors, steps, quantile_levels=levels)
        got_q, got_mean = ours.predict_quantiles(series, steps, quantile_levels=levels)
        np.testing.assert_allclose(got_q, want_q.numpy(), rtol=1e-4, atol=1e-4 * np.abs(want).max())
        np.testing.assert_allclose(got_mean, want_mean.numpy(), rtol=1e-4, atol=1e-4 * np.abs(want).max())


def test_bolt_warns_of_levels_beyond_its_own() -> None:
    with pytest.warns(UserWarning, match="quantile levels beyond 0.1 to 0.9"):
        quantiles, _ = bolt().predict_quantiles([1.0, 2.0, 3.0], quantile_levels=[0.01, 0.5])
    assert bolt().quantiles == [0.1, 0.5, 0.9]
    assert quantiles.shape == (1, 16, 2)


def test_long_horizons_warn_or_are_refused() -> None:
    for model in (t5(), bolt()):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.predict([1.0, 2.0, 3.0], 17)
        assert "made for 16 steps" in str(caught[0].message)
        with pytest.raises(UsageError, match="longer than the model's own 16"):
            model.predict([1.0, 2.0, 3.0], 17, limit_prediction_length=True)


@pytest.mark.parametrize(
    "bad",
    [
        {"prediction_length": 0}, {"num_samples": 0}, {"num_samples": 2.5}, {"temperature": 0}, {"top_k": -1},
        {"top_p": 1.5}, {"seed": -1}, {"prediction_length": 10**7},
    ],
    ids=str,
)  # fmt: skip
def test_arguments_that_make_no_sense(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(bad))):
        t5().predict([1.0, 2.0], **bad)


class Recorder:
    """A progress that notes what it is told, and may interrupt."""

    def __init__(self, stop: int | None = None) -> None:
        self.seen: list[tuple[int, int]] = []
        self.stop, self.closed = stop, 0

    def step(self, name: str) -> None:
        """Not used."""

    def update(self, done: int, total: int) -> None:
        self.seen.append((done, total))
        if len(self.seen) == self.stop:
            raise KeyboardInterrupt

    def close(self) -> None:
        self.closed += 1


def test_progress_counts_to_the_end() -> None:
    series = upstream.walks(3, 30)
    for model in (
        t5(progress=Recorder()),
        t5(progress=Recorder(), memory=1),
        bolt(progress=Recorder(), memory=1),
    ):
        model.predict(series, 20)
        seen = model.progress.seen  # type: ignore[attr-defined]
        assert seen == sorted(seen)
        assert seen[-1][0] == seen[-1][1] > 1


def test_an_interrupt_takes_the_bar_away_and_leaves_the_forecaster_usable() -> None:
    recorder, series = Recorder(stop=3), upstream.walks(2, 30)
    model = t5(progress=recorder)
    with pytest.raises(KeyboardInterrupt):
        model.predict(series, seed=0)
    assert recorder.closed == 1
    np.testing.assert_array_equal(model.predict(series, seed=0), t5().predict(series, seed=0))


def test_bundles_that_are_no_forecasters(tmp_path: Path) -> None:
    source = artefacts.bundle("bolt-tiny", NONE)
    for key, value, error, match in (
        (
            "family",
            "mamba",
            UnsupportedError,
            "a bundle of mamba is no forecaster; supported are autoformer, chronos-2, ",
        ),
        ("pipeline", None, UsageError, "no pipeline settings"),
        ("pipeline", {"context_length": 5}, UsageError, "incomplete"),
        ("pipeline", {"context_length": 5, "prediction_length": 5}, UsageError, "incomplete"),
        ("family", "chronos-t5", UsageError, "no component 'encoder'"),
    ):
        folder = tmp_path / "bundle"
        shutil.copytree(source, folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | {key: value}))
        with pytest.raises(error, match=match):
            tsm.pipeline(folder)
        shutil.rmtree(folder)
    with pytest.raises(UsageError, match="no such folder"):
        tsm.pipeline(tmp_path / "nothing")


def test_neither_torch_nor_onnx_is_imported() -> None:
    folders = [artefacts.bundle("t5-tiny", MergeConfig(ratio="1/4")), artefacts.bundle("bolt-tiny", NONE)]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *map(str, folders)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
