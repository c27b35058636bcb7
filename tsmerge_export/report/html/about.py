"""Barriers, settings, components, targets, versions, limits, and how to make the bundle again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsmerge_export.backends.engines.describe import plan_rows
from tsmerge_export.ops import SCHEMAS
from tsmerge_export.report.html.commands import GRAPH, commands
from tsmerge_export.report.html.markup import Html, code, section, table, tag
from tsmerge_export.report.text import NO_GPU, barrier_text


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
    target = report.get("target")
    if not isinstance(target, Mapping):
        return Html("")
    parts = [
        tag("p", target["on_gpu"], class_="note"),
        tag("p", f"Matrix products are {target['dtype']}, all else is float32."),
    ]
    for name, entry in target["components"].items():
        rows = [
            (tensor, str(sizes["min"]), str(sizes["opt"]), str(sizes["max"]))
            for tensor, sizes in entry["profile"].items()
        ]
        parts += [
            tag("h3", f"Component {name}: {entry['onnx']}"),
            table(("input", "smallest", "usual", "largest"), rows, name=f"Shapes of {name}"),
        ]
        if entry.get("engine"):
            parts.append(
                tag("p", f"Engine: {entry['engine']} (an executable; manifest.json holds its SHA-256).")
            )
        for tool, command in (entry.get("commands") or {}).items():
            parts += [tag("p", f"With {tool}:"), code(command)]
        if entry.get("missing"):
            parts.append(
                tag("p", f"No engine was built, for here is missing: {'; '.join(entry['missing'])}.")
            )
    rows4 = plan_rows(target)
    if rows4:
        header = ("memory planned by the compiler, not measured", "unmerged", "merged", "change")
        parts.append(table(header, rows4, name="Memory planned by the compiler"))
    return section(str(target["runtime"]), "target", *parts)


def _limits(report: Mapping[str, Any]) -> str:
    said = [NO_GPU]
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
