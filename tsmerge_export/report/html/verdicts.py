"""The top of the page: what came out, in one look; and both verdicts in full."""

from __future__ import annotations

from tsmerge_export.bundle.example import Products
from tsmerge_export.bundle.report import Report
from tsmerge_export.bundle.verdicts import Cost, Parity
from tsmerge_export.console.figures import change, fewer, speed, within_noise
from tsmerge_export.report.html.markup import Html, join, section, table, tag, tile
from tsmerge_export.report.html.precision import precision_section, precision_sentence, precision_tiles
from tsmerge_export.report.text import (
    METRIC_NAMES,
    column_name,
    cost_rows,
    cost_title,
    number,
    parity_rows,
    speed_place,
    worst_column,
)

#: A rise of any error by more than this many per cent is pointed out; by ten times as much, in red.
_NOTABLE = 1.0


def main_metric(cost: Cost) -> str | None:
    """The metric that a change is named by: the weighted quantile loss, else MSE, else MAE; None without any."""
    known = cost.median.change_percent
    return next((key for key in ("wql", "mse", "mae") if known.get(key) is not None), None)


def headline(report: Report) -> Html:
    """The result in a sentence or two."""
    parity, cost = report.verdicts.parity, report.verdicts.cost
    said = []
    if parity:
        rows = f"{parity.rows} series in {parity.cases} cases"
        what = "The exported files" if report.verdicts.precision is None else "In float32, the exported files"
        said.append(
            f"{what} compute what PyTorch computes with the same merging ({rows})."
            if parity.passed
            else f"{what} do NOT compute what PyTorch computes ({rows}): do not use them."
        )
    if cost and cost.speed:
        key = main_metric(cost)
        words = f"On this machine merging makes a call {speed(cost.speed.ratio)}"
        if key is not None:
            moved = change(cost.median.change_percent[key])
            words += f"; the {METRIC_NAMES[key]} of {cost.data} changes by {moved}{_worst_words(cost, key)}"
        if cost.original is not None:
            words += f", both against {cost.original}, unmerged"
        said.append(words + ".")
    elif parity and parity.passed:
        said.append("Nothing is merged.")
    said += precision_sentence(report)
    return tag("p", " ".join(said), class_="lead")


def tiles(report: Report) -> Html:
    """Parity, speed, error and tokens as figures."""
    verdicts = report.verdicts
    made = [_parity_tile(verdicts.parity), *_cost_tiles(verdicts.cost), *precision_tiles(report)]
    made.append(_tokens_tile(report))
    return tag("ul", *(one for one in made if one), class_="tiles")


def _parity_tile(parity: Parity | None) -> Html:
    if parity is None:
        return Html("")
    good = parity.passed
    more = f"largest error {number(parity.max_rel, 3)} of the output's scale"
    return tile("Parity with PyTorch", "passed" if good else "FAILED", more, "bad" if not good else "good")


def _cost_tiles(cost: Cost | None) -> list[Html]:
    if cost is None:
        return [tile("Merge cost", "not measured", "nothing is merged, or parity failed")]
    made = []
    timed = cost.speed
    if timed is not None:
        ratio = timed.ratio
        times = f"{timed.unmerged_ms:.2f} ms \u2192 {timed.merged_ms:.2f} ms per call, {speed_place(timed)}"
        made.append(
            tile(
                "Speed",
                speed(ratio),
                times,
                "warn" if within_noise(ratio) else "good" if ratio > 1 else "bad",
            )
        )
    key = main_metric(cost)
    if key is not None:
        known = cost.median.change_percent
        moved = {name: value for name in METRIC_NAMES if (value := known.get(name)) is not None}
        value = moved[key]
        others = ", ".join(
            f"{name.upper()} {change(moved[name])}"
            for name in ("mse", "mae")
            if name != key and name in moved
        )
        others += _worst_words(cost, key)
        worst = max(moved.values())
        kind = "good" if worst <= _NOTABLE else "warn" if worst <= 10 * _NOTABLE else "bad"
        made.append(tile(f"Change of the {METRIC_NAMES[key]}", change(value), others, kind))
    elif not cost.comparable:
        more = "the same weights unmerged are no rival; give the model that they were distilled from"
        made.append(tile("Change of the error", "not told", more, "warn"))
    return made


