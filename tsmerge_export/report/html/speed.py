"""Speed against error, and where the time went."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import PurePath

from tsmerge_export.bundle.report import Report
from tsmerge_export.bundle.search import Search, Tried, setting_words
from tsmerge_export.console.figures import change
from tsmerge_export.report.html.chart import Axes, ticks
from tsmerge_export.report.html.markup import Html, bar, join, section, table, tag
from tsmerge_export.report.html.verdicts import main_metric
from tsmerge_export.report.text import METRIC_NAMES
from tsmerge_export.settings.config import MergeConfig

_LINEAR = 10.0  # per cent; beyond it the axis is logarithmic
_MARKS = (-1000, -300, -100, -30, -10, -5, 0, 5, 10, 30, 100, 300, 1000, 10000)


def pareto_section(report: Report) -> Html:
    """The front of the search that chose the setting; without a search, the two files of this bundle."""
    if report.search is not None:
        return section("Speed against error", "pareto", *_searched(report.search))
    cost = report.verdicts.cost
    key = None if cost is None else main_metric(cost)
    if cost is None or key is None or cost.speed is None:
        return Html("")
    ratio, moved, rival = cost.speed.ratio, cost.median.change_percent[key] or 0.0, cost.unmerged_words
    axes = bent_axes(
        [1.0, ratio], [0.0, moved], f"speed-up over {rival}", f"change of {METRIC_NAMES[key]}, %"
    )
    drawn = [
        axes.vertical(1, "now"),
        axes.dot(1, 0, "tried", rival),
        axes.dot(
            ratio,
            moved,
            "on-front",
            f"merged: {ratio:.2f} times as fast, {change(moved)}",
            6,
        ),
    ]
    words = f"{rival} at 1 and 0 %, merged at {ratio:.2f} and {change(moved)}"
    told = (
        "No search was made for this bundle: these are its two files. To find the fastest setting within an error "
        "budget on your data, run tsmerge tune (below)."
    )
    figure = tag(
        "figure",
        axes.svg("Speed against error of merged and unmerged", words, *drawn),
        tag("figcaption", f"{words[0].upper()}{words[1:]}. Down and to the right is better."),
    )
    return section("Speed against error", "pareto", tag("p", told), figure)


def _bend(value: float) -> float:
    """Linear up to ten per cent, logarithmic beyond."""
    size = abs(value)
    return math.copysign(size / _LINEAR if size <= _LINEAR else 1 + math.log10(size / _LINEAR), value)


def bent_axes(x: Sequence[float], y: Sequence[float], x_name: str, y_name: str) -> Axes:
    """Axes for these points; where a y, in per cent, is far from 0, linear up to ten and logarithmic beyond."""
    right = max(x) + 0.08 * (max(x) - min(x) or 1.0)
    left = min(x) - 0.08 * (max(x) - min(x) or 1.0)
    low, high = min(y), max(y)
    room = 0.1 * (high - low) or 1.0
    if max(abs(low), abs(high)) <= 2 * _LINEAR:
        return Axes((left, right), (low - room, high + room), x_name, y_name)
    low, high = low * (1.3 if low < -1 else 1) - 1, high * (1.3 if high > 1 else 1) + 1
    marks = [mark for mark in _MARKS if low <= mark <= high]
    return Axes((left, right), (low, high), x_name, y_name, _bend, marks or ticks(low, high))


def _searched(search: Search) -> list[Html]:
    metric, most = search.identity.metric, search.max_increase_percent
    every = search.tried
    tried = [one for one in every if one.error is None]
    front = [every[index] for index in search.front if 0 <= index < len(every)]
    several = len({one.source for one in every}) > 1
    axes = bent_axes(
        [one.place[0] for one in tried] + [1.0],
        [one.place[1] for one in tried] + [most, 0.0],
        "speed-up over the unmerged reference",
        f"change of {metric} on validation, 90 % bound, %",
    )
    drawn = [axes.vertical(1, "now"), axes.horizontal(most, "budget")]
    points = [one.place for one in front]
    stairs = [points[0]] if points else []
    for (_, before), (x, y) in pairwise(points):
        stairs += [(x, before), (x, y)]
    drawn.append(tag("path", d=axes.path(stairs), class_="line front"))
    for one in tried:
        kind = "on-front" if one in front else "tried"
        said = f"{_name(one, several)}: {one.place[0]:.2f} times as fast, {change(one.upper_percent)}"
        drawn.append(axes.dot(*one.place, kind, said, 4 if kind == "on-front" else 3))
    fastest = search.answer.fastest
    if fastest is not None:
        drawn.append(axes.dot(*fastest.place, "chosen", "this bundle", 8))
    failed = len(every) - len(tried)
    told = (
        f"tsmerge tune tried {len(every)} settings"
        + (f", of which {failed} failed" if failed else "")
        + f"; the budget was an increase of {metric} by {most:g} % with 90 % confidence on validation windows. "
        "The ring is this bundle. Down and to the right is better."
    )
    rows = [
        (
            _name(one, several),
            change(one.increase_percent),
            change(one.upper_percent),
            f"{one.place[0]:.2f}",
            "yes" if one.place[1] <= most else "no",
        )
        for one in front
    ]
    header = ("setting", f"{metric} (validation)", "at most", "speed-up", "within budget")
    finals = [
        (
            _name(one, several) + (" (this bundle)" if one == fastest else ""),
            change(test.increase_percent),
            f"{test.speedup:.2f}",
        )
        for one in search.answer.finals
        if (test := one.test) is not None
    ]
    reasons = [tag("p", reason, class_="note good") for reason in search.answer.reasons]
    figure = tag(
        "figure",
        axes.svg("Pareto front of the search", f"{len(tried)} settings, {len(front)} on the front", *drawn),
    )
    return [
        tag("p", told),
        *reasons,
        figure,
        tag("h3", "The front"),
        table(header, rows, name="Pareto front"),
        tag("h3", "Finalists on the test split, which the search did not see"),
        table(("setting", f"{metric} (test)", "speed-up"), finals, name="Finalists on the test split"),
    ]


def _name(one: Tried, several: bool) -> str:
    words = setting_words(MergeConfig.from_dict(one.merge), one.precision, one.meant)
    return f"{PurePath(one.source).name}: {words}" if several else words


def time_section(report: Report) -> Html:
    """Seconds by step of the export, and the share of a call that goes into merging."""
    parts: list[Html] = []
    share = None if report.example is None else report.example.merge_share
    speed = None if report.verdicts.cost is None else report.verdicts.cost.speed
    if share is not None and speed is not None:
        rows = [
            ("the model", f"{100 * (1 - share):.1f} %", bar(1 - share)),
            ("merging, and what it makes follow", f"{100 * share:.1f} %", bar(share, "part")),
        ]
        where = (
            f"One call of the merged file ({speed.merged_ms:.2f} ms), by ONNX Runtime's profile of its nodes."
        )
        parts += [
            tag("h3", "At run time"),
            tag("p", where, class_="sub"),
            table(("part", "share", ""), rows, name="Time at run time"),
        ]
    seconds = report.seconds
    if seconds:
        most = max(seconds.values()) or 1.0
        rows = [(name, f"{value:.2f} s", bar(value / most)) for name, value in seconds.items()]
        rows.append(("all", f"{sum(seconds.values()):.2f} s", Html("")))
        parts += [
            tag("h3", "To make this bundle"),
            table(("step", "time", ""), rows, name="Time of the export"),
        ]
    return section("Time per stage", "time", join(parts)) if parts else Html("")
