"""The typed report: of a real bundle every figure, and nothing that a file says is taken for granted."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tests.bundle.json_places import below, changed
from tests.bundle.made import fails
from tsmerge_export.bundle import Report
from tsmerge_export.bundle.manifest import Manifest
from tsmerge_export.bundle.report import as_report, report_dict, report_of
from tsmerge_export.errors import UsageError
from tsmerge_export.report.html import report_page
from tsmerge_export.report.model_card import model_card
from tsmerge_export.typed import plain

#: Places that hold whatever the method or the operator says, and what the page does not show.
FREE = {"merge", "attributes"}


def written() -> dict[str, Any]:
    """Of a Chronos-T5 that merges dynamically, before the report had types."""
    file = Path(__file__).parent / "manifests" / "report.json"
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def cut(content: Any) -> Any:
    """With two entries of every list: which number of a series is wrong makes no difference."""
    if isinstance(content, dict):
        return {key: cut(value) for key, value in content.items()}
    return [cut(value) for value in content[:2]] if isinstance(content, list) else content


def contained(part: Any, whole: Any) -> bool:
    """Whether everything that ``part`` says is said in ``whole``; defaults of what is not there are left out."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(contained(part[key], whole[key]) for key in part if key in whole)
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) == len(whole) and all(map(contained, part, whole))
    return bool(part == whole)


def test_every_figure_is_that_of_the_file() -> None:
    content = written()
    found = report_of(content)
    assert found.family == "chronos-t5" and found.run.seed == 3 and found.run.data == "series.csv"
    assert found.verdicts.passed and found.verdicts.cost is not None and found.verdicts.cost.speed is not None
    assert found.verdicts.cost.speed.ratio == content["verdicts"]["cost"]["speed"]["ratio"]
    assert found.example is not None and found.example.tokens is not None
    (series,) = found.example.series
    assert list(series.merged.median) == content["example"]["series"][0]["merged"]["median"]
    assert [list(layer.target) for layer in found.example.tokens.layers] == [
        layer["target"] for layer in content["example"]["tokens"]["layers"]
    ]
    assert found.seconds == content["seconds"]
    assert [part.described for part in found.tokens] == [part["described"] for part in content["tokens"]]
    assert contained(plain(found), content)
    assert as_report(found) is found and as_report(content) == found


def test_a_report_says_all_of_the_manifest_but_files_and_pipeline() -> None:
    """Whatever is added to the manifest is, too."""
    names = {one.name for one in fields(Manifest)}
    only_there = ("run", "seconds", "tokens", "example", "search", "distillation")
    made = report_dict(dict.fromkeys([*names, *only_there, "of nobody"], 1))
    assert set(made) == {"format", "format_version", *names - {"files", "pipeline"}, *only_there}
    assert list(made) == [
        "format", "format_version", "source", "family", "merge", "notes", "trained", "original", "graph", "opset",
        "inline", "components", "verdicts", "target", "precision", "versions", "providers", "created", *only_there,
    ]  # fmt: skip
    assert list(report_dict({"family": "x"})) == ["format", "format_version", "family"]


def test_page_and_card_are_the_same_of_both() -> None:
    content = written()
    assert report_page(content) == report_page(report_of(content))
    assert model_card(content) == model_card(report_of(content))


def test_any_value_anywhere_is_read_or_refused() -> None:
    content, refused = cut(written()), 0
    for place in changed(content):
        try:
            found: Report | str = report_of(content, "a/report.json")
        except UsageError as error:
            found = str(error)
        if isinstance(found, str):
            assert "\n" not in found and found.startswith("a/report.json: ")
            name = next(one for one in reversed(place) if isinstance(one, str))
            assert name in found or "is missing" in found or name.startswith("format")
            refused += 1
    places = [place for place in below(content) if place and not FREE & set(place)]
    assert refused > 5 * len(places)  # of twelve values each


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"format": "tsmerge-bundle"}, "is not a report"),
        ({"format_version": 2}, "report format 2, this version reads 1"),
        ({"run": {"threads": "many"}}, "run.threads is 'many', expected a whole number or null"),
        ({"example": {"series": [{"column": "a"}]}}, r"example.series\[0\].role is missing"),
    ],
)
def test_what_is_refused(more: dict[str, Any], said: str) -> None:
    fails("x/report.json: " + said, report_of, written() | more, "x/report.json")
