"""``report.html``: its figures are those of ``report.json``, its strip is what numpy reads from ``target``, nothing
that a user named gets through as markup."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import shlex
from typing import Any

import numpy as np
import pytest

import tsmerge_export as tsm
from tests.report.html.bundles import HOSTILE, SETTINGS, bundle, report, search, series
from tests.report.html.reading import Element, part, read
from tests.report.manifests import MANIFEST, PARITY
from tsmerge_export.cli.commands import merge_config
from tsmerge_export.cli.parser import export_parser, tsmerge_parser
from tsmerge_export.console import figures
from tsmerge_export.report.html import report_page
from tsmerge_export.report.html.commands import commands, merge_flags
from tsmerge_export.report.text import column_name
from tsmerge_export.settings.config import MergeConfig

FAMILIES = tuple(SETTINGS)


def page(family: str) -> Element:
    return read((bundle(family) / "report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_page_is_in_the_manifest_and_follows_from_report_json(family: str) -> None:
    opened = tsm.Bundle.open(bundle(family))
    written = (opened.path / "report.html").read_bytes()
    entry = opened.manifest["files"]["report.html"]
    assert entry == {"size": len(written), "sha256": hashlib.sha256(written).hexdigest()}
    assert report_page(opened.report) == written.decode()
    assert "example" not in opened.manifest


@pytest.mark.parametrize("family", FAMILIES)
def test_verdicts(family: str) -> None:
    got, want = page(family), report(family)["verdicts"]
    tiles = {
        tile.one("span", class_="what").text: tile.one("span", class_="value").text
        for tile in got.one("ul", class_="tiles").all("li")
    }
    cost = want["cost"]
    assert tiles["Parity with PyTorch"] == "passed"
    ratio = cost["speed"]["ratio"]
    assert tiles["Speed"] == figures.speed(ratio)
    before, after = (cost["overall"]["median"][side]["wql"] for side in ("unmerged", "merged"))
    both = [(one["unmerged"]["wql"], one["merged"]["wql"]) for one in cost["columns"]]
    moved = float(np.median([100 * (merged / unmerged - 1) for unmerged, merged in both]))
    assert tiles["Change of the weighted quantile loss"] == figures.change(moved)
    worst = max(cost["columns"], key=lambda one: one["merged"]["wql"] / one["unmerged"]["wql"])["column"]
    assert f"worst: {column_name(worst)} " in got.one("ul", class_="tiles").text
    layers = report(family)["example"]["tokens"]["layers"]
    tokens = f"{len(layers[0]['target'])} \u2192 {len(layers[-1]['kept'])}"
    assert tiles["Tokens, first to last layer"] == tokens
    # The products are those of the same history, and no others are told beside it.
    saved = figures.fewer(report(family)["example"]["tokens"]["flops"]["ratio"])
    assert f" steps, {figures.change(100 * (len(layers[-1]['kept']) / len(layers[0]['target']) - 1))}" in (
        told := got.one("ul", class_="tiles").all("li")[-1].one("span", class_="more").text
    )
    assert told.endswith(f"; matrix products there: {saved}")
    by_data = SETTINGS[family].method == "dynamic"
    header = part(got, "tokens").all("table")[0].all("th")
    beside = [cell.text for cell in header if cell.text.startswith("before, length")]
    assert len(beside) == (0 if by_data else 1)
    assert "generated input" not in part(got, "tokens").text

    rows = {row[0]: row[1:] for row in part(got, "cost").rows()}
    assert rows["weighted quantile loss"][:2] == [f"{before:.4g}", f"{after:.4g}"]
    compared = {row[0]: row[1] for row in part(got, "parity").rows()}["compared"]
    assert compared == f"{want['parity']['cases']} cases, {want['parity']['rows']} series"
    columns = [row for row in part(got, "cost").rows() if row[0] in ("first", "gaps") and row[1] == "MSE"]
    expected = {column["column"]: column for column in cost["columns"]}
    assert [row[2] for row in columns] == [f"{expected[row[0]]['unmerged']['mse']:.4g}" for row in columns]
    assert len(columns) == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_strip(family: str) -> None:
    """Row by row, which original tokens a block covers, and with which others they are one."""
    tokens = report(family)["example"]["tokens"]
    svg = next(s for s in page(family).all("svg") if "viewbox" in s.attributes and s.all("rect", height="20"))
    unit = float(svg.attributes["width"]) / tokens["count"]
    rows: dict[str, list[Element]] = {}
    for rect in svg.all("rect"):
        rows.setdefault(rect.attributes["y"], []).append(rect)
    assert len(rows) == 1 + len(tokens["layers"])

    where = np.arange(tokens["count"])
    for drawn, layer in zip(list(rows.values())[1:], tokens["layers"], strict=True):
        where = np.array(layer["target"])[where]
        members = np.bincount(where, minlength=len(layer["kept"]))
        covered = []
        for rect in drawn:
            first = float(rect.attributes["x"]) / unit
            last = first + float(rect.attributes["width"]) / unit
            block = range(round(first), round(last))
            assert abs(first - round(first)) < 0.01 and abs(last - round(last)) < 0.01
            covered += block
            count = members[where[list(block)]]
            kind = rect.attributes["class"]
            if kind in ("s1", "pad", "end"):
                assert (count == 1).all()
                continue
            assert len(set(where[list(block)])) == 1
            assert (min(6, 1 + int(np.ceil(np.log2(count[0]))))) == int(kind[1])
            said = re.fullmatch(
                r"tokens ([\d–, ]+?)(?: \(steps [\d–, ]+\))? → token (\d+) of (\d+), size ([\d.]+)",
                rect.one("title").text,
            )
            assert said is not None, rect.one("title").text
            named = [
                token
                for run in said[1].split(", ")
                for token in range(int(run.split("–")[0]), int(run.split("–")[-1]) + 1)
            ]
            assert named == np.flatnonzero(where == where[block[0]]).tolist()
            assert (int(said[2]), int(said[3])) == (where[block[0]], len(layer["kept"]))
            assert float(said[4]) == layer["size"][where[block[0]]]
        assert covered == list(range(tokens["count"]))
        assert len(layer["kept"]) == where.max() + 1

    counts = [row[1:3] for row in part(page(family), "tokens").rows() if row[0].isdecimal()]
    assert counts == [[str(len(one["target"])), str(len(one["kept"]))] for one in tokens["layers"]]


@pytest.mark.parametrize("family", FAMILIES)
def test_merges_as_text(family: str) -> None:
    """Every group that numpy finds in ``target``, in tokens of the layer's own input, and no other."""
    layers = report(family)["example"]["tokens"]["layers"]
    for one, said in zip(layers, part(page(family), "tokens").all("details"), strict=True):
        target = np.array(one["target"])
        moves = re.findall(r"([\d+]+) \u2192 (\d+)", said.one("p").text)
        found = {int(output): [int(token) for token in group.split("+")] for group, output in moves}
        merged = np.flatnonzero(np.bincount(target) > 1)
        assert found == {int(output): np.flatnonzero(target == output).tolist() for output in merged}
        assert f"{len(target)} \u2192 {len(one['kept'])} tokens" in said.one("summary").text


