"""Verdict tables and model card from plain dicts, also where figures are missing."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.report.manifests import COST, MANIFEST, PARITY
from tsmerge_export import typed
from tsmerge_export.bundle.verdicts import Cost
from tsmerge_export.console.progress import EXPORT_STEPS, NoProgress, RichProgress
from tsmerge_export.report import text as report
from tsmerge_export.report.model_card import model_card


def cost_rows(cost: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return report.cost_rows(typed.read(Cost, cost, "x.json"))


def test_verdict_table(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_verdicts(MANIFEST["verdicts"], title="title [not markup]")
    out = capsys.readouterr().out
    for text in ("title [not markup]", "passed", "80 cases, 211 series", "9 rows flipped", "+20.0 %", "-20.0 %",
                 "2.00x faster", "20.00 ms", "note: merging hardly pays", "2 columns x 6 windows"):  # fmt: skip
        assert text in out
    assert "None" not in out
    assert "nan" not in out


def test_the_table_says_what_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    made = copy.deepcopy(MANIFEST)
    for more, head, title in (
        ({}, " unmerged ", "horizon 64"),
        ({"original": "some/<whole>"}, "original, unmerged", "horizon 64; against some/<whole>, unmerged"),
        ({"comparable": False}, "same weights, unmerged", "horizon 64"),
    ):
        made["verdicts"]["cost"] = {**COST, **more}
        report.print_verdicts(made["verdicts"])
        lines = capsys.readouterr().out.splitlines()
        assert any(line.endswith(title) for line in lines)
        assert sum(head in line for line in lines) == 1
        card = model_card(made)
        assert f"| {head.strip()} |" in card
        assert "<whole>" not in card


def test_the_card_says_how_a_ratio_is_chosen() -> None:
    made = copy.deepcopy(MANIFEST)
    assert "faster = " not in model_card(made)
    made["components"][0]["ratio"] = {"input": "merge_ratio", "default": "1/4<b>"}
    card = model_card(made)
    assert 'faster = session.run({"context": context}, ratio="1/2")' in card
    assert "The ratio is chosen whenever `model.onnx` runs" in card
    assert "where none is given it is 1/4&lt;b>" in card and "`merge_ratio`, a float32 scalar" in card


WORST: dict[str, Any] = {
    "mse": {"median_percent": 20.0, "worst": {"column": "a <b>|c\nd" + "e" * 40, "unmerged": 0.25, "merged": 0.5,
                                              "percent": 100.0}, "compared": 2, "left_out": []},
    "wql": {"median_percent": -20.0, "worst": {"column": "x", "unmerged": 1.0, "merged": 0.9, "percent": -10.0},
            "compared": 1, "left_out": ["y"]},
}  # fmt: skip


def test_the_worst_column_is_named_below_the_median() -> None:
    rows = cost_rows({**COST, "changes": WORST})
    at = next(i for i, row in enumerate(rows) if row[0].startswith("MSE"))
    assert rows[at][3] == "+20.0 %"
    name = "a <b>|c d" + "e" * 20 + "\u2026"
    assert rows[at + 1] == (f"  of the worst column, {name}", "0.25", "0.5", "+100.0 %")
    # One column has no worst, and a bundle of an older version does not name it.
    assert not any("column, x" in row[0] for row in rows)
    assert not any("worst" in row[0] for row in cost_rows(COST))


def test_names_of_columns_are_no_markup_in_the_model_card() -> None:
    cost = {**COST, "changes": WORST, "notes": ["column '<script>' is left out"]}
    card = model_card({**MANIFEST, "verdicts": {"parity": PARITY, "cost": cost}})
    assert "| of the worst column, a &lt;b>\\|c d" in card
    assert "<script>" not in card


def test_failures_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    failed = {**PARITY, "passed": False, "failures": [f"case {i}: off" for i in range(9)]}
    report.print_verdicts({"parity": failed})
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert "case 4: off" in out
    assert "case 5: off" not in out
    assert "not measured, parity failed" in out


def test_slower_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    cost = copy.deepcopy(COST)
    cost["speed"].update(unmerged_ms=10.0, merged_ms=20.0, ratio=0.5)
    report.print_verdicts({"parity": PARITY, "cost": cost})
    out = capsys.readouterr().out
    assert "2.00x slower" in out
    assert "faster" not in out


def test_methods_that_decide_by_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_verdicts({"parity": PARITY, "cost": {**COST, "tokens": [65, 40, 26]}})
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "tokens" in line)
    assert line.split() == ["tokens", "of", "that", "batch", "65", "26", "-60.0", "%"]
    part = {**MANIFEST["components"][0], "merges": [{"layer": 0, "op_type": "DynamicMerge"}]}
    merges = [{"layer": 0, "before": 65, "after": 49, "data_dependent": True}]
    card = model_card(
        {**MANIFEST, "merge": {"method": "dynamic", "threshold": 0.9}, "components": [part]},
        [{"batch": 1, "length": 512, "merges": merges, "flops": {}}],
    )
    for text in ("dynamic k=1 threshold=0.9", "counts on generated input", "decided over the whole batch"):
        assert text in card
    assert "ratio" not in card
    assert "whole batch" not in model_card(MANIFEST)


def test_model_card() -> None:
    tokens = [
        {
            "batch": 1,
            "length": 512,
            "merges": [{"layer": 0, "before": 65, "after": 49}],
            "flops": {"ratio": 1.3},
        }
    ]
    card = model_card(MANIFEST, tokens)
    for text in (
        "# chronos-bolt with token merging", "`some/model`", "local k=1 ratio=1/4", "| 0 | 65 | 49 |",
        "1.30x fewer than unmerged",
        "Conv in encoder.conv: no rule", 'session.run({"context": context})', "| onnx | 1.23 |",
        "Verdicts and times are those of ONNX Runtime on the CPU.",
        "| verdict | passed |", "2.00x faster", "[batch, 3, 16]",
    ):  # fmt: skip
        assert text in card
    assert "None" not in card


def test_model_card_without_merging() -> None:
    card = model_card({**MANIFEST, "merge": {"method": "none"}, "verdicts": {"parity": PARITY}})
    assert "Nothing: the model is exported as it is." in card
    assert "What merging costs" not in card


def test_model_card_of_several_components() -> None:
    second = {**MANIFEST["components"][0], "name": "decoder", "file": "decoder.onnx"}
    card = model_card({**MANIFEST, "components": [*MANIFEST["components"], second]})
    assert 'session["model"].run(' in card


def test_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def go(progress: Any) -> None:
        for step in (*EXPORT_STEPS, "extra"):
            progress.step(step)
            progress.update(1, 2)
            progress.update(0, 0)

    go(NoProgress())
    with RichProgress(EXPORT_STEPS) as quiet:  # stderr is no terminal here
        go(quiet)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with RichProgress(EXPORT_STEPS) as shown:
        go(shown)
    out, err = capsys.readouterr()
    assert out == ""
    assert "extra" in err
