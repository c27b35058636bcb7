"""The third verdict on the page, apart from the other two."""

from __future__ import annotations

from tsmerge_export.bundle.report import Report
from tsmerge_export.console.figures import change, speed
from tsmerge_export.report.html.markup import Html, section, table, tag, tile
from tsmerge_export.report.precision import (
    PRECISION_HEADER,
    SENSITIVITY_HEADER,
    precision_rows,
    precision_summary,
    precision_title,
    precision_words,
    sensitivity_rows,
)
from tsmerge_export.report.text import METRIC_NAMES

#: A rise of the error by more than this many per cent is pointed out.
_NOTABLE = 1.0


def precision_sentence(report: Report) -> list[str]:
    """What the precision does, in a sentence; none of float32 files."""
    cost, entry = report.verdicts.precision, report.precision
    if cost is None or entry is None:
        return []
    if not cost.passed:
        return [f"The files in {entry.kind} did NOT pass: do not use them."]
    said = [] if cost.speed is None else [f"a call is {speed(cost.speed.ratio)} than in float32"]
    wql = cost.changes.get("wql")
    if wql is not None:
        said.append(
            f"the {METRIC_NAMES['wql']} changes by {change(wql.median_percent)} over the float32 files"
        )
    return [f"In {entry.kind} {'; '.join(said)}."] if said else []


def precision_tiles(report: Report) -> list[Html]:
    """What the precision costs, as a figure."""
    cost, entry = report.verdicts.precision, report.precision
    if cost is None or entry is None:
        return []
    wql = cost.changes.get("wql")
    moved = max((value for value in cost.outputs.values() if value is not None), default=None)
    value = "passed" if cost.passed else "FAILED"
    kind = "good" if cost.passed else "bad"
    if cost.passed and wql is not None:
        value = change(wql.median_percent)
        kind = "good" if (wql.median_percent or 0) <= _NOTABLE else "warn"
    elif cost.passed and moved is not None:
        value = f"outputs move by {100 * moved:.2g} %"
    parts = entry.components.values()
    share = sum(part.bytes for part in parts) / sum(part.float32_bytes for part in parts)
    times = "" if cost.speed is None else f", {speed(cost.speed.ratio)}"
    return [
        tile(f"Precision cost of {entry.kind}", value, f"{share:.2f} times the size of float32{times}", kind)
    ]


def precision_section(report: Report) -> Html:
    """The verdict with all its figures; nothing of float32 files."""
    cost, entry = report.verdicts.precision, report.precision
    if cost is None or entry is None:
        return Html("")
    told = tag(
        "p",
        precision_summary(entry),
        f" Measured against the float32 files that they were made from, on {precision_title(cost)}: ",
        f"{precision_words(cost)}. Parity and merge cost are those of the float32 files.",
    )
    found = [tag("p", text, class_="note bad") for text in cost.failures[:5]]
    found += [tag("p", note, class_="note") for note in cost.notes]
    figures = [table(PRECISION_HEADER, precision_rows(cost), name="Precision cost")]
    if entry.sensitivity is not None and entry.sensitivity.products:
        figures.append(tag("h3", "What a low precision hurts"))
        rows = sensitivity_rows(entry.sensitivity)
        figures.append(table(SENSITIVITY_HEADER, rows, name="What a low precision hurts"))
    return section("Precision cost", "precision", told, *found, *figures)