def test_pruning_is_said() -> None:
    words = "Of the tokens removed the share 1/2 was pruned"
    assert words in part(page("mamba2"), "tokens").text
    content = report("mamba2")
    content["merge"]["prune_share"] = "0"
    assert "pruned" not in part(read(report_page(content)), "tokens").text


def test_steps_of_a_block() -> None:
    """Chronos-Bolt: patches of 8 steps, and a REG token behind them."""
    titles = [
        t.text for t in part(page("chronos-bolt"), "tokens").all("title") if t.text.startswith("tokens ")
    ]
    assert titles
    for title in titles:
        found = re.match(r"tokens (\d+)–(\d+) \(steps (\d+)–(\d+)\)", title)
        assert found is not None, title
        first, last, begin, end = map(int, found.groups())
        assert (begin, end) == (8 * first, 8 * last + 7)


@pytest.mark.parametrize("family", FAMILIES)
def test_forecast_lines(family: str) -> None:
    """The lines of the picture are the report's numbers, read back through the axis' ticks."""
    want = report(family)["example"]["series"]
    figures = part(page(family), "forecasts").all("figure")
    assert [figure.one("strong").text for figure in figures] == [
        one["column"].replace("\u202e", "\ufffd") for one in want
    ]
    for figure, one in zip(figures, want, strict=True):
        ticks = figure.all("text", class_="y")
        (y0, v0), (y1, v1) = (
            (float(tick.attributes["y"]) - 4, float(tick.text.replace("\u2212", "-")))
            for tick in (ticks[0], ticks[-1])
        )
        slope = (v1 - v0) / (y1 - y0)
        for side in ("unmerged", "merged"):
            median = one[side]["median"]
            if len(median) == 1:
                places = [float(figure.one("circle", class_=f"dot {side}").attributes["cy"])]
            else:
                path = figure.one("path", class_=f"line {side}").attributes["d"]
                places = [float(pair.split()[1]) for pair in re.split("[ML]", path)[1:]]
            read_back = [v0 + (place - y0) * slope for place in places]
            np.testing.assert_allclose(read_back, median, atol=0.2 * abs(slope))


