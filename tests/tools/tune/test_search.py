"""The search on a tiny model: what is proposed, recorded, taken up again, refused; and the answer that follows."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models import tiny_folder
from tests.quick import quick_verdicts
from tests.tools.searches import FAST, table
from tsmerge_export import bundle, typed
from tsmerge_export.cli import main
from tsmerge_export.cli.commands import merge_config
from tsmerge_export.cli.parser import export_parser, tsmerge_parser
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.families.trained import mark
from tsmerge_export.report.html import speed
from tsmerge_export.report.html.commands import commands
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.trained import Trained
from tsmerge_export.tools.tune import contender, search, show, space, verdict
from tsmerge_export.tools.tune.crossover import WORTH
from tsmerge_export.tools.tune.search import NONE, Search, Tried, identity_of, pareto
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.speed import Speedup

pytest.importorskip("optuna", reason="optuna is not installed: pip install optuna")
Capture = pytest.CaptureFixture[str]


def one(upper: float, speedup: float, merge: MergeConfig = NONE, error: str | None = None) -> Tried:
    return Tried("m", merge, upper - 1, upper, speedup, error)


def test_pareto_front() -> None:
    points = [
        one(0, 1),
        one(5, 2),
        one(5, 1.5),
        one(4, 2.5),
        one(9, 3),
        one(-1, 0.5),
        one(0, 9, error="boom"),
    ]
    assert [(t.upper, t.speedup) for t in pareto(points)] == [(9, 3), (4, 2.5), (0, 1), (-1, 0.5)]


def always(value: float) -> Any:
    """Stands in for timing: the same speed-up, without a doubt."""
    return lambda *args, **kwargs: Speedup(value, value, value, 10)


def prepared(tmp_path: Path) -> contender.Contender:
    return contender.prepare(
        str(tiny_folder(tmp_path / "tiny")), table(), Checks(threads=1), folder=tmp_path, windows=5, batch=2,
        length=120, options={},
    )  # fmt: skip


def test_splits_do_not_overlap(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    values = table().values.astype(np.float32)
    seen = made.validation.context, made.validation.target
    for part in seen:
        for row in part[0]:
            starts = [
                s for s in range(900) if np.array_equal(values[s : s + len(row), 0], row.astype(np.float32))
            ]
            assert len(starts) == 1
            assert starts[0] + len(row) <= 720
    for row in made.test.target[0]:
        start = next(s for s in range(900) if np.allclose(values[s : s + len(row), 0], row))
        assert start >= 720
    assert made.validation.context.shape[-1] == 120


def test_search_records_continues_and_survives_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = prepared(tmp_path)
    run_of = contender.Contender.run_of

    def no_global(self: contender.Contender, merge: MergeConfig, *precision: str) -> Any:
        if merge.method == "global":
            raise UnsupportedError("model.onnx: no global here")
        return run_of(self, merge, *precision)

    monkeypatch.setattr(contender.Contender, "run_of", no_global)
    monkeypatch.setattr(search, "time_against", always(1.5))
    study, identity = tmp_path / "study.log", identity_of(["tiny"], b"data", "mse", 2, 120, 4)
    first = Search([made], "mse", study, identity)
    told: list[Tried] = []
    first.run(3600, lambda found, share: told.append(found), trials=5)
    assert [t.merge.method for t in told] == ["local", "local", "local", "global", "dynamic"]
    assert told[3].error == "model.onnx: no global here"
    assert [t.error for t in told].count(None) == 4
    # The figures are those of the windows: unmerged against merged, both through the files.
    base = made.errors(NONE, made.validation)["mse"].sum(1)
    merged = made.errors(told[1].merge, made.validation)["mse"].sum(1)
    assert told[1].increase == pytest.approx(100 * (np.median(merged / base) - 1))
    assert abs(told[1].increase) > 1e-4

    again = Search([made], "mse", study, identity)
    assert again.tried == first.tried
    again.run(3600, lambda found, share: told.append(found), trials=1)
    assert len(again.tried) == 1 + 6
    assert told[5].merge.method == "pitome"
    with pytest.raises(
        UsageError, match=r"study.log: belongs to a search with another batch, metric; remove it"
    ):
        Search([made], "mse", study, identity_of(["tiny"], b"data", "wql", 3, 120, 4))


def test_what_the_weights_were_trained_for_is_tried_and_unmerged_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = prepared(tmp_path)
    third = MergeConfig(ratio="1/3", layers=(1,))  # no proposal of the search
    mark(made.source.model, Trained(third, (Fraction(1, 3), Fraction(1, 2)), 1.04))
    monkeypatch.setattr(search, "time_against", always(1.5))
    found = Search([made], "mse", tmp_path / "study.log", identity_of(["tiny"], b"data", "mse", 2, 120, 4))
    assert [one.merge for one in found.tried] == [NONE, third, replace(third, ratio=Fraction(1, 2))]
    assert [one.meant for one in found.tried] == [False, True, True]
    base, merged = (made.errors(merge, made.validation)["mse"].sum(1) for merge in (NONE, third))
    assert found.tried[1].increase == pytest.approx(100 * (np.median(merged / base) - 1))
    words = "unmerged (not what these weights are for)"
    assert show.name_of(found.tried[0], several=False) == words
    shown = typed.read(bundle.search.Tried, found.tried[0].to_dict(), "report.json")
    assert speed._name(shown, several=False) == words
    assert found.notes[0].startswith("the unmerged model here is not what these weights are for (+104.0 %)")

    def fails(self: Any, merge: MergeConfig, windows: Any) -> Any:
        raise UnsupportedError("does not build")

    # One that cannot be measured is a row, as any other.
    with monkeypatch.context() as patch:
        patch.setattr(
            Search, "_figures", lambda self, *one: fails(self, *one[1:3]) if one[1].active else base
        )
        assert Search._tried(found, made, third).error == "does not build"


def test_command_exports_the_fastest_within_the_budget(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_verdicts(monkeypatch)

    def speed(reference: Any, tried: Any, merge: MergeConfig, **_: Any) -> Speedup:
        return always(3.0 if merge.method == "global" else 2.0 if merge.active else 1.0)()

    monkeypatch.setattr(search, "time_against", speed)
    monkeypatch.setattr(verdict, "time_against", speed)
    run = Search.run
    monkeypatch.setattr(Search, "run", lambda self, seconds, told: run(self, 3600, told, trials=6))
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install matplotlib")
    flags = ["--max-increase", "1000%", "--json", "t.json", "--plot", "t.png"]
    assert main(["tune", "tiny", *FAST, *flags]) == 0
    out = capsys.readouterr().out
    assert "3.00 (3.00 to 3.00) times as fast as tiny unmerged" in out
    assert "Pareto front of 7 settings, on 5 windows of 2 columns" in out
    assert "bundle: tiny-tuned" in out
    manifest = json.loads(Path("tiny-tuned/manifest.json").read_text())
    assert manifest["merge"]["method"] == "global"
    assert manifest["verdicts"]["parity"]["passed"]
    found = json.loads(Path("t.json").read_text())
    assert found["answer"]["fastest"]["merge"]["method"] == "global"
    assert len(found["tried"]) == 7
    assert found["answer"]["fastest"]["test"]["speedup"] == 3.0
    assert found["answer"]["fastest"]["test"]["speedup_over_eager"] > 0
    assert (found["context"], found["max_increase_percent"], found["timed_component"]) == (
        120,
        1000.0,
        "model",
    )
    assert Path("t.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads(Path("tiny-tuned/report.json").read_text())["search"] == found
    front = [found["tried"][index] for index in found["front"]]
    assert [one["speedup"] for one in front] == sorted({one["speedup"] for one in front}, reverse=True)
    assert [one["upper_percent"] for one in front] == sorted(
        (o["upper_percent"] for o in front), reverse=True
    )
    page = Path("tiny-tuned/report.html").read_text()
    assert "tsmerge tune tried 7 settings" in page
    assert page.count('class="on-front"') == len(front)
    assert "tsmerge tune tiny --data series.csv" in page
    # The real parser reads the page's commands back: they ask for what was asked for.
    given = dict(commands(json.loads(Path("tiny-tuned/report.json").read_text())))
    asked = tsmerge_parser().parse_args(shlex.split(given["search the setting again"])[1:])
    wanted = {
        "models": ["tiny"], "data": "series.csv", "windows": 5, "threads": 1, "length": 120, "batch": 1,
        "max_increase": 1000.0, "metric": "wql", "output": "tiny-tuned", "seed": 0,
    }  # fmt: skip
    assert {name: getattr(asked, name) for name in wanted} == wanted
    asked = export_parser().parse_args(shlex.split(given["export"])[1:])
    assert merge_config(asked) == MergeConfig.from_dict(manifest["merge"])
    assert (asked.model, asked.data, asked.threads, asked.output) == ("tiny", "series.csv", 1, "tiny-tuned")


def test_command_says_do_not_merge(folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "time_against", always(0.9))
    monkeypatch.setattr(verdict, "time_against", always(0.9))
    assert main(["tune", "tiny", *FAST, "--budget", "3s"]) == 0
    out = capsys.readouterr().out
    assert "do not merge: no setting is for certain faster than the unmerged model" in out
    assert "is faster than unmerged by 5 % or more at no length for certain; not at 256 and fewer" in out
    assert not Path("tiny-tuned").exists()
    assert Path("tiny-tuned.tune.log").exists()


def test_a_crash_of_the_process_is_a_row_and_an_interrupt_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = prepared(tmp_path)
    monkeypatch.setattr(search, "time_against", always(1.5))
    study, identity = tmp_path / "study.log", identity_of(["tiny"], b"data", "mse", 2, 120, 4)
    first = Search([made], "mse", study, identity)

    def interrupted(*args: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(contender.Contender, "errors", interrupted)
        with pytest.raises(KeyboardInterrupt):
            first.step()
    # What a process leaves that is killed in the middle of a setting: a trial that never ended.
    trial = first._study.ask()
    trial.suggest_categorical("model", (made.name,))
    killed = space.suggest(trial, made.points)

    again = Search([made], "mse", study, identity)
    (lost,) = [one for one in again.tried if one.error is not None]
    assert (lost.merge, lost.error) == (killed, "ended the process (crashed or killed)")
    # The guesses that are left come first, then the one that was interrupted.
    told: list[Tried] = []
    again.run(3600, lambda found, share: told.append(found), trials=8)
    assert [t.merge.method for t in told] == [
        "local",
        "global",
        "dynamic",
        "pitome",
        "ssm",
        "local",
        "local",
        "local",
    ]
    assert told[-1].merge.ratio == MergeConfig(ratio="1/10").ratio
    assert killed not in [t.merge for t in told]
    assert all(t.error is None for t in told)


def test_several_models_in_one_front(folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_folder(folder / "small", seed=1)
    monkeypatch.setattr(search, "time_against", always(0.5))
    monkeypatch.setattr(verdict, "time_against", always(0.5))
    run = Search.run
    monkeypatch.setattr(Search, "run", lambda self, seconds, told: run(self, 3600, told, trials=4))
    assert main(["tune", "tiny", "small", *FAST, "--json", "t.json"]) == 0
    out = capsys.readouterr().out
    assert "tiny: unmerged" in out
    found = json.loads(Path("t.json").read_text())
    assert [one["source"] for one in found["tried"][:2]] == ["tiny", "small"]
    assert {one["source"] for one in found["tried"][2:]} == {"tiny", "small"}
    # All figures are against one reference: the unmerged model with the lowest error.
    unmerged = found["tried"][:2]
    assert min(one["increase_percent"] for one in unmerged) == 0
    assert max(one["increase_percent"] for one in unmerged) > 0
    reference = min(unmerged, key=lambda one: one["increase_percent"])["source"]
    assert found["answer"]["reference"]["source"] == reference


def test_columns_without_information_are_left_out_by_name(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.concatenate([table().values, np.ones((900, 1)), np.full((900, 1), np.nan)], axis=1)
    np.savetxt("odd.csv", values, delimiter=",", header="a,b,flat,none", comments="")
    monkeypatch.setattr(search, "time_against", always(0.5))
    monkeypatch.setattr(verdict, "time_against", always(0.5))
    run = Search.run
    monkeypatch.setattr(Search, "run", lambda self, seconds, told: run(self, 3600, told, trials=1))
    assert main(["tune", "tiny", *FAST, "--data", "odd.csv", "--json", "t.json"]) == 0
    out = capsys.readouterr().out
    notes = ["column 'flat' is constant: left out", "column 'none' holds no values: left out"]
    assert all(f"note: {note}" in out for note in notes)
    assert json.loads(Path("t.json").read_text())["notes"] == notes


def test_chronos_t5_is_scored_on_what_its_files_decode(tmp_path: Path) -> None:
    made = contender.prepare(
        str(tiny_folder(tmp_path / "t5", "chronos-t5")), table(), Checks(threads=1), folder=tmp_path, windows=3,
        batch=2, length=64, options={},
    )  # fmt: skip
    assert made.forecast is not None
    merge = MergeConfig(ratio="1/2")
    plain, merged = (made.errors(m, made.validation)["wql"] for m in (NONE, merge))
    assert plain.shape == (2, 3)
    assert np.isfinite(merged).all()
    assert not np.allclose(plain, merged)
    # The same numbers are drawn again, so that two settings differ by what they merge alone.
    np.testing.assert_array_equal(plain, made.errors(NONE, made.validation)["wql"])


def test_lengths_are_timed_on_series_of_that_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, asked = prepared(tmp_path), []

    def by_length(reference: contender.Contender, *_: Any, **__: Any) -> Speedup:
        asked.append(reference.feed["context"].shape)
        return always(1.5 if asked[-1][1] >= 200 else 0.9)()

    monkeypatch.setattr(verdict, "time_against", by_length)
    # The search ran at 120 steps; the model reads 256.
    found = verdict.pays_from(made, MergeConfig(r=1), always(1.2)())
    assert (asked, found.length) == ([(2, 256), (2, 128), (2, 64)], 256)
    assert found.words() == (
        f"faster than unmerged by {100 * WORTH - 100:.0f} % or more at 120, 256 steps; not at 64 and fewer, 128 steps"
    )
    asked.clear()
    assert verdict.pays_from(made, MergeConfig(r=1), None).length == 256
    assert asked == [(2, 120), (2, 256), (2, 128)]


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--data", "none.csv"], 2, "--data none.csv: no such file"),
        (
            ["--data", "short.csv"],
            2,
            "30 rows are too few to promise an increase with 90 % confidence: there is room",
        ),
        (
            ["--data", "short.csv"],
            2,
            "for 0 validation windows of 16 steps, and a bound takes at least 5; give at least",
        ),
        (["--data", "series.csv", "--windows", "4"], 2, "--windows 4: a bound of 90 % takes at least 5"),
        (
            ["--data", "flat.csv", "--column", "b,c"],
            2,
            "no column to work with: column 'b' is constant, column 'c' holds",
        ),
        (["--data", "series.csv", "--column", "z"], 2, "--column z: not in series.csv; choose from a, b"),
        (["--data", "series.csv", "--column", ","], 2, "names no column"),
        (["--data", "series.csv", "--budget", "soon"], 2, "is not a time such as"),
        (["--data", "series.csv", "--budget", "0s"], 2, "is not a time such as"),
        (["--data", "series.csv", "--max-increase", "little"], 2, "is not a share such as 3%"),
        (["--data", "series.csv", "--metric", "mape"], 2, "--metric"),
        (["--data", "series.csv", "--length", "99999"], 2, "reads at most"),
        (["--data", "series.csv", "--plot", "x.doc"], 2, "--plot x.doc"),
        ([], 2, "--data"),
    ],
)
def test_mistakes_are_one_line(
    flags: list[str], code: int, words: str, folder: Path, capsys: Capture
) -> None:
    Path("short.csv").write_text("a\n" + "\n".join(map(str, range(30))) + "\n")
    flat = np.stack([table().values[:, 0], np.ones(900), np.full(900, np.nan)], axis=1)
    np.savetxt("flat.csv", flat, delimiter=",", header="a,b,c", comments="")
    assert main(["tune", "tiny", *flags]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert len(captured.err.strip().splitlines()) == 1
