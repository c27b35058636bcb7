"""Settings of a search whose weights are trained for them: which, what becomes of them, and the whole command."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tsmerge_export as tsm
from tests.models import tiny_folder
from tests.quick import quick_verdicts
from tests.tools.searches import table
from tsmerge_export.cli import main
from tsmerge_export.console.progress import NoProgress
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.tune import contender, distilled, search, verdict
from tsmerge_export.tools.tune.distilled import distill_best, names_of, worth_it
from tsmerge_export.tools.tune.search import NONE, Search, Tried, identity_of
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.speed import Speedup

pytest.importorskip("optuna", reason="optuna is not installed: pip install optuna")
QUARTER, HALF, TENTH = (MergeConfig(ratio=ratio) for ratio in ("1/4", "1/2", "1/10"))


def one(upper: float, speedup: float, merge: MergeConfig, error: str | None = None) -> Tried:
    return Tried("m", merge, upper - 1, upper, speedup, error)


def test_the_fastest_and_the_fastest_within_reach() -> None:
    base = one(0, 1.0, NONE)
    half, quarter, tenth = one(80, 2.0, HALF), one(12, 1.4, QUARTER), one(2, 1.02, TENTH)
    assert worth_it([base, half, quarter, tenth], 3.0) == [half, quarter]
    # Both are the same, or nothing is within reach; one that is beaten, slow or failed is none.
    assert worth_it([base, one(25, 2.0, HALF), quarter], 3.0) == [one(25, 2.0, HALF)]
    assert worth_it([base, half], 3.0) == [half]
    assert worth_it([base, tenth, one(0, 9.0, HALF, "failed")], 3.0) == []
    assert worth_it([base, half, one(90, 1.5, QUARTER)], 3.0) == [half]


def by_ratio(reference: Any, tried: Any, merge: MergeConfig, **_: Any) -> Speedup:
    """Stands in for timing: the more merges, the faster, without a doubt."""
    value = 1.0 if not merge.active else 2.0 + float(merge.ratio or 0)  # type: ignore[arg-type]
    return Speedup(value, value, value, 10)


def test_what_is_trained_enters_the_search_and_what_cannot_be_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "time_against", by_ratio)

    def prepared(path: Path) -> contender.Contender:
        return contender.prepare(
            str(path), table(), Checks(threads=1), folder=tmp_path, windows=5, batch=2, length=120, options={}
        )

    original = tiny_folder(tmp_path / "tiny")
    found = Search([prepared(original)], "mse", tmp_path / "s.log", identity_of(["t"], b"", "mse", 2, 120, 5))
    # Four settings of the search, without the search.
    found.trained += [found._tried(found.contenders[0], merge) for merge in (TENTH, HALF)]
    monkeypatch.setattr(distilled, "worth_it", lambda tried, most: tried[1:])
    asked: list[Any] = []

    def quick(model: Any, merge: MergeConfig, *, recipe: Any, **given: Any) -> Any:
        asked.append((model, merge, recipe.budget, recipe.context, len(given["data"].values)))
        if merge == TENTH:
            raise UnsupportedError("cannot be trained")
        return tsm.distill(model, merge, steps=2, batch=2, validations=1, context=120, threads=1)

    monkeypatch.setattr(distilled, "distill", quick)
    names = names_of(str(tmp_path / "out"))
    made, tried, notes = distill_best(
        found, table(), 3.0, 60.0, names=names, prepared=prepared, options={}, force=False, seed=0, threads=1,
        progress=NoProgress(),
    )  # fmt: skip
    assert asked == [(str(original), merge, 30.0, 120, 900) for merge in (TENTH, HALF)]
    assert notes == ["local k=1 ratio=1/10 could not be distilled: cannot be trained"]
    assert [(one.path, one.of, one.merge) for one in made] == [(names[1], str(original), HALF)]
    loaded = tsm.load_model(names[1]).trained
    assert loaded is not None and loaded.merge == HALF
    # Its figures are those of its files against the original, unmerged; unmerged itself it is a row, and marked.
    (own,) = tried
    assert (own.source, own.merge, own.speedup) == (str(names[1]), HALF, 2.5)
    mine, base = (one.errors(merge, one.validation)["mse"].sum(1) for one, merge in zip(
        reversed(found.contenders), (HALF, NONE), strict=True))  # fmt: skip
    assert own.increase == pytest.approx(100 * (np.median(mine / base) - 1))
    rows = [(one.source, one.merge.active) for one in found.tried]
    assert rows.count((str(names[1]), False)) == 1 and own in found.tried


class Fake:
    """A contender whose windows have the same error by any setting."""

    name, validation, test = "m", None, SimpleNamespace(columns=("a",))

    def errors(self, merge: MergeConfig, windows: Any, precision: str = "fp32") -> dict[str, Any]:
        return {"mse": np.ones((1, 5))}

    def least(self, metric: str, windows: Any) -> Any:
        return np.zeros(1)


def test_what_was_trained_is_measured_on_the_test_windows_whatever_the_others_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verdict, "time_against", by_ratio)
    monkeypatch.setattr(verdict, "over_eager", lambda *_: None)
    monkeypatch.setattr(verdict, "pays_from", lambda *_: None)
    base, best, trained, failed = (
        one(0, 1.0, NONE),
        one(-1, 1.1, TENTH),
        one(50, 2.0, HALF),
        one(0, 0, QUARTER, "no"),
    )
    every = [base, best, trained, failed]
    fakes: Any = [Fake()]
    for also, wanted in (([], False), ([trained, failed], True)):
        found = verdict.answer(fakes, 0, [*every[:2], *every[2:]], "mse", 3.0, lambda *_: None, also)
        assert (trained in [final.tried for final in found.finals]) == wanted
        assert failed not in [final.tried for final in found.finals]


@pytest.mark.slow
def test_the_whole_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick_verdicts(monkeypatch)
    monkeypatch.chdir(tmp_path)
    tiny_folder(tmp_path / "tiny")
    np.savetxt("series.csv", table().values, delimiter=",", header="a,b", comments="")

    def speed(reference: Any, tried: Any, merge: MergeConfig, **_: Any) -> Speedup:
        value = 1.0 if not merge.active else 3.0 if "distilled" in tried.name else 2.0
        return Speedup(value, value, value, 10)

    for module in (search, verdict):
        monkeypatch.setattr(module, "time_against", speed)
    run = Search.run
    monkeypatch.setattr(Search, "run", lambda self, seconds, told: run(self, 3600, told, trials=2))
    flags = ["--data", "series.csv", "--windows", "5", "--threads", "1", "--length", "120", "--batch", "1"]
    more = ["--max-increase", "1000%", "--distill", "2s", "-o", "out", "--json", "t.json"]
    assert main(["tune", "tiny", *flags, *more]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "checkpoint: out-distilled-1 (tiny, distilled for local" in said
    assert "bundle: out" in said
    content = json.loads(Path("t.json").read_text())
    assert content["answer"]["fastest"]["source"] == "out-distilled-1"
    assert {one["source"] for one in content["tried"]} == {"tiny", "out-distilled-1"}
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert manifest["source"] == "out-distilled-1"
    assert manifest["trained"]["merge"] == manifest["merge"]
    assert "--distill 2s" in Path("out/report.html").read_text()
    # What stands there is said before any work.
    Path("out-distilled-1/mine.txt").touch()
    assert main(["tune", "tiny", *flags, *more, "--force"]) == 2
    assert "out-distilled-1: holds mine.txt" in capsys.readouterr().err
