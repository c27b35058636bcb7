"""Barriers, settings, components, targets, versions, limits, and how to make the bundle again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsmerge_export import backends
from tsmerge_export.backends.describe import Block, Code, Heading, Text
from tsmerge_export.ops import SCHEMAS
from tsmerge_export.report.html.commands import GRAPH, commands
from tsmerge_export.report.html.markup import Html, code, section, table, tag
from tsmerge_export.report.target import target_blocks
from tsmerge_export.report.text import barrier_text


def barriers(report: Mapping[str, Any]) -> list[str]:
    """A line for each barrier of each component."""
    return [
        f"{component.get('name')}: {barrier_text(barrier)}"
        for component in report.get("components") or ()
        for barrier in component.get("barriers") or ()
    ]


def about_sections(report: Mapping[str, Any]) -> list[Html]:
    """Everything that stands below the results."""
    return [
        section("Barriers", "barriers", *_barriers(report)),
        section("What was exported", "components", *_components(report)),
        _target(report),
        section("Settings and versions", "settings", *_settings(report)),
        section("Make it again", "again", *_again(report)),
        section("Limits", "limits", tag("p", _limits(report))),
    ]


def _barriers(report: Mapping[str, Any]) -> list[Html]:
    found = barriers(report)
    if not found:
        return [tag("p", "None: tokens stay merged from their layer to the output.")]
    told = "Operators that need all tokens: they are unmerged before them, which takes away speed."
    return [tag("p", told), tag("ul", *(tag("li", one) for one in found))]


def _components(report: Mapping[str, Any]) -> list[Html]:
    rows = []
    for component in report["components"]:
        shapes = [
            ", ".join(
                f"{tensor['name']} {tensor['dtype']}[{', '.join(map(str, tensor['dims']))}]"
                for tensor in component[kind]
            )
            for kind in ("inputs", "outputs")
        ]
        rows.append((component["name"], component["file"], *shapes, str(len(component.get("merges") or ()))))
    header = ("component", "file", "inputs", "outputs", "merge points")
    return [table(header, rows, name="Components", words=4)]


def _settings(report: Mapping[str, Any]) -> list[Html]:
    merge = [
        (name.replace("_", "-"), ", ".join(map(str, value)) if isinstance(value, list) else str(value))
        for name, value in report["merge"].items()
        if value is not None
    ]
    run = report.get("run") or {}
    rows = [
        *((name, str(report[name])) for name in ("source", "family") if name in report),
        *merge,
        *((name, str(report[name])) for name in ("opset", "created") if name in report),
        ("functions", "inlined" if report.get("inline") else "model-local"),
        (
            "data",
            str(run.get("data") or (f"example {run['inputs']}" if run.get("inputs") else _own_data(report))),
        ),
        ("threads", str(run.get("threads") or "the runtime's choice")),
        ("seed", str(run.get("seed", 0))),
    ]
    versions = list((report.get("versions") or {}).items())
    return [
        table(("", ""), rows, name="Settings", words=2),
        tag("h3", "Versions"),
        table(("", ""), versions, name="Versions", words=2),
    ]


def _own_data(report: Mapping[str, Any]) -> str:
    """What was run on where the user named nothing."""
    return "generated inputs" if report.get("family") == GRAPH else "the sample series"


def _again(report: Mapping[str, Any]) -> list[Html]:
    out = []
    for what, command in commands(report):
        out += [tag("h3", what[0].upper() + what[1:]), code(command)]
    return out


def _target(report: Mapping[str, Any]) -> Html:
    blocks = target_blocks(report)
    if not blocks:
        return Html("")
    return section(str(report["target"]["runtime"]), "target", *map(_laid_out, blocks))


def _laid_out(block: Block) -> Html:
    if isinstance(block, Text):
        return tag("p", block.text, class_="note") if block.caveat else tag("p", block.text)
    if isinstance(block, Heading):
        return tag("h3", block.text)
    if isinstance(block, Code):
        return code(block.text)
    return table(block.header, block.rows, name=block.name)


def _limits(report: Mapping[str, Any]) -> str:
    said = [backends.of(report).limits(report)]
    types = {merge.get("op_type", "") for part in report["components"] for merge in part.get("merges") or ()}
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
