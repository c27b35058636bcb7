"""PiToMe in whole models: parity, bit identity where nothing merges, the other runtimes, the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import artefacts
from tests.models import tiny_folder
from tests.quick import quick_verdicts
from tests.verdicts import NAMES, parity_of, proved, some_cases
from tsmerge_export.cli import main, main_export
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify.corpus import ENTRIES, Case


@pytest.mark.parametrize(
    "merge",
    [
        MergeConfig("pitome", ratio="1/4"),
        MergeConfig("pitome", ratio="1/2", energy="gaussian", positions="compact"),
        MergeConfig("pitome", r=7, schedule="linear", margin=0.3, alpha=0.5),
    ],
    ids=lambda merge: merge.describe(),
)
@pytest.mark.parametrize("name", NAMES)
def test_parity(name: str, merge: MergeConfig) -> None:
    built, report = proved(name, merge)
    assert built.report.barriers == []
    # Tokens of the random Chronos-T5 repeat, so that cosines tie (as in global merging); trained ones do not.
    if name != "t5-tiny":
        assert sum(case.flips for case in report.cases if not case.degenerate) <= 1


def test_long_rows_flip_seldom() -> None:
    """The more tokens, the closer their energies: 507 here."""
    name, merge = "t5-nano", MergeConfig("pitome", ratio="1/4")
    cases = [Case(ENTRIES[number], 2, 507, seed=7) for number in (0, 1, 5)]
    report = parity_of(name, merge, artefacts.built(name, merge), cases)
    assert report.failures == []
    assert report.to_dict()["decision_flips"] <= 1


@pytest.mark.parametrize("other", [{"margin": 0.2}, {"energy": "gaussian"}, {"ratio": "1/3"}])
def test_parity_fails_for_another_setting(other: dict) -> None:
    name = "bolt-nano"
    built = artefacts.built(name, MergeConfig("pitome", ratio="1/4"))
    report = parity_of(name, MergeConfig("pitome", **{"ratio": "1/4", **other}), built, some_cases(name)[4:])
    assert not report.passed
    assert report.to_dict()["kept_mismatches"] > 0


def test_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quick_verdicts(monkeypatch)
    tiny_folder(Path("tiny"))
    flags = ["--merge", "pitome", "--r", "3", "--margin", "0.5,0.25", "--alpha", "0.5", "--threads", "1"]
    np.savetxt("series.csv", np.sin(np.arange(500) / 4), header="a", comments="")
    assert main_export(["tiny", *flags, "--data", "series.csv"]) == 0
    out = capsys.readouterr().out
    assert "chronos-bolt: pitome r=3 margin=0.5,0.25 alpha=0.5" in out
    assert "passed" in out
    assert main(["inspect", "tiny-pitome"]) == 0
    out = capsys.readouterr().out
    assert "2 merges" in out
    assert "r 3, energy elu, margin 0.25, alpha 0.5" in out
    assert main(["validate", "tiny-pitome", "tiny", "--threads", "1", "--data", "series.csv"]) == 0
