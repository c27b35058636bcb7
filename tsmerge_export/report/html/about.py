"""Barriers, settings, components, targets, versions, limits, and how to make the bundle again."""

from __future__ import annotations

from tsmerge_export import backends
from tsmerge_export.backends.describe import Block, Code, Heading, Text
from tsmerge_export.bundle.report import Report
from tsmerge_export.ops import SCHEMAS
from tsmerge_export.report.html.commands import GRAPH, commands
from tsmerge_export.report.html.markup import Html, code, section, table, tag
from tsmerge_export.report.target import target_blocks
from tsmerge_export.report.text import barrier_text, original_rows, trained_rows


def barriers(report: Report) -> list[str]:
    """A line for each barrier of each component."""
    return [
        f"{component.name}: {barrier_text(barrier)}"
        for component in report.components
        for barrier in component.barriers
    ]


def about_sections(report: Report) -> list[Html]:
    """Everything that stands below the results."""
    return [
        section("Barriers", "barriers", *_barriers(report)),
        section("What was exported", "components", *_components(report)),
        _target(report),
        section("Settings and versions", "settings", *_settings(report)),
        section("Make it again", "again", *_again(report)),
        section("Limits", "limits", tag("p", _limits(report))),
    ]


def _barriers(report: Report) -> list[Html]:
    found = barriers(report)
    if not found:
        return [tag("p", "None: tokens stay merged from their layer to the output.")]
    told = "Operators that need all tokens: they are unmerged before them, which takes away speed."
    return [tag("p", told), tag("ul", *(tag("li", one) for one in found))]


def _components(report: Report) -> list[Html]:
    rows = []
    for component in report.components:
        shapes = [
            ", ".join(f"{tensor.name} {tensor.dtype}[{', '.join(map(str, tensor.dims))}]" for tensor in side)
            for side in (component.inputs, component.outputs)
        ]
        if component.ratio is not None:
            shapes[0] += (
                f", {component.ratio.input} float32[] (chosen at run time; {component.ratio.default})"
            )
        rows.append((component.name, component.file, *shapes, str(len(component.merges))))
    header = ("component", "file", "inputs", "outputs", "merge points")
    return [table(header, rows, name="Components", words=4)]


def _settings(report: Report) -> list[Html]:
    merge = [
        (name.replace("_", "-"), ", ".join(map(str, value)) if isinstance(value, list) else str(value))
        for name, value in report.merge.items()
        if value is not None
    ]
    run = report.run
    named = {name: getattr(report, name) for name in ("source", "family", "opset", "created")}
    known = {name: str(value) for name, value in named.items() if value is not None}
    rows = [
        *((name, known[name]) for name in ("source", "family") if name in known),
        *merge,
        *trained_rows(report),
        *original_rows(report),
        *((name, known[name]) for name in ("opset", "created") if name in known),
        ("functions", "inlined" if report.inline else "model-local"),
        ("data", run.data or (f"example {run.inputs}" if run.inputs else _own_data(report))),
        ("threads", str(run.threads or "the runtime's choice")),
        ("seed", str(run.seed)),
        ("providers", ", ".join(report.providers)),
    ]
    versions = list(report.versions.items())
    return [
        table(("", ""), rows, name="Settings", words=2),
        tag("h3", "Versions"),
        table(("", ""), versions, name="Versions", words=2),
    ]


def _own_data(report: Report) -> str:
    """What was run on where the user named nothing."""
    return "generated inputs" if report.family == GRAPH else "the sample series"


def _again(report: Report) -> list[Html]:
    out = []
    for what, command in commands(report):
        out += [tag("h3", what[0].upper() + what[1:]), code(command)]
    return out


def _target(report: Report) -> Html:
    blocks = target_blocks(report.of_target)
    if report.target is None or not blocks:
        return Html("")
    return section(report.target.runtime, "target", *map(_laid_out, blocks))


def _laid_out(block: Block) -> Html:
    if isinstance(block, Text):
        return tag("p", block.text, class_="note") if block.caveat else tag("p", block.text)
    if isinstance(block, Heading):
        return tag("h3", block.text)
    if isinstance(block, Code):
        return code(block.text)
    return table(block.header, block.rows, name=block.name)


def _limits(report: Report) -> str:
    said = [backends.limits(report.of_target)]
    types = report.merge_types
    if types:
        said.append(
            "Merging decides over the whole row, and an unmerged output holds copies: single tokens are not causal."
        )
    if any(name in SCHEMAS and SCHEMAS[name].data_dependent for name in types):
        said.append(
            "How many tokens merge is decided over the whole batch: a forecast depends on the series beside it."
        )
    said.append("The figures hold for that data and that machine; measure on your own.")
    return " ".join(said)
