"""``report.html`` of a distilled checkpoint, and its part on the page of a bundle that is made from one."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from tsmerge_export.bundle.distillation import Course, Distillation, DistillReport, report_of_distillation
from tsmerge_export.console.figures import change
from tsmerge_export.report import distillation as words
from tsmerge_export.report.html.chart import Axes, Points, span_of
from tsmerge_export.report.html.commands import merge_flags
from tsmerge_export.report.html.document import document
from tsmerge_export.report.html.markup import Html, code, join, legend, section, table, tag
from tsmerge_export.report.html.speed import bent_axes

#: Classes of lines, one after the other; a page has a handful of settings.
_KINDS = ("merged", "truth", "history", "budget", "now")


def distillation_page(content: DistillReport | Mapping[str, Any]) -> str:
    """The page: what came out, the learning curve, how it was made.

    Args:
        content: of ``report.json``, typed or as it stands there.

    Returns:
        HTML, the same for the same report. Everything that came from a user is escaped.
    """
    report = content if isinstance(content, DistillReport) else report_of_distillation(content)
    trained = report.trained_for
    title = f"{report.family}, distilled for {words.setting_words(trained.merge)}"
    head = tag(
        "header", tag("h1", title), tag("p", f"{report.source}, distilled {report.created}", class_="sub"),
        tag("p", _sentence(words.goal(report)), class_="note good" if report.met else "note bad"),
        *(tag("p", note, class_="note") for note in report.notes),
    )  # fmt: skip
    main = tag(
        "main",
        section("What it is worth", "scores", *_scores(report)),
        section("Learning curve", "curve", *curves(report)),
        section("Settings and versions", "settings", *_settings(report)),
        section("Use it, make it again", "again", *_again(report)),
    )
    foot = tag("footer", tag("p", "Every figure here is in report.json. Made by tsmerge-export."))
    return document(title, join((head, main, foot)))


def distillation_section(found: Distillation | None) -> Html:
    """The part of a bundle's page; nothing where its checkpoint has no record."""
    if found is None:
        return Html("")
    kind = "note good" if found.met else "note bad"
    return section(
        "How the weights were distilled", "distillation", tag("p", _sentence(words.goal(found)), class_=kind),
        *_scores(found), *curves(found),
    )  # fmt: skip


def _scores(found: Distillation) -> list[Html]:
    if not found.scores:
        return []
    speeds = found.speeds if isinstance(found, DistillReport) else ()
    header, rows = words.score_table(found, speeds)
    said = [_sentence(words.AGAINST)]
    if speeds:
        said.append(_sentence(words.speed_words(speeds, found.recipe.precision)))
    absolute = [
        (
            score.data,
            words.setting_words(score.setting),
            side,
            *(_figure(values.get(m)) for m in words.METRICS),
        )
        for score in found.scores
        for side, values in score.absolute.items()
    ]
    parts = [tag("p", " ".join(said), class_="sub"), table(header, rows, name="Before and after", words=2)]
    if absolute:
        header = ("data", "setting", "weights", *words.METRICS.values())
        inner = table(header, absolute, name="The errors themselves", words=3)
        parts.append(tag("details", tag("summary", "The errors themselves, medians over columns"), inner))
    return parts


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def curves(found: Distillation) -> list[Html]:
    """Validation and loss against the step."""
    drawn = [tag("p", _sentence(words.course_words(found)), class_="sub")]
    pictures = [one for one in (_validation(found), _losses(found.history)) if one]
    return [*drawn, tag("div", *pictures, class_="pictures")] if pictures else drawn


def _validation(found: Distillation) -> Html:
    curve = found.history.curve
    names = list(dict.fromkeys(name for look in curve for name in look.increase))
    lines: dict[str, Points] = {
        (f"ratio {name}" if _is_ratio(name) else name): [
            (look.step, look.increase.get(name)) for look in curve
        ]
        for name in names
    }
    if found.control is not None:
        lines["control"] = [(look.step, look.mean) for look in found.control.curve]
    return _picture(
        lines, "validation: change against the original unmerged, %", "Validation in the course of the training",
        mark=found.history.best_step,
    )  # fmt: skip


def _losses(history: Course) -> Html:
    rows = [row for row in history.losses if len(row) == 3 and row[0] is not None]
    lines: dict[str, Points] = {
        "loss against the future": [(row[0] or 0.0, row[1]) for row in rows],
        "distance to the teacher": [(row[0] or 0.0, row[2]) for row in rows],
    }
    return _picture(lines, "loss", "Loss in the course of the training")


def _picture(lines: Mapping[str, Points], y_name: str, title: str, mark: float | None = None) -> Html:
    every = [point for points in lines.values() for point in points]
    if not every:
        return Html("")
    steps, values = [point[0] for point in every], [point[1] for point in every if point[1] is not None]
    if mark is None or not values:
        axes = Axes(span_of(steps), span_of(values), "step", y_name)
    else:
        axes = bent_axes(steps, values, "step", y_name)
    drawn = [] if mark is None else [axes.vertical(mark, "now")]
    keys = []
    for index, (name, points) in enumerate(lines.items()):
        kind = _KINDS[index % len(_KINDS)]
        drawn.append(axes.line(points, kind))
        keys.append((tag("path", d="M1 6H21", class_=f"line {kind}"), name))
    described = f"{len(lines)} lines, {len(every)} points"
    return tag("figure", axes.svg(title, described, *drawn), legend(keys))


def _is_ratio(name: str) -> bool:
    return name.replace("/", "").isdigit()


def _settings(report: DistillReport) -> list[Html]:
    trained, recipe = report.trained_for, report.recipe
    unmerged = "-" if trained.unmerged is None else change(100 * trained.unmerged)
    rows = [
        ("source", report.source),
        ("family", report.family),
        ("data", ", ".join(report.data) or "synthetic series"),
        ("trained for", trained.describe()),
        ("unmerged, on validation", unmerged),
        *((name.replace("_", "-"), _said(value)) for name, value in vars(recipe).items()),
    ]
    return [
        table(("", ""), rows, name="Settings", words=2),
        tag("h3", "Versions"),
        table(("", ""), list(report.versions.items()), name="Versions", words=2),
    ]


def _said(value: object) -> str:
    if value is None:
        return "default"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _again(report: DistillReport) -> list[Html]:
    folder = report.output or "this folder"
    return [
        tag("h3", "Export it, merged as it was trained for"),
        code(shlex.join(["tsmerge-export", folder])),
        tag("h3", "Distill again"),
        code(shlex.join(command(report))),
    ]


def command(report: DistillReport) -> list[str]:
    """The command that made it, in words."""
    recipe, merge = report.recipe, report.trained_for.merge
    out = ["tsmerge", "distill", report.source, *merge_flags(merge.to_dict())]
    if report.data:
        out += ["--data", *report.data, *report.table]
    usual = type(recipe)()
    for name, value in vars(recipe).items():
        if value is None or value == getattr(usual, name) or (name == "budget" and recipe.steps is not None):
            continue
        flag = f"--{name.replace('_', '-')}"
        if name == "budget":
            out += [flag, f"{value:g}s"]
        elif name == "max_increase":
            out += [flag, f"{100 * value:g}%"]
        elif value is True:
            out.append(flag)
        else:
            out += [flag, ",".join(value) if isinstance(value, tuple) else str(value)]
    return out if report.output is None else [*out, "-o", report.output]