def test_nothing_hostile_gets_through() -> None:
    for family in FAMILIES:
        found = page(family)
        assert not found.all("script") and not found.all("img") and not found.all("i") and not found.all("b")
        assert "\u202e" not in found.text
        assert "<script>document.title" in found.text  # as text, where columns are named
        for element in found.all("svg") + found.all("div") + found.all("p") + found.all("section"):
            assert not [name for name in element.attributes if name.startswith("on") or name == "style"]
    searched = read(report_page({**report("mamba2"), "search": search()}))
    assert not searched.all("script")
    assert "script><img src=x onerror" in part(searched, "pareto").text


def test_one_file_without_network() -> None:
    text = (bundle("chronos-t5") / "report.html").read_text(encoding="utf-8")
    found = read(text)
    meta = found.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    digest = base64.b64encode(hashlib.sha256(found.one("style").text.encode()).digest()).decode()
    assert meta.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "unsafe" not in meta
    assert not re.search(r"(?:src|href)=\"(?!#|data:,)", text)
    assert "url(" not in text and "@import" not in text
    assert "width=device-width" in [m.attributes.get("content", "").split(",")[0] for m in found.all("meta")]


def test_pictures_have_words() -> None:
    found = read(report_page({**report("chronos-bolt"), "search": search()}))
    pictures = [svg for svg in found.all("svg") if svg.attributes.get("aria-hidden") != "true"]
    assert len(pictures) == 5  # three forecasts, the strip, the front
    for svg in pictures:
        assert svg.attributes["role"] == "img"
        assert [child.name for child in svg.children if isinstance(child, Element)][:2] == ["title", "desc"]
    names = [heading.attributes["id"] for heading in found.all("h2")]
    assert len(names) == len(set(names))
    assert names[:5] == ["forecasts", "tokens", "pareto", "parity", "cost"]