def _worst_words(cost: Cost, metric: str) -> str:
    worst = worst_column(cost, metric)
    if worst is None:
        return ""
    return f" (median of the columns; worst: {column_name(worst.column)} {change(worst.percent)})"


def _tokens_tile(report: Report) -> Html:
    counts = token_counts(report)
    if counts is None:
        return Html("")
    first, last, where, products = counts
    more = f"{where}, {change(100 * (last / first - 1))}" if first else where
    if products.ratio:
        more += f"; matrix products there: {fewer(products.ratio)}"
    return tile("Tokens, first to last layer", f"{first} \u2192 {last}", more)


def token_counts(report: Report) -> tuple[int, int, str, Products] | None:
    """Tokens before the first and after the last merge, where, and the matrix products there.

    All of the history of the example; without an example, all as inspect counts them.
    """
    tokens = None if report.example is None else report.example.tokens
    if tokens is not None and tokens.layers:
        return (
            tokens.count,
            len(tokens.layers[-1].kept),
            f"of a history of {tokens.steps} steps",
            tokens.flops,
        )
    for part in report.tokens:
        if part.merges:
            where = f"at batch {part.batch}, length {part.length}"
            if any(merge.data_dependent for merge in part.merges):
                where += " of generated input"
            return part.merges[0].before, part.merges[-1].after, where, part.flops
    return None


def verdict_sections(report: Report) -> Html:
    """The verdicts with all their figures."""
    verdicts = report.verdicts
    quantised = verdicts.precision is not None
    return join((_parity(verdicts.parity, quantised), _cost(verdicts.cost), precision_section(report)))


def _parity(parity: Parity | None, quantised: bool) -> Html:
    if parity is None:
        return Html("")
    told = tag(
        "p",
        "The exported files against the original eager model, with the reference merging applied, over random, "
        "constant, periodic, gappy, padded, huge and tiny series at sizes other than the export's.",
        " Proved of the float32 files that those of this bundle were quantised from." if quantised else "",
    )
    parts = [told, table(("", ""), parity_rows(parity), name="Parity", words=2)]
    for one in parity.components:
        rows = [
            (case.name, str(case.rows), str(case.flips), str(case.mismatches), number(case.max_rel, 3))
            for case in one.details or ()
        ]
        if rows:
            header = ("case", "series", "flips", "mismatches", "largest error")
            cases = table(header, rows, name=f"Cases of {one.name}")
            summary = tag("summary", f"component {one.name}: {len(rows)} cases")
            parts.append(tag("details", summary, cases))
    return section("Parity", "parity", *parts)


def _cost(cost: Cost | None) -> Html:
    if cost is None:
        return Html("")
    told = tag(
        "p",
        f"Measured on {cost_title(cost)}; medians over columns, the change being that of the columns' own changes. "
        "Both files in ONNX Runtime on the CPU, timed in turns in one run.",
    )
    figures = table(("", cost.unmerged_words, "merged", "change"), cost_rows(cost), name="Merge cost")
    notes = [tag("p", note, class_="note") for note in cost.notes]
    rows = []
    for column in cost.columns:
        before, after, naive = column.unmerged, column.merged, column.naive
        for key, words in METRIC_NAMES.items():
            if before.get(key) is None and after.get(key) is None:
                continue
            values = (before.get(key), after.get(key), naive.get(key))
            rows.append((column.column, words, *map(number, values)))
    details: list[Html] = []
    if rows:
        header = ("column", "metric", cost.unmerged_words, "merged", "seasonal naive")
        details.append(
            tag(
                "details",
                tag("summary", f"all {len(cost.columns)} columns"),
                table(header, rows, name="Merge cost by column", words=2),
            )
        )
    return section("Merge cost", "cost", told, *notes, figures, *details)
