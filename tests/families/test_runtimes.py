"""What the cards claim: the files of every family compute the same in onnxruntime-web and OpenVINO."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests import web
from tests.families.harness import Subject
from tests.models import CONFIGS
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.backends.openvino.session import NetworkSession
from tsmerge_export.compile.build import merge_and_lower
from tsmerge_export.settings.config import MergeConfig

SUBJECTS = {
    "patchtst": Subject("patchtst", CONFIGS["patchtst"]),
    "time-series-transformer": Subject("time-series-transformer", CONFIGS["time-series-transformer"]),
    "informer": Subject("informer", CONFIGS["informer"]),
    "informer, prob": Subject("informer", {**CONFIGS["informer"], "attention_type": "prob"}),
    "patchtsmixer": Subject("patchtsmixer", CONFIGS["patchtsmixer"]),
    "autoformer": Subject("autoformer", CONFIGS["autoformer"]),
}


def _claims(subject: Subject) -> bool:
    """Whether the family's card names OpenVINO."""
    card = subject.family.card
    return card is not None and any("OpenVINO" in runtime for runtime in card.runtimes)


def _setting(subject: Subject) -> MergeConfig:
    merges = subject.family.merge_points(subject.model).count > 0
    return MergeConfig(ratio="1/4") if merges else MergeConfig(method="none")


def _assert_same(subject: Subject, feeds: list[dict[str, np.ndarray]], found: Any) -> None:
    """``found``: outputs by name for each of the feeds."""
    native = open_session(subject.built(_setting(subject)).merged)
    for feed, got in zip(feeds, found, strict=True):
        for value, want in zip(native.get_outputs(), native.run(None, feed), strict=True):
            assert got[value.name].shape == want.shape
            tolerance = 5e-5 * max(np.abs(want).max(), 1e-30)
            np.testing.assert_allclose(got[value.name], want, rtol=1e-4, atol=tolerance)


def _feeds(subject: Subject) -> list[dict[str, np.ndarray]]:
    return [subject.component.from_series(subject.model, case.series()) for case in subject.cases()[2:4]]


@pytest.mark.parametrize("name", SUBJECTS)
def test_onnxruntime_web_computes_the_same(name: str) -> None:
    reason = web.missing()
    if reason is not None:
        pytest.skip(reason)
    subject = SUBJECTS[name]
    feeds = _feeds(subject)
    _assert_same(subject, feeds, web.run(subject.built(_setting(subject)).merged, feeds))


@pytest.mark.parametrize(
    "name",
    [name for name, subject in SUBJECTS.items() if _claims(subject)],
)
def test_inlined_form_runs_in_openvino(name: str) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed: pip install openvino")
    subject = SUBJECTS[name]
    with tempfile.TemporaryDirectory() as folder:
        built = merge_and_lower(
            subject.component,
            subject.plain,
            _setting(subject),
            inline=True,
            folder=Path(folder),
            scratch=Path(folder),
        )
        assert not onnx.load(built.merged).functions
        entry = built.entry()
        network = NetworkSession(built.merged, entry.inputs, entry.outputs)
    feeds = _feeds(subject)
    _assert_same(subject, feeds, (network.run(feed) for feed in feeds))
