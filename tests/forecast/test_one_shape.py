"""Forecasts by files of one shape are those of files for any, whatever is forecast beside a series."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import tsmerge_export as tsm
from tests import artefacts
from tests.forecast import upstream
from tsmerge_export.backends.onnxruntime.static.form import static_form
from tsmerge_export.backends.onnxruntime.static.version import OLDEST
from tsmerge_export.bundle import BundleWriter
from tsmerge_export.bundle.manifest import Described, described_of
from tsmerge_export.bundle.target import TargetEntry, TargetPart
from tsmerge_export.errors import MissingDependencyError, UsageError
from tsmerge_export.forecast.base import Forecaster
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.one_shape import OneShape

pytestmark = pytest.mark.skipif(
    tuple(map(int, onnxruntime.__version__.split(".")[:2])) < OLDEST,
    reason="this onnxruntime is too old for --static",
)

LOCAL, NONE = MergeConfig(ratio="1/4"), MergeConfig("none")
#: 64 steps are 8 patches of 8.
SHAPE = OneShape(3, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("one-shape")


@pytest.fixture(scope="module")
def forecasters(folder: Path) -> dict[MergeConfig, tuple[Forecaster, Forecaster]]:
    """By what merges: of any shape, and of one."""
    found = {}
    for merge in (LOCAL, NONE):
        any_shape = artefacts.bundle("bolt-tiny", merge)
        said = tsm.Bundle.open(any_shape)
        with BundleWriter(folder / merge.method) as writer:
            form = static_form(
                onnx.load(any_shape / "model.onnx"), {"context": (SHAPE.batch, SHAPE.length)}, "model"
            )
            onnx.save(form, writer.path / "model.onnx")
            part = TargetPart(onnx="model.onnx")
            target = TargetEntry(
                runtime="onnxruntime", dtype="fp32", static=SHAPE, components={"model": part}
            )
            content = {name: value for name, value in said.manifest.items() if name != "files"}
            described = described_of(Described, content, "manifest")
            made = writer.commit(described.__class__(**{**vars(described), "target": target})).path
        like = tsm.pipeline(any_shape, threads=1)
        like._context = (
            SHAPE.length
        )  # beyond the model's own horizon, too, it is to see no more than the other
        found[merge] = (like, tsm.pipeline(made, threads=1))
    return found


Pairs = dict[MergeConfig, tuple[Forecaster, Forecaster]]


def close(found: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5 * float(np.abs(want).max()))


@pytest.mark.parametrize("count", [1, 3, 4, 8])
def test_any_number_of_series(forecasters: Pairs, count: int) -> None:
    """Filled up and split, also beyond the model's own horizon, where paths grow."""
    any_shape, one = forecasters[LOCAL]
    series = upstream.walks(count, 64, seed=count)
    for steps in (5, 40):
        close(one.predict(series, steps), any_shape.predict(series, steps))
    assert one.model_context_length == 64


def test_a_forecast_is_that_of_the_series_alone(forecasters: Pairs) -> None:
    _, one = forecasters[LOCAL]
    series = upstream.walks(5, 64, seed=0)
    together = one.predict(series, 8)
    for at in range(5):
        np.testing.assert_array_equal(one.predict(series[at], 8)[0], together[at])
    beside = series.copy()
    beside[:4] *= 1e6
    np.testing.assert_array_equal(one.predict(beside, 8)[4], together[4])


def test_longer_series_lose_their_beginning(forecasters: Pairs) -> None:
    any_shape, one = forecasters[LOCAL]
    series = upstream.walks(2, 150, seed=3)
    close(one.predict(series, 8), any_shape.predict(series[:, -64:], 8))


def test_shorter_series(forecasters: Pairs) -> None:
    """Within the patch that the model fills itself they are exact; else padding would merge, and they are refused."""
    series = list(upstream.walks(3, 64, seed=4))
    short = [series[0][-57:], series[1][-60:], series[2]]
    any_shape, one = forecasters[LOCAL]
    close(one.predict(short, 8), any_shape.predict(short, 8))
    with pytest.raises(
        UsageError, match=r"^series 1 has 56 steps, and .* was made for 64 alone: padding would merge"
    ):
        one.predict([series[0], series[1][-56:]], 8)
    # Where nothing merges, padding is masked.
    any_shape, one = forecasters[NONE]
    short = [series[0][-5:], series[1][-33:], series[2]]
    close(one.predict(short, 8), any_shape.predict(short, 8))


def test_a_manifest_that_says_another_batch(forecasters: Pairs, folder: Path) -> None:
    manifest = folder / "local" / "manifest.json"
    text = manifest.read_text()
    try:
        manifest.write_text(text.replace('"batch": 3', '"batch": 4'))
        with pytest.raises(UsageError, match="model does not take 4 series a call, as its manifest says"):
            tsm.pipeline(folder / "local")
        manifest.write_text(text.replace('"batch": 3', '"batch": 0'))
        with pytest.raises(UsageError, match="batch and length must be whole numbers"):
            tsm.pipeline(folder / "local")
    finally:
        manifest.write_text(text)


def test_an_onnxruntime_that_is_too_old(
    forecasters: Pairs, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes one body for both merges, and would fail at a Reshape, or nowhere."""
    assert forecasters
    monkeypatch.setattr(onnxruntime, "__version__", "1.26.0")
    with pytest.raises(MissingDependencyError, match=r"need onnxruntime 1\.30 or newer, this is 1\.26\.0"):
        tsm.pipeline(folder / "local", threads=1)
