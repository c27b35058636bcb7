"""`tsmerge advise` on a tiny model: figures, files, mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.models import tiny_folder
from tsmerge_export.cli import main
from tsmerge_export.tools.advise import spectrum, study

pytest.importorskip("scipy", reason="scipy is not installed: pip install scipy")
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny_folder(tmp_path / "tiny")
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(700) * 2 * np.pi / 24)
    columns = [wave, rng.standard_normal(700), np.ones(700), np.full(700, np.nan)]
    np.savetxt("series.csv", np.stack(columns, 1), delimiter=",", header="wave,noise,flat,none", comments="")
    flat_end = np.where(np.arange(700) < 300, wave, 1.0)
    np.savetxt("ends.csv", flat_end, header="stopped", comments="")
    np.savetxt("short.csv", wave[:25], header="wave", comments="")
    return tmp_path


def test_figures_files_and_advice(folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install matplotlib")
    monkeypatch.setattr(study, "time_of", lambda call: 1e-3)
    flags = ["--length", "128", "--windows", "3", "--threads", "1", "--json", "a.json", "--plot", "a.png"]
    assert main(["advise", "tiny", "--data", "series.csv", *flags]) == 0
    out = capsys.readouterr().out
    found = json.loads(Path("a.json").read_text())
    figures, advice = found["figures"], found["advice"]
    notes = ["column 'flat' is constant: left out", "column 'none' holds no values: left out"]
    assert found["notes"] == notes
    assert all(f"note: {note}" in out for note in notes)
    assert f"advice: {advice['verdict']}" in out.splitlines()[-2]
    wave, noise = figures["columns"]
    assert (wave["name"], noise["name"]) == ("wave", "noise")
    assert noise["entropy"] > 0.8 > 0.3 > wave["entropy"]
    assert [layer["tokens"] for layer in figures["layers"]] == [17, 17]
    speeds = {(s["ratio"], s["length"]): s for s in figures["speeds"]}
    assert sorted({length for _, length in speeds}) == [16, 32, 64, 128, 256]
    # Two layers: 33 tokens, 16 go, then 8 of 17 (one is protected).
    assert (speeds["1/2", 256]["tokens"], speeds["1/2", 256]["left"]) == (33, 9)
    assert speeds["1/2", 256]["ideal"] > speeds["1/4", 256]["ideal"] > speeds["1/10", 256]["ideal"] > 1
    assert speeds["1/2", 16]["ideal"] == 1
    assert Path("a.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--data", "none.csv"], 2, "--data none.csv: no such file"),
        (["--data", "short.csv"], 2, "25 rows are too few"),
        (["--data", "series.csv", "--column", "flat,none"], 2, "no column to work with: column 'flat' is constant"),
        (["--data", "series.csv", "--column", "z"], 2, "--column z: not in series.csv; choose from wave, noise"),
        (["--data", "ends.csv", "--length", "32"], 2, "no column varies within its last windows of 32 steps"),
        (["--data", "series.csv", "--length", "8"], 2, "--length 8: give 16"),
        (["--data", "series.csv", "--length", "9999"], 2, "to 256 steps (what the model reads)"),
        (["--data", "series.csv", "--plot", "x.doc"], 2, "--plot x.doc"),
        ([], 2, "--data"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(
    flags: list[str], code: int, words: str, folder: Path, capsys: Capture
) -> None:
    assert main(["advise", "tiny", *flags]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert len(captured.err.strip().splitlines()) == 1


def test_without_scipy(folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrum, "find_spec", lambda name: None)
    assert main(["advise", "tiny", "--data", "series.csv"]) == 4
    assert "pip install 'tsmerge-export[advise]'" in capsys.readouterr().err
