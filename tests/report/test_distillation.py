"""What is said of a distillation, in rows, sentences and on a page: of figures made by hand, hostile ones too."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.bundle.json_places import changed
from tsmerge_export.bundle.distillation import distillation_of, report_of_distillation
from tsmerge_export.errors import UsageError
from tsmerge_export.report.distillation import CONTROL, goal, score_table, speed_words
from tsmerge_export.report.html.distillation import distillation_page, distillation_section
from tsmerge_export.settings.config import MergeConfig

HALF, NONE = MergeConfig(ratio="1/2").to_dict(), MergeConfig("none").to_dict()


def moved(percent: float | None) -> dict[str, Any]:
    low, high = (None, None) if percent is None else (percent - 1, percent + 1)
    return {"percent": percent, "low": low, "high": high, "worst": percent, "column": "a"}


def both(mse: float | None, wql: float | None) -> dict[str, Any]:
    return {"mse": moved(mse), "wql": moved(wql)}


def written() -> dict[str, Any]:
    """Two tables at one setting and unmerged, with a control."""
    scores = []
    for data, after in (("one.csv", (1.5, 0.5)), ("two.csv", (2.0, 5.25))):
        control = both(-0.1, 0.0)
        scores += [
            {"data": data, "merge": HALF, "windows": 9, "before": both(108.5, 40.0), "after": both(*after),
             "control": control, "absolute": {"after": {"mse": 0.25, "wql": None}}},
            {"data": data, "merge": NONE, "windows": 9, "before": both(0.0, 0.0), "after": both(104.0, 30.0),
             "control": control, "absolute": {}},
        ]  # fmt: skip
    curve = [
        {"step": step, "seconds": 1.0, "mean": value, "increase": {"1/2": value}}
        for step, value in ((0, 108.0), (50, None), (100, 3.0))
    ]
    course = {
        "steps": 100, "batch": 8, "seconds": 12.5, "best_step": 100, "losses": [[50, 0.5, 0.25], [100, 0.25, 0.125]],
        "curve": curve,
    }  # fmt: skip
    return {
        "format": "tsmerge-distillation", "format_version": 1, "family": "chronos-bolt",
        "trained": {"merge": HALF, "elastic": [], "unmerged": 1.04}, "recipe": {"max_increase": 0.03, "steps": 100},
        "history": course, "control": course, "scores": scores, "met": False, "notes": [], "versions": {"torch": "2"},
        "source": "model", "data": ["one.csv", "two.csv"], "table": ["--sep", ";"], "output": "out", "created": "now",
        "speeds": [
            {"merge": HALF, "length": 512, "batch": 8, "value": 2.25, "low": 2.0, "high": 2.5, "runs": 9, "threads": 2}
        ],
    }  # fmt: skip


def test_a_row_for_each_table_and_setting_and_the_control_behind() -> None:
    found = report_of_distillation(written())
    header, rows = score_table(found, found.speeds)
    assert header == ("data", "setting", "MSE before", "MSE after", "WQL before", "WQL after", "speed-up")
    own = "local k=1 ratio=1/2"
    merged = ("+108.5 %", "+1.5 % (+0.5 to +2.5)", "+40.0 %", "+0.5 % (-0.5 to +1.5)")
    unmerged = ("0.0 %", "+104.0 % (+103.0 to +105.0)", "0.0 %", "+30.0 % (+29.0 to +31.0)")
    control = ("", "-0.1 % (-1.1 to +0.9)", "", "0.0 % (-1.0 to +1.0)")
    assert rows[:3] == [
        ("one.csv", own, *merged, "2.25 (2.00 to 2.50)"),
        ("one.csv", "unmerged", *unmerged, "1.00"),
        ("one.csv", CONTROL, *control, ""),
    ]
    assert [row[:2] for row in rows[3:]] == [("two.csv", own), ("two.csv", "unmerged"), ("two.csv", CONTROL)]
    assert len(score_table(found)[0]) == 6
    assert speed_words(found.speeds).endswith("ONNX Runtime, batch 8, 512 steps, 2 threads, timed in turns")


def test_the_goal() -> None:
    content = written()
    said = goal(report_of_distillation(content))
    assert said.startswith(
        "goal not met: WQL of two.csv with local k=1 ratio=1/2 is +5.2 % (asked for: at most +3 %)"
    )
    assert "the best weights that were found are kept" in said
    content["met"] = True
    assert goal(report_of_distillation(content)).startswith(
        "goal met: merged, MSE and WQL are at most 3 % above"
    )
    # No number is worse than any.
    content["met"], content["scores"][0]["after"] = False, both(None, 0.0)
    assert goal(report_of_distillation(content)).startswith("goal not met: MSE of one.csv with local")
    content["scores"] = []
    assert "nothing to test on" in goal(report_of_distillation(content))


def test_the_page_shows_every_figure_and_escapes_every_name() -> None:
    content = written()
    content["data"] = content["source"] = "<script>alert(1)</script>"
    content["data"] = [content["source"]]
    content["scores"][0]["data"] = "<img src=x>"
    page = distillation_page(content)
    assert page == distillation_page(report_of_distillation(content))
    assert "<script" not in page and "<img" not in page
    for words in (
        "+1.5 % (+0.5 to +2.5)",
        "2.25 (2.00 to 2.50)",
        "Goal not met: ",
        CONTROL,
        "+104.0 %",
        "0.25",
    ):
        assert words in page
    assert page.count('class="chart"') == 2  # validation, loss
    assert "tsmerge-export out" in page
    assert "tsmerge distill" in page and "--steps 100" in page


def test_the_part_of_a_bundles_page() -> None:
    found = distillation_of(written(), "distillation.json")
    section = distillation_section(found)
    assert "How the weights were distilled" in section
    assert "Goal not met" in section and "speed-up" not in section
    assert distillation_section(None) == ""


def test_any_value_anywhere_is_read_or_refused() -> None:
    content, read = written(), 0
    said: list[str] = []
    content["scores"] = content["scores"][:1]
    for _ in changed(content):
        try:
            distillation_page(report_of_distillation(copy.deepcopy(content), "a/report.json"))
            read += 1
        except UsageError as error:
            said.append(str(error))
    assert len(said) > 300 and read > 300
    assert not any("\n" in one for one in said)


def test_another_version_names_the_file() -> None:
    with pytest.raises(
        UsageError, match=r"^x/distillation.json: distillation format 2, this version reads 1"
    ):
        distillation_of({**written(), "format_version": 2}, Path("x/distillation.json"))
    assert json.dumps(written())
