"""The decoder of the Time Series Transformer and Informer: parity in a row with the encoder, forecasts by files."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.exports import export_component
from tests.families.decoder_subjects import SPARSE
from tests.families.harness import NOTHING, describe
from tests.families.lagged_subjects import PLAIN, WHOLE
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.backends.onnxruntime.session import GraphSession
from tsmerge_export.compile.build import merge_and_lower
from tsmerge_export.compile.onnx_export import prove_dynamic
from tsmerge_export.families import lagged_decoder
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import generation
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.corpus import ENTRIES, Case
from tsmerge_export.verify.decoded import decoded_by
from tsmerge_export.verify.parity import ParityReport

SUBJECTS = {"plain": PLAIN, "whole": WHOLE, "prob": SPARSE}
NONE = MergeConfig(method="none")
RATIO = MergeConfig(ratio="1/4")
PROPORTIONAL = MergeConfig(ratio="1/4", prop_attn=True)


@cache
def decoder(name: str) -> Built:
    """The decoder's file, proved at several sizes."""
    subject, folder = SUBJECTS[name], Path(tempfile.mkdtemp())
    component = subject.family.components(subject.model)[1]
    plain = export_component(component, subject.model)
    prove_dynamic(component, subject.model, plain)
    return merge_and_lower(component, plain, NONE, inline=False, folder=folder, scratch=folder)


def report(name: str, merge: MergeConfig, of: MergeConfig | None = None) -> ParityReport:
    """The eager model merged by ``merge`` against the files made with ``of``, by default the same."""
    subject = SUBJECTS[name]
    cases = [
        Case(entry, 2, length, 3)
        for entry, length in zip(ENTRIES, (1, 60, 20, 5, 48, 75, 1, 60, 20, 5), strict=True)
    ]
    return generation.check(
        subject.family, subject.model, merge, [subject.built(of or merge), decoder(name)],
        Checks(threads=1, cases=cases),
    )  # fmt: skip


@pytest.mark.parametrize("merge", [RATIO, PROPORTIONAL], ids=describe)
@pytest.mark.parametrize("name", SUBJECTS)
def test_parity_with_the_merged_model(name: str, merge: MergeConfig) -> None:
    found = report(name, merge)
    assert found.failures == []
    assert found.passed
    assert found.name == "decoder"


def test_parity_fails_for_another_setting_and_other_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not report("plain", RATIO, of=PROPORTIONAL).passed  # sizes do not count in eager attention
    assert not report("plain", MergeConfig(ratio="1/3"), of=RATIO).passed
    lags = lagged_decoder.lagged_decoder.Unrolled.append

    def late(self: lagged_decoder.lagged_decoder.Unrolled, values: np.ndarray) -> None:
        lags(self, values * 1.01)

    monkeypatch.setattr(lagged_decoder.lagged_decoder.Unrolled, "append", late)
    assert not report("plain", RATIO).passed


@pytest.mark.parametrize("name", ["plain", "prob"])
def test_nothing_to_merge_is_bit_identical(name: str) -> None:
    subject = SUBJECTS[name]
    row = subject.family.generation(subject.model)
    assert row is not None
    run = row.follow({"decoder": GraphSession(decoder(name).merged, threads=1)})
    inputs = row.from_series(subject.model, subject.cases()[3].series())
    feed = {spec.name: inputs[spec.name] for spec in subject.component.inputs}
    outputs = []
    for file in (subject.built(NOTHING[0]).merged, subject.built(NONE).merged):
        session = open_session(file, 1)
        names = [value.name for value in session.get_outputs()]
        outputs.append(run(inputs, dict(zip(names, session.run(names, feed), strict=True))))
    for key, value in outputs[0].items():
        assert value.tobytes() == outputs[1][key].tobytes()


@pytest.mark.parametrize("name", ["plain", "whole", "prob"])
def test_forecasts_by_files_alone(name: str) -> None:
    """They equal those whose decoder is the original module, which test_lagged compares with ``generate``."""
    subject = SUBJECTS[name]
    series = np.random.default_rng(0).normal(2, 1, size=(3, 60)).astype(np.float32)
    built = subject.built(PROPORTIONAL)
    session = open_session(built.merged, 1)
    names = [spec.name for spec in subject.component.outputs]

    def run(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, feed), strict=True))

    forecast = decoded_by(subject.family, subject.model, [built, decoder(name)], Checks(threads=1))
    assert forecast is not None
    want = subject.family.forecast(subject.model, run, series)
    np.testing.assert_allclose(forecast(run, series, 0), want, rtol=1e-4, atol=1e-5)
