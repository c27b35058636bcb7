"""What is said of a distillation, in rows, sentences and on a page: of figures made by hand, hostile ones too."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from tests.bundle.json_places import changed
from tests.report.distillation import both, written
from tsmerge_export.bundle.distillation import distillation_of, report_of_distillation
from tsmerge_export.errors import UsageError
from tsmerge_export.report.distillation import CONTROL, goal, score_table, speed_words
from tsmerge_export.report.html.distillation import distillation_page, distillation_section


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
