"""Forecasts of the merged and the unmerged file over the same history."""

from __future__ import annotations

from collections.abc import Sequence

from tsmerge_export.bundle.example import Band, Series
from tsmerge_export.bundle.report import Report
from tsmerge_export.report.html.chart import Axes, label, span_of
from tsmerge_export.report.html.markup import Html, legend, section, tag

_LEAST_HISTORY = 48


def forecast_section(report: Report) -> Html:
    """A picture for each series of ``example``; where the report has none, why that is so."""
    example, title = report.example, "Forecasts over the same history"
    if example is None or not example.series or len(example.levels) != 3:
        return section(title, "forecasts", tag("p", f"No forecast is shown: {_why_none(report)}."))
    low, middle, high = example.levels
    cost = report.verdicts.cost
    told = (
        "The last window of the data, in ONNX Runtime. Lines are the medians, areas reach from the quantile "
        f"{label(low)} to {label(high)}."
        if abs(middle - 0.5) < 1e-9
        else f"The last window of the data. Lines are the quantile {label(middle)}, areas reach from {label(low)} to "
        f"{label(high)}."
    )
    keys = (
        ("history", "history"),
        ("truth", "what came"),
        ("unmerged", f"forecast, {'unmerged' if cost is None else cost.unmerged_words}"),
        ("merged", "forecast, merged"),
    )
    keyed = legend((tag("path", d="M0 6L22 6", class_=f"line {kind}"), words) for kind, words in keys)
    pictures = tag("div", *map(_figure, example.series), class_="pictures")
    return section(title, "forecasts", tag("p", told), keyed, pictures)


def _why_none(report: Report) -> str:
    """Why an export made no forecasts to look at."""
    if not report.setting.active:
        return "nothing merges here, so that there are no two forecasts to compare"
    if report.graph is not None:
        return "what the outputs of a graph from a file mean is not known"
    return "there is no merge cost" if report.verdicts.cost is None else "the export made none"


def _figure(one: Series) -> Html:
    target, history = one.target, one.history
    sides: dict[str, Band] = {"unmerged": one.unmerged, "merged": one.merged}
    horizon = len(target)
    shown = min(len(history), max(3 * horizon, _LEAST_HISTORY))
    past = list(enumerate(history[-shown:], -shown))
    values = [y for _, y in past] + list(target)
    for band in sides.values():
        values += [*band.low, *band.high, *band.median]
    axes = Axes((-shown, max(1, horizon - 1)), span_of(values), "steps from the forecast's start", one.column)
    drawn = [axes.vertical(0, "now")]
    for side, band in sides.items():
        drawn.append(axes.band(_steps(band.low), _steps(band.high), side))
    # Where both forecasts are one, the broad unmerged line is seen on both sides of the merged one.
    drawn.append(axes.line(_steps(one.unmerged.median), "unmerged", radius=7))
    drawn += [axes.line(past, "history"), axes.line(_steps(target), "truth")]
    drawn.append(axes.line(_steps(one.merged.median), "merged"))
    title = f"Forecasts of {one.column}, merged and unmerged"
    words = f"{len(history)} steps of history ({shown} shown), {horizon} of forecast."
    gap = _gap(one.unmerged.median, one.merged.median)
    apart = "" if gap is None else f" The two medians differ by at most {label(gap)}."
    row = f"It starts at row {one.first_row} of the data."
    caption = tag("figcaption", tag("strong", one.column), f": {one.role}. {words}{apart} {row}")
    return tag("figure", axes.svg(title, words + apart, *drawn), caption)


def _steps(values: Sequence[float | None]) -> list[tuple[float, float | None]]:
    return [(float(step), value) for step, value in enumerate(values)]


def _gap(first: Sequence[float | None], second: Sequence[float | None]) -> float | None:
    gaps = [abs(a - b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    return max(gaps, default=None)
