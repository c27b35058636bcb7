"""`tsmerge bench`: the figures against numpy, and the command on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests import artefacts
from tests.models import tiny_folder
from tests.quick import quick_verdicts
from tsmerge_export.backends.onnxruntime.place import HERE
from tsmerge_export.backends.onnxruntime.profile import merge_share
from tsmerge_export.cli import main, main_export
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.bench.candidate import Candidate
from tsmerge_export.tools.bench.compare import Row, _row, series_of
from tsmerge_export.tools.bench.group import first_only
from tsmerge_export.tools.bench.run import Timing
from tsmerge_export.tools.bench.show import verdict_lines
from tsmerge_export.verify.data import Table

Capture = pytest.CaptureFixture[str]


def test_figures_of_a_row() -> None:
    rng = np.random.default_rng(0)
    base = Timing(Candidate("onnxruntime", "onnxruntime", "g", "", {}), list(rng.uniform(2, 3, 21)))
    other = Timing(Candidate("eager", "eager", "g", "", {}), list(rng.uniform(4, 6, 21)), peak=3 * 2**20)
    row = _row(other, base, 100, {}, 4, 512, 2, HERE)
    times = np.sort(other.seconds)
    assert (row.group, row.candidate, row.batch, row.length, row.threads) == ("g", "eager", 4, 512, 2)
    assert row.runs == 21
    assert row.p50_ms == pytest.approx(1e3 * times[10])
    assert row.p90_ms == pytest.approx(1e3 * times[18])
    assert row.p99_ms == pytest.approx(1e3 * (0.2 * times[19] + 0.8 * times[20]))
    assert row.series_per_second == pytest.approx(4 / times[10])
    assert row.peak_mib == 3
    ratios = np.asarray(base.seconds) / np.asarray(other.seconds)
    assert row.ratio == pytest.approx(np.median(ratios))
    assert row.fastest == pytest.approx(min(base.seconds) / times[0])
    assert row.flop_ideal is None
    failed = _row(Timing(other.candidate, error="boom"), base, 100, {}, 4, 512, 2, HERE)
    assert (failed.error, failed.p50_ms, failed.ratio) == ("boom", None, None)


def test_series_take_the_columns_in_turn_and_end_where_they_end() -> None:
    values = np.stack([np.arange(100.0), 1000 + np.arange(100.0)], axis=1)
    table = Table("t", ("a", "b"), values)
    short = series_of(table, 3, 10)
    assert short.dtype == np.float32
    assert short[:2].tolist() == [list(range(90, 100)), list(range(1090, 1100))]
    assert short[2].tolist() != short[0].tolist()
    long = series_of(table, 1, 250)
    assert long.shape == (1, 250)
    assert set(np.diff(long[0])) == {1.0, -99.0}


def test_merge_share_is_of_merged_files_only() -> None:
    built = artefacts.built("bolt-tiny", MergeConfig(ratio="1/4"))
    inputs = artefacts.component("bolt-tiny").example(artefacts.model("bolt-tiny"), 2, 200)
    share = merge_share(built.merged, inputs, 1)
    assert share is not None
    assert 0.02 < share < 0.98
    assert merge_share(built.unmerged, inputs, 1) is None
    inlined = artefacts.built("bolt-tiny", MergeConfig(ratio="1/4"), True)
    assert not onnx.load(inlined.merged).functions
    assert merge_share(inlined.merged, inputs, 1) is None


def test_a_plain_sentence_where_merging_does_not_pay() -> None:
    slow = Row("m", "onnxruntime, merged", 1, 512, 1, ratio=0.8, flop_ideal=1.5)
    fast = Row("m", "onnxruntime, merged", 8, 512, 1, ratio=1.2, flop_ideal=1.5)
    rival = Row("m", "eager sdpa", 1, 512, 1, ratio=0.5)
    (line,) = verdict_lines([rival, slow, fast])
    assert "does not pay for m at batch 1" in line
    assert "takes 25 % longer" in line


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tiny_folder(tmp_path / "tiny")


def test_command(model: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_verdicts(monkeypatch)
    assert main_export(["tiny", "--r", "2", "--threads", "1", "-o", "made"]) == 0
    capsys.readouterr()
    sizes = ["--length", "100,100000", "--runs", "2", "--ratio", "1/2"]
    flags = ["--batch", "1", *sizes, "--against", "eager", "--json", "b.json", "--plot", "b.png"]
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install matplotlib")
    assert main(["bench", "tiny", "made", *flags]) == 0
    out = capsys.readouterr().out
    assert "merged: local k=1 ratio=1/2" in out
    assert "tiny: batch 1, length 100, threads 1, 2 runs in turn" in out
    assert "note: length 100000: tiny reads at most" in out
    found = json.loads(Path("b.json").read_text())
    rows = found["rows"]
    assert [row["batch"] for row in rows] == [1] * 4
    assert [row["candidate"] for row in rows] == [
        "onnxruntime", "eager sdpa", "onnxruntime, merged", "bundle made",
    ]  # fmt: skip
    for row in rows:
        assert row["error"] is None
        assert row["runs"] == 2
        assert row["p50_ms"] > 0
        assert row["peak_mib"] > 10
    assert rows[0]["ratio"] == 1
    assert rows[0]["gflops"] / rows[2]["gflops"] == pytest.approx(rows[2]["flop_ideal"])
    assert rows[1]["gflops"] is None

    # As if it had been interrupted behind the first size: that one stays as it is, the other is measured.
    kept = [{**row, "p50_ms": 123.0} for row in rows]
    Path("b.json").write_text(json.dumps({**found, "rows": kept}))
    again = ["bench", "tiny", "made", "--batch", "1,2", *sizes, *flags[-6:-2], "--resume"]
    assert main(again) == 0
    capsys.readouterr()
    resumed = json.loads(Path("b.json").read_text())
    assert [(row["batch"], row["p50_ms"] == 123.0) for row in resumed["rows"]] == [(1, True)] * 4 + [
        (2, False)
    ] * 4
    assert resumed["complete"]
    assert main([*again, "--runs", "3"]) == 2
    assert "of a run with another runs; leave out --resume" in capsys.readouterr().err
    # Half of the tokens per layer save more than two in all do.
    assert rows[2]["flop_ideal"] > rows[3]["flop_ideal"] > 1
    assert rows[2]["efficiency"] == pytest.approx(rows[2]["ratio"] / rows[2]["flop_ideal"])
    assert 0 < rows[2]["merge_share"] < 1
    assert rows[1]["flop_ideal"] is None
    assert Path("b.png").read_bytes()[:4] == b"\x89PNG"
    assert Path("b.png").stat().st_size > 10_000

    # The bundle alone: the same figures without a rival, its FLOPs against itself with nothing removed.
    assert (
        main(["bench", "made", "--batch", "1", "--length", "100", "--runs", "2", "--json", "alone.json"]) == 0
    )
    assert "note: made: alone, there is nothing to compare it with" in capsys.readouterr().out
    alone = json.loads(Path("alone.json").read_text())["rows"]
    assert [row["candidate"] for row in alone] == ["bundle made"]
    assert alone[0]["ratio"] is None
    for key in ("gflops", "flop_ideal"):
        assert alone[0][key] == pytest.approx(rows[3][key])


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--against", "tvm"], 2, "--against tvm: not a rival"),
        (["--resume"], 2, "--resume goes on with what --json FILE holds"),
        (["--batch", "0"], 2, "--batch"),
        (["--length", "99999"], 2, "reads at most"),
        (["--plot", "b.txt"], 2, "--plot b.txt: give a file that ends in"),
        (["--plot", "nowhere/b.png"], 2, "--plot nowhere/b.png: cannot be written"),
        (["--data", "none.csv"], 2, "--data none.csv: no such file"),
        (["--ratio", "2"], 2, "--ratio 2 is out of range"),
    ],
)
def test_mistakes_are_one_line(flags: list[str], code: int, words: str, model: Path, capsys: Capture) -> None:
    assert main(["bench", "tiny", *flags]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert len(captured.err.strip().splitlines()) == 1


def test_who_runs_one_component_of_several_says_so() -> None:
    family, t5 = artefacts.family("t5-tiny"), artefacts.model("t5-tiny")
    note = first_only(family, t5)
    assert note is not None
    assert "those of the encoder alone" in note
    assert "also runs cross and decoder" in note
    assert first_only(artefacts.family("bolt-tiny"), artefacts.model("bolt-tiny")) is None


def test_a_missing_model_is_named(capsys: Capture) -> None:
    assert main(["bench", "./nothing-here"]) == 2
    assert "nothing-here" in capsys.readouterr().err