def test_pareto_of_a_search() -> None:
    found = part(read(report_page({**report("chronos-bolt"), "search": search()})), "pareto")
    dots = {(dot.attributes["class"], dot.one("title").text) for dot in found.all("circle")}
    assert len([1 for kind, _ in dots if kind == "on-front"]) == 3
    assert [words for kind, words in dots if kind == "chosen"] == ["this bundle"]
    assert any(words.endswith("local k=1 ratio=1/2: 3.25 times as fast, +2.5 %") for _, words in dots)
    front = found.rows()[1:4]
    assert [row[3] for row in front] == ["4.12", "3.25", "1.00"]
    assert [row[4] for row in front] == ["no", "yes", "yes"]
    assert found.rows()[-1][-2:] == ["+1.8 %", "3.12"]
    # Faster lies to the right, worse lies higher; the ring is where the chosen setting is.
    at = {
        dot.one("title").text: (float(dot.attributes["cx"]), float(dot.attributes["cy"]))
        for dot in found.all("circle", class_="on-front")
    }
    (fast,) = (place for words, place in at.items() if "3.25 times" in words)
    (wild,) = (place for words, place in at.items() if "4.12 times" in words)
    assert wild[0] > fast[0] and wild[1] < fast[1]
    ring = found.one("circle", class_="chosen").attributes
    assert (float(ring["cx"]), float(ring["cy"])) == fast
    assert "of which 1 failed" in found.text


def test_without_a_search() -> None:
    found = part(page("chronos-bolt"), "pareto")
    assert "No search was made" in found.text
    assert len(found.all("circle")) == 2


def test_times() -> None:
    content = report("chronos-t5")
    rows = {row[0]: row[1] for row in part(page("chronos-t5"), "time").rows()}
    assert {"load", "export", "rewrite", "parity", "cost", "example"} <= set(content["seconds"])
    for name, value in content["seconds"].items():
        assert rows[name] == f"{value:.2f} s"
    share = content["example"]["merge_share"]
    assert 0 < share < 1
    assert rows["merging, and what it makes follow"] == f"{100 * share:.1f} %"


def test_what_is_missing_is_said_or_left_out() -> None:
    bare = {**MANIFEST, "merge": {"method": "none"}, "verdicts": {"parity": PARITY}, "run": {}}
    found = read(report_page(bare))
    assert "Nothing is merged." in found.text
    assert "None" not in found.text.replace("None: tokens stay", "")
    assert [title.attributes["id"] for title in found.all("h2")[:2]] == ["forecasts", "parity"]


def test_without_forecasts_it_says_why() -> None:
    nothing, none = {"merge": {"method": "none"}}, {"parity": PARITY}
    for changed, why in (
        (nothing, "nothing merges here, so that there are no two forecasts to compare"),
        ({"graph": {}}, "what the outputs of a graph from a file mean is not known"),
        ({"verdicts": none}, "there is no merge cost"),
        ({}, "the export made none"),
    ):
        found = part(read(report_page({**MANIFEST, **changed})), "forecasts")
        assert f"No forecast is shown: {why}." in found.text
        assert not found.all("figure")


def test_a_failed_parity_is_said() -> None:
    bare = {**MANIFEST, "merge": {"method": "none"}, "verdicts": {"parity": PARITY}, "run": {}}
    failed = read(
        report_page({**bare, "verdicts": {"parity": {**PARITY, "passed": False, "failures": ["off"]}}})
    )
    assert "FAILED" in failed.one("ul", class_="tiles").text
    assert "do not use them" in failed.text


def test_barriers_and_gpu() -> None:
    found = read(report_page(MANIFEST))
    assert "Conv in encoder.conv: no rule" in part(found, "barriers").text
    assert found.one("a").attributes["href"] == "#barriers"
    limits = part(found, "limits").text
    assert "Verdicts and times are those of ONNX Runtime on the CPU." in limits and "GPU" not in limits
    target = {
        "runtime": "tensorrt", "dtype": "fp16", "on_gpu": "It has never run on a GPU.",
        "components": {"model": {
            "onnx": "model.trt.onnx", "profile": {"context": {"min": [1, 64], "opt": [4, 512], "max": [8, 512]}},
            "commands": {"trtexec": "trtexec --onnx=<x>"}, "missing": ["TensorRT <y>"],
        }},
    }  # fmt: skip
    section = part(read(report_page({**MANIFEST, "target": target})), "target")
    for text in ("It has never run on a GPU.", "trtexec --onnx=<x>", "TensorRT <y>", "[4, 512]"):
        assert text in section.text


