"""Token reduction for state-space models in whole models: parity, bit identity where nothing goes, other runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import artefacts, web
from tests.models import tiny_folder
from tests.quick import quick_verdicts
from tests.verdicts import NAMES, parity_of, proved, some_cases
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.cli import main, main_export
from tsmerge_export.settings.config import MergeConfig

TRAINED = ["bolt-nano", "t5-nano"]


@pytest.mark.parametrize(
    "merge",
    [
        MergeConfig("ssm", ratio="1/4"),
        MergeConfig(
            "ssm", r="9,4", layers=(0, 1), prune_share=0, metric="key", prop_attn=True, positions="compact"
        ),
    ],
    ids=lambda merge: merge.describe(),
)
@pytest.mark.parametrize("name", NAMES)
def test_parity(name: str, merge: MergeConfig) -> None:
    built, report = proved(name, merge)
    assert built.report.barriers == []
    if name in TRAINED:
        assert sum(case.flips for case in report.cases if not case.degenerate) <= 1


@pytest.mark.parametrize("other", [{"prune_share": 0}, {"ratio": "1/3"}])
def test_parity_fails_for_another_setting(other: dict) -> None:
    name = "bolt-nano"
    built = artefacts.built(name, MergeConfig("ssm", ratio="1/4"))
    report = parity_of(name, MergeConfig("ssm", **{"ratio": "1/4", **other}), built, some_cases(name)[4:])
    assert not report.passed


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_merge_is_bit_identical_to_the_unmerged_file(name: str) -> None:
    built = artefacts.built(name, MergeConfig("ssm", ratio="1/2", min_tokens=100_000))
    plain, merged = (open_session(file, 1) for file in (built.unmerged, built.merged))
    for case in some_cases(name):
        inputs = artefacts.component(name).from_series(artefacts.model(name), case.series())
        for want, got in zip(plain.run(None, inputs), merged.run(None, inputs), strict=True):
            assert want.shape == got.shape
            assert want.tobytes() == got.tobytes()


def test_onnxruntime_web_and_openvino_compute_the_same() -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed: pip install openvino")
    reason = web.missing()
    if reason is not None:
        pytest.skip(reason)
    name, merge = "bolt-nano", MergeConfig("ssm", ratio="1/4")
    built, inlined = artefacts.built(name, merge), artefacts.built(name, merge, True)
    feeds = [
        artefacts.component(name).from_series(artefacts.model(name), case.series())
        for case in some_cases(name)[2:4]
    ]
    native = open_session(built.merged, 1)
    network = openvino.Core().compile_model(str(inlined.merged), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for feed, in_web in zip(feeds, web.run(built.merged, feeds), strict=True):
        in_openvino = network(feed)
        for value, want in zip(native.get_outputs(), native.run(None, feed), strict=True):
            for got in (in_web[value.name], in_openvino[value.name]):
                np.testing.assert_allclose(got, want, rtol=1e-4, atol=5e-5 * np.abs(want).max())


def test_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quick_verdicts(monkeypatch)
    tiny_folder(Path("tiny"))
    np.savetxt("series.csv", np.sin(np.arange(500) / 4), header="a", comments="")
    flags = ["--merge", "ssm", "--r", "3", "--prune-share", "1/3", "--threads", "1", "--data", "series.csv"]
    assert main_export(["tiny", *flags]) == 0
    out = capsys.readouterr().out
    assert "chronos-bolt: ssm r=3 prune-share=1/3" in out
    assert "passed" in out
    assert main(["inspect", "tiny-ssm"]) == 0
    assert "r 3, prune share 1/3" in capsys.readouterr().out
