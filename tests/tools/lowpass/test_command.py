"""``tsmerge lowpass``: table, JSON, picture and page; a column of the user's; mistakes; the page in docs."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tsmerge_export.cli import main
from tsmerge_export.tools.lowpass.filters import Merging, merge_and_unmerge
from tsmerge_export.tools.lowpass.show import rows
from tsmerge_export.tools.lowpass.study import study

Capture = pytest.CaptureFixture[str]
DOCS = Path(__file__).parents[3] / "docs"
FAST = ["--length", "128", "--signals", "4", "--period", "16"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    values = np.stack([np.sin(np.arange(300) / 9) + 0.1 * rng.standard_normal(300), np.ones(300)], axis=1)
    lines = ["wave,flat", *(f"{a:.6f},{b:g}" for a, b in values)]
    Path("two.csv").write_text("\n".join(lines) + "\n")
    Path("one.csv").write_text("\n".join(line.split(",")[0] for line in lines) + "\n")
    lines[51] = ",1"
    Path("gap.csv").write_text("\n".join(lines) + "\n")
    Path("short.csv").write_text("a\n1\n2\n3\n")
    return tmp_path


def test_generated(folder: Path, capsys: Capture) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install matplotlib")
    flags = ["--levels", "0.5,2", "--json", "l.json", "--plot", "l.png", "--markdown", "l.md"]
    assert main(["lowpass", *FAST, *flags]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = json.loads(Path("l.json").read_text())
    assert [(one["noise"], one["level"]) for one in found["effects"]] == [
        (noise, level) for noise in ("white", "pink", "harmonic") for level in (0.5, 2.0)
    ]
    for one in found["effects"]:
        name = f" {one['noise']}, noise {one['level']:g} "
        line = " ".join(line for line in out.splitlines() if line.startswith(name))  # of every part
        assert f"{one['low']['merged']:.2f}" in line and f"{one['error']['gaussian']:.3f}" in line
        assert len(one["spectrum"]["frequency"]) == len(one["spectrum"]["merged"]) > 10
    assert found["merging"] == {"ratio": "1/4", "steps": 4, "k": 1, "similarity": "l2", "patch": 1}
    assert Path("l.png").read_bytes()[:4] == b"\x89PNG"
    page = Path("l.md").read_text()
    assert "(l.png)" in page
    assert "tsmerge lowpass --length 128 --levels 0.5,2 --period 16 --signals 4" in page
    assert re.search(r"Made on \d{4}-\d\d-\d\d by", page)
    assert "numpy" in page
    assert main(["lowpass", *FAST, "--levels", "0.5,2", "--json", "again.json"]) == 0
    assert json.loads(Path("again.json").read_text())["effects"] == found["effects"]
    assert main(["lowpass", *FAST, "--levels", "0.5,2", "--json", "other.json", "--seed", "1"]) == 0
    assert json.loads(Path("other.json").read_text())["effects"] != found["effects"]


def test_own_column(folder: Path, capsys: Capture) -> None:
    flags = ["--ratio", "1/2", "--steps", "2", "--k", "3", "--json", "o.json"]
    assert main(["lowpass", "--data", "two.csv", "--column", "wave", *flags]) == 0
    assert capsys.readouterr().err == ""
    (one,) = json.loads(Path("o.json").read_text())["effects"]
    values = np.loadtxt("two.csv", delimiter=",", skiprows=1)[:, 0]
    merged, left = merge_and_unmerge(values[None], Merging(Fraction(1, 2), 2, 3))
    assert (one["noise"], one["level"], one["error"], one["tokens"], one["left"]) == (
        "wave",
        None,
        None,
        300,
        left,
    )
    assert one["change"]["merged"] == pytest.approx(((merged[0] - values) ** 2).mean() / values.var())
    assert main(["lowpass", "--data", "one.csv", "--patch", "8", "--markdown", "o.md"]) == 0
    assert "300" not in capsys.readouterr().out.splitlines()[0]  # 37 tokens of 8 values
    assert "![" not in Path("o.md").read_text()


def test_a_gap_is_cut_out_and_said(folder: Path, capsys: Capture) -> None:
    assert main(["lowpass", "--data", "gap.csv", "--column", "wave", "--json", "g.json"]) == 0
    assert "rows 51 to 299 are its longest stretch" in capsys.readouterr().err
    assert json.loads(Path("g.json").read_text())["effects"][0]["length"] == 249


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--column", "wave"], "--column names a column of --data"),
        (["--data", "none.csv"], "--data none.csv: no such file"),
        (["--data", "two.csv"], "choose one with --column: wave, flat"),
        (
            ["--data", "two.csv", "--column", "tide"],
            "--column tide: not in two.csv; its columns are: wave, flat",
        ),
        (["--data", "two.csv", "--column", "flat"], "column flat is constant"),
        (["--data", "short.csv"], "3 values of a in a row are too few; it takes 16"),
        (["--data", "one.csv", "--patch", "30"], "are too few; it takes 480"),
        (["--data", "one.csv", "--levels", "1"], "--levels is for generated signals"),
        (["--levels", "much"], "is not a list of noise levels"),
        (["--levels", "nan"], "is not a list of noise levels"),
        (["--length", "100", "--patch", "8"], "--length 100: give a multiple of --patch 8"),
        (["--length", "64", "--patch", "8"], "at least 16 tokens"),
        (["--length", "3"], "--length"),
        (["--ratio", "2/3"], "--ratio"),
        (["--k", "0"], "--k"),
        (["--steps", "0"], "--steps"),
        (["--similarity", "taste"], "--similarity taste is not known"),
        (["--plot", "x.doc"], "--plot x.doc"),
        (["--json", "nowhere/x.json"], "--json nowhere/x.json"),
        (["--markdown", "nowhere/x.md"], "--markdown nowhere/x.md"),
    ],
)
def test_mistakes_are_one_line(flags: list[str], words: str, folder: Path, capsys: Capture) -> None:
    before = sorted(path.name for path in folder.iterdir())
    assert main(["lowpass", *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(path.name for path in folder.iterdir()) == before


def test_the_page_in_docs_holds_what_the_command_gives() -> None:
    """A tenth of its signals, so that its figures are met within the scatter that leaves."""
    page = (DOCS / "lowpass.md").read_text(encoding="utf-8")
    assert (DOCS / "lowpass.png").read_bytes()[:4] == b"\x89PNG"
    assert "tsmerge lowpass --plot docs/lowpass.png --markdown docs/lowpass.md" in page
    shown = {
        tuple(cells[:2]): cells[2:]
        for cells in (
            [c.strip() for c in line.strip("| ").split("|")] for line in page.splitlines() if "|" in line
        )
    }
    for row in rows(study(Merging(Fraction(1, 4), 4), count=16)):
        cells = shown[row[0], row[1]]
        for column in (0, 1, 2, 3, 6, 7, 8):
            assert float(cells[column]) == pytest.approx(float(row[2 + column]), rel=0.15, abs=0.02)
