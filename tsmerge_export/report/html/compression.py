"""The part of a bundle's page on how its weights were compressed."""

from __future__ import annotations

import shlex

from tsmerge_export.bundle.compression import ORIGINAL, QUANTISE, STEPS, Compression
from tsmerge_export.console.figures import change
from tsmerge_export.report import compression as words
from tsmerge_export.report.html.commands import merge_flags
from tsmerge_export.report.html.markup import Html, code, legend, section, table, tag
from tsmerge_export.report.html.speed import bent_axes


def compression_section(found: Compression | None) -> Html:
    """Table, picture and command; nothing where the weights were not compressed."""
    if found is None:
        return Html("")
    header, rows = words.compression_table(found)
    said = [tag("p", f"{one[0].upper()}{one[1:]}.", class_="note") for one in words.words(found)]
    return section(
        "How the weights were compressed",
        "compression",
        tag("p", f"{words.ABOUT}.", class_="sub"),
        table(header, rows, name="Steps of the compression", words=2),
        *said,
        _picture(found),
        tag("p", f"{words.tried_words(found)}.", class_="sub"),
        tag("h3", "Compress again"),
        code(shlex.join(command(found))),
    )


def _picture(found: Compression) -> Html:
    """Error on the test part against size: of the files as they are, and with gzip."""
    first = found.steps[0].bytes
    lines: dict[str, list[tuple[float, float, str]]] = {"on-front": [], "tried": []}
    for step in found.steps:
        moved = 0.0 if step.step == ORIGINAL else step.test_percent
        if not first or moved is None:
            continue
        for kind, size in (("on-front", step.bytes), ("tried", step.gzip_bytes)):
            if size is not None:
                named = step.step if step.degree is None else f"{step.step}, {step.degree}"
                lines[kind].append(
                    (size / first, moved, f"{named}: {size / first:.2f} of the size, {change(moved)}")
                )
    points = [point for line in lines.values() for point in line]
    if not points:
        return Html("")
    axes = bent_axes(
        [0.0, *(x for x, *_ in points)], [found.max_increase_percent, *(y for _, y, _ in points)],
        "size of the files, of the original's", f"change of {found.metric} on the test part, %",
    )  # fmt: skip
    drawn = [axes.horizontal(found.max_increase_percent, "budget")]
    for kind, line in lines.items():
        drawn.append(tag("path", d=axes.path([(x, y) for x, y, _ in line]), class_="line now"))
        drawn += [axes.dot(x, y, kind, said, 5) for x, y, said in line]
    described = (
        f"{len(lines['on-front'])} points of files as they are, {len(lines['tried'])} of files with gzip"
    )
    keys = [
        (tag("circle", cx="11", cy="6", r="5", class_=kind), name)
        for kind, name in (("on-front", "as it is"), ("tried", "with gzip"))
    ]
    return tag("figure", axes.svg("Error against size, step by step", described, *drawn), legend(keys))


def command(found: Compression) -> list[str]:
    """The command that made it, in words."""
    out = ["tsmerge", "compress", found.source, *merge_flags(found.merge)]
    if found.data is not None:
        out += ["--data", found.data, *found.table]
    out += ["--max-increase", f"{found.max_increase_percent:g}%"]
    if found.asked != STEPS:
        out += ["--steps", ",".join(found.asked)]
    if QUANTISE in found.asked and found.kinds:
        out += ["--precision", ",".join(found.kinds)]
    for flag, value in (
        ("--length", found.context), ("--windows", found.windows), ("--batch", found.batch),
        ("--threads", found.threads), ("--seed", found.seed or None),
    ):  # fmt: skip
        out += [] if value is None else [flag, str(value)]
    return out if found.output is None else [*out, "-o", found.output]