@pytest.mark.parametrize(
    "merge",
    [
        *SETTINGS.values(),
        MergeConfig("none"),
        MergeConfig("local", k=3, r=(4, 2), causal=False, layers=(0, 2), metric="key", prop_attn=True),
        MergeConfig("local", ratio=("1/3", "1/7"), causal=True, min_tokens=0, positions="compact"),
        MergeConfig("dynamic", k="global", threshold=(-0.5, 0.25), similarity="l2"),
        MergeConfig("pitome", ratio="1/5", margin=-0.25, energy="gaussian", schedule="linear"),
        MergeConfig("pitome", alpha=0.5, margin=(-0.5, 0.5)),
        MergeConfig("global", r=7, similarity="dot"),
        MergeConfig("ssm", prune_share=0),
    ],
    ids=MergeConfig.describe,
)
def test_flags_read_back(merge: MergeConfig) -> None:
    args = export_parser().parse_args(["model", *merge_flags(merge.to_dict())])
    assert merge_config(args) == merge


def test_commands_read_back() -> None:
    given = dict(commands(report("chronos-t5")))
    args = export_parser().parse_args(shlex.split(given["export"])[1:])
    assert merge_config(args) == SETTINGS["chronos-t5"]
    assert (args.data, args.threads, args.seed, args.inline) == (str(series()), 1, 3, True)
    assert args.model == report("chronos-t5")["source"]
    for what in (
        "repeat the verdicts",
        "where it merges",
        "speed over batches",
        "find a better setting",
    ):
        words = shlex.split(given[what])
        assert words[0] == "tsmerge"
        tsmerge_parser().parse_args(words[1:])
    tuned = dict(commands({**report("chronos-t5"), "search": search()}))
    args = tsmerge_parser().parse_args(shlex.split(tuned["search the setting again"])[1:])
    assert args.models == ["small", f"big {HOSTILE}"]
    assert (args.max_increase, args.metric, args.budget, args.windows) == (3.0, "wql", 600.0, 16)
    shown = [code.text for code in part(page("chronos-t5"), "again").all("code")]
    assert given["export"] in shown


def test_commands_read_the_table_in_the_same_way() -> None:
    table = ["--sep", "tab", "--decimal", ",", "--no-dayfirst", "--id-column", "shop, or so"]
    found = commands({**MANIFEST, "run": {"data": "x.tsv", "table": table}})
    found += commands(
        {**MANIFEST, "run": {"data": "x.tsv"}, "search": {**search(), "run": {"data": "x", "table": table}}}
    )
    read_back = 0
    for _, command in found:
        words = shlex.split(command)
        if "--data" in words:
            args = (export_parser() if words[0] == "tsmerge-export" else tsmerge_parser()).parse_args(
                words[1:]
            )
            read_back += args.sep == "\t" and not args.dayfirst and args.id_column == "shop, or so"
    assert read_back == 4


def test_command_of_a_model_in_memory() -> None:
    content = copy.deepcopy(report("chronos-bolt"))
    content["source"] = "a model in memory"
    command = dict(commands(content))["export"]
    calls: list[Any] = []

    class Stub:
        MergeConfig = MergeConfig

        @staticmethod
        def export(model: Any, merge: MergeConfig, **options: Any) -> None:
            calls.append((merge, options))

    eval(command.partition("; ")[2], {"tsm": Stub, "model": None})
    ((merge, options),) = calls
    assert merge == SETTINGS["chronos-bolt"]
    assert options["data"] == str(series()) and options["threads"] == 1


def test_report_json_keeps_numbers_on_a_line() -> None:
    text = (bundle("chronos-t5") / "report.json").read_text(encoding="utf-8")
    assert json.loads(text)["example"]["tokens"]["count"] == 129
    longest = max(len(line) for line in text.splitlines() if '"target": [' in line)
    assert longest > 300
