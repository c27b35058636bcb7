"""A checkpoint that says what it was trained for, through export and validate, by command and by function."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

import tsmerge_export as tsm
from tests.models import tiny
from tests.quick import quick_verdicts
from tests.report.distillation import written
from tsmerge_export import api, cli
from tsmerge_export.backends.target import Target
from tsmerge_export.bundle import Bundle
from tsmerge_export.bundle.verdicts import Verdicts
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.console.notes import Note
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.families.trained import mark
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.trained import Trained

THIRD = MergeConfig(ratio="1/3", layers=(0,))
TRAINED = Trained(THIRD, unmerged=1.04)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, model = tmp_path_factory.mktemp("trained") / "model", tiny("chronos-bolt")
    mark(model, TRAINED)
    model.save_pretrained(path)  # type: ignore[operator]
    (path / "distillation.json").write_text(json.dumps(written()))
    return path


def test_export_without_flags_and_validate(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick_verdicts(monkeypatch)
    output = tmp_path / "bundle"
    assert cli.main_export([str(folder), "-o", str(output), "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert f"merging {THIRD.describe()}, as this checkpoint was trained for" in said
    assert "the unmerged model here is not what these weights are for (+104.0 %)" in " ".join(said.split())
    bundle = Bundle.open(output)
    assert bundle.merge == THIRD
    assert bundle.contents.trained_for == TRAINED
    assert bundle.read_report().trained_for == TRAINED
    page = (output / "report.html").read_text()
    assert "How the weights were distilled" in page and "+1.5 % (+0.5 to +2.5)" in page
    assert "distillation" not in bundle.manifest
    for page in ("report.html", "README.md"):
        text = (output / page).read_text().lower()
        assert f"{THIRD.describe()}" in text
        assert "weights trained for" in text
        assert "+104.0 %" in text
    # Validated against a checkpoint that was trained for another setting.
    other = tsm.load_model(folder).model
    mark(other, Trained(MergeConfig(ratio="1/2")))
    monkeypatch.setattr(Compilation, "validate", lambda *_: Verdicts())
    with pytest.warns(Note, match="these weights were trained for local k=1 ratio=1/2 "):
        api.validate(output, other)


def test_the_runtime_is_asked_about_the_trained_method(tmp_path: Path) -> None:
    """Which method merges is known only when the checkpoint is read; a runtime that cannot must refuse it then."""

    class Picky(Target):
        def check(self, merge: MergeConfig, **_: object) -> None:  # type: ignore[override]
            if merge.method == "dynamic":
                raise UnsupportedError("not dynamic")

    model = tiny("chronos-bolt")
    mark(model, Trained(MergeConfig("dynamic"), (), None))
    with pytest.raises(UnsupportedError, match="not dynamic"):
        tsm.export(model, output=tmp_path / "bundle", target=Picky())
    assert list(tmp_path.iterdir()) == []


def test_an_elastic_checkpoint_exports_by_its_default_ratio(tmp_path: Path) -> None:
    model = tiny("chronos-bolt")
    mark(model, Trained(MergeConfig(ratio="1/4"), (Fraction(0), Fraction(1, 4), Fraction(1, 2))))
    source = CheckpointSource.load(model)
    assert Compilation(source).merge == MergeConfig(ratio="1/4")
    for quiet in (MergeConfig("none"), MergeConfig(ratio="1/2")):
        assert Compilation(source, quiet).settled.note is None
