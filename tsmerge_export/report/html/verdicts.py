"""The top of the page: what came out, in one look; and both verdicts in full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsmerge_export.console.figures import change, fewer, within_noise
from tsmerge_export.report.html.markup import Html, join, section, table, tag
from tsmerge_export.report.text import (
    METRIC_NAMES,
    column_name,
    cost_rows,
    cost_title,
    number,
    parity_rows,
    speed_place,
    speed_words,
    worst_column,
)

#: A rise of any error by more than this many per cent is pointed out; by ten times as much, in red.
_NOTABLE = 1.0


def medians(cost: Mapping[str, Any]) -> Mapping[str, Any]:
    """Medians over columns of the merge cost: ``unmerged``, ``merged`` and ``change_percent`` by metric."""
    overall: Mapping[str, Any] = (cost.get("overall") or {}).get("median") or {}
    return overall


def main_metric(cost: Mapping[str, Any]) -> str | None:
    """The metric that a change is named by: the weighted quantile loss, else MSE, else MAE; None without any."""
    known = medians(cost).get("change_percent") or {}
    return next((key for key in ("wql", "mse", "mae") if known.get(key) is not None), None)


def headline(report: Mapping[str, Any]) -> Html:
    """The result in a sentence or two."""
    verdicts = report.get("verdicts") or {}
    parity, cost = verdicts.get("parity"), verdicts.get("cost")
    said = []
    if parity:
        rows = f"{parity.get('rows', 0)} series in {parity.get('cases', 0)} cases"
        said.append(
            f"The exported files compute what PyTorch computes with the same merging ({rows})."
            if parity.get("passed")
            else f"The exported files do NOT compute what PyTorch computes ({rows}): do not use them."
        )
    speed = (cost or {}).get("speed") or {}
    if cost and speed.get("ratio") is not None:
        key = main_metric(cost)
        words = f"On this machine merging makes a call {speed_words(speed)}"
        if key is not None:
            moved = change(medians(cost)["change_percent"][key])
            words += (
                f"; the {METRIC_NAMES[key]} of {cost.get('data')} changes by {moved}{_worst_words(cost, key)}"
            )
        said.append(words + ".")
    elif parity and parity.get("passed"):
        said.append("Nothing is merged.")
    return tag("p", " ".join(said), class_="lead")


def tiles(report: Mapping[str, Any]) -> Html:
    """Parity, speed, error and tokens as figures."""
    verdicts = report.get("verdicts") or {}
    made = [_parity_tile(verdicts.get("parity")), *_cost_tiles(verdicts.get("cost")), _tokens_tile(report)]
    return tag("ul", *(one for one in made if one), class_="tiles")


def _tile(what: str, value: str, more: str, kind: str = "") -> Html:
    lines = ((what, "what"), (value, "value"), (more, "more"))
    return tag("li", *(tag("span", words, class_=name) for words, name in lines), class_=kind or None)


def _parity_tile(parity: Mapping[str, Any] | None) -> Html:
    if not parity:
        return Html("")
    good = bool(parity.get("passed"))
    more = f"largest error {number(parity.get('max_rel'), 3)} of the output's scale"
    return _tile("Parity with PyTorch", "passed" if good else "FAILED", more, "bad" if not good else "good")


def _cost_tiles(cost: Mapping[str, Any] | None) -> list[Html]:
    if not cost:
        return [_tile("Merge cost", "not measured", "nothing is merged, or parity failed")]
    made = []
    speed = cost.get("speed") or {}
    if speed.get("ratio") is not None:
        ratio = speed["ratio"]
        times = (
            f"{speed['unmerged_ms']:.2f} ms \u2192 {speed['merged_ms']:.2f} ms per call, {speed_place(speed)}"
        )
        made.append(
            _tile(
                "Speed",
                speed_words(speed),
                times,
                "warn" if within_noise(ratio) else "good" if ratio > 1 else "bad",
            )
        )
    key = main_metric(cost)
    if key is not None:
        moved = medians(cost)["change_percent"]
        value = moved[key]
        others = ", ".join(
            f"{name.upper()} {change(moved[name])}"
            for name in ("mse", "mae")
            if name != key and moved.get(name) is not None
        )
        others += _worst_words(cost, key)
        worst = max(moved[name] for name in METRIC_NAMES if moved.get(name) is not None)
        kind = "good" if worst <= _NOTABLE else "warn" if worst <= 10 * _NOTABLE else "bad"
        made.append(_tile(f"Change of the {METRIC_NAMES[key]}", change(value), others, kind))
    return made


def _worst_words(cost: Mapping[str, Any], metric: str) -> str:
    worst = worst_column(cost, metric)
    if worst is None:
        return ""
    return f" (median of the columns; worst: {column_name(worst['column'])} {change(worst['percent'])})"


def _tokens_tile(report: Mapping[str, Any]) -> Html:
    counts = token_counts(report)
    if counts is None:
        return Html("")
    first, last, where, products = counts
    more = f"{where}, {change(100 * (last / first - 1))}" if first else where
    if products.get("ratio"):
        more += f"; matrix products there: {fewer(products['ratio'])}"
    return _tile("Tokens, first to last layer", f"{first} \u2192 {last}", more)


def token_counts(report: Mapping[str, Any]) -> tuple[int, int, str, Mapping[str, Any]] | None:
    """Tokens before the first and after the last merge, where, and the matrix products there.

    All of the history of the example; without an example, all as inspect counts them.
    """
    tokens = (report.get("example") or {}).get("tokens")
    if tokens:
        where = f"of a history of {tokens['steps']} steps"
        return tokens["count"], len(tokens["layers"][-1]["kept"]), where, tokens.get("flops") or {}
    for part in report.get("tokens") or ():
        merges = part.get("merges")
        if merges:
            where = f"at batch {part.get('batch')}, length {part.get('length')}"
            if any(merge.get("data_dependent") for merge in merges):
                where += " of generated input"
            return merges[0]["before"], merges[-1]["after"], where, part.get("flops") or {}
    return None


def verdict_sections(report: Mapping[str, Any]) -> Html:
    """Both verdicts with all their figures."""
    verdicts = report.get("verdicts") or {}
    return join((_parity(verdicts.get("parity")), _cost(verdicts.get("cost"))))


def _parity(parity: Mapping[str, Any] | None) -> Html:
    if not parity:
        return Html("")
    told = tag(
        "p",
        "The exported files against the original eager model, with the reference merging applied, over random, "
        "constant, periodic, gappy, padded, huge and tiny series at sizes other than the export's.",
    )
    parts = [told, table(("", ""), parity_rows(parity), name="Parity", words=2)]
    for one in parity.get("components") or ():
        rows = [
            (
                case.get("name", ""),
                str(case.get("rows", 0)),
                str(case.get("flips", 0)),
                str(case.get("mismatches", 0)),
                number(case.get("max_rel"), 3),
            )
            for case in one.get("details") or ()
        ]
        if rows:
            header = ("case", "series", "flips", "mismatches", "largest error")
            cases = table(header, rows, name=f"Cases of {one.get('name')}")
            summary = tag("summary", f"component {one.get('name')}: {len(rows)} cases")
            parts.append(tag("details", summary, cases))
    return section("Parity", "parity", *parts)


def _cost(cost: Mapping[str, Any] | None) -> Html:
    if not cost:
        return Html("")
    told = tag(
        "p",
        f"Measured on {cost_title(cost)}; medians over columns, the change being that of the columns' own changes. "
        "Both files in ONNX Runtime on the CPU, timed in turns in one run.",
    )
    figures = table(("", "unmerged", "merged", "change"), cost_rows(cost), name="Merge cost")
    notes = [tag("p", note, class_="note") for note in cost.get("notes") or ()]
    rows = []
    for column in cost.get("columns") or ():
        before, after, naive = (column.get(which) or {} for which in ("unmerged", "merged", "naive"))
        for key, words in METRIC_NAMES.items():
            if before.get(key) is None and after.get(key) is None:
                continue
            values = (before.get(key), after.get(key), naive.get(key))
            rows.append((column.get("column", ""), words, *map(number, values)))
    details: list[Html] = []
    if rows:
        header = ("column", "metric", "unmerged", "merged", "seasonal naive")
        details.append(
            tag(
                "details",
                tag("summary", f"all {len(cost['columns'])} columns"),
                table(header, rows, name="Merge cost by column", words=2),
            )
        )
    return section("Merge cost", "cost", told, *notes, figures, *details)
