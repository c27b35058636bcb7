"""``README.md`` of a bundle: a model card that a person can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tsmerge_export import backends
from tsmerge_export.bundle.manifest import ComponentEntry
from tsmerge_export.bundle.report import Report, report_of
from tsmerge_export.bundle.verdicts import Verdicts
from tsmerge_export.console.figures import fewer
from tsmerge_export.ops import SCHEMAS
from tsmerge_export.report.precision import (
    PRECISION_HEADER,
    SENSITIVITY_HEADER,
    precision_rows,
    precision_summary,
    precision_title,
    precision_words,
    sensitivity_rows,
)
from tsmerge_export.report.target import target_section
from tsmerge_export.report.text import (
    GENERATED_INPUT,
    barrier_text,
    cost_rows,
    cost_title,
    parity_rows,
    trained_rows,
)
from tsmerge_export.settings.config import MergeConfig


def model_card(content: Report | Mapping[str, Any], tokens: Sequence[Mapping[str, Any]] = ()) -> str:
    """Write the card.

    Args:
        content: the bundle's report, typed or as ``report.json`` has it, or its manifest.
        tokens: what the report has under this name, where it is not in there; without it the card has no token counts.

    Returns:
        Markdown.
    """
    if isinstance(content, Report):
        report = content
    else:
        more = {"tokens": list(tokens)} if tokens else {}
        known = {name: value for name, value in content.items() if not name.startswith("format")}
        report = report_of({**known, **more})
    merge = report.setting
    parts = [
        f"# {report.family} with token merging" if merge.active else f"# {report.family}",
        f"Exported by tsmerge-export from `{report.source}`, {report.created}.",
        _load(report),
        _what(merge, report),
        _accuracy(report.verdicts),
        _cost(report.verdicts),
        _precision(report),
        target_section(report.of_target),
        _limits(merge, report),
        _versions(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _plain(text: str) -> str:
    """A text that may hold names of a user's, such as columns, without its tags: Markdown takes HTML as it is."""
    return text.strip().replace("&", "&amp;").replace("<", "&lt;")


def _load(report: Report) -> str:
    first = report.components[0]
    which = "" if len(report.components) == 1 else f'["{first.name}"]'
    feed = ", ".join(f'"{tensor.name}": {tensor.name}' for tensor in first.inputs)
    code = "\n".join(
        [
            "import tsmerge_export as tsm",
            'session = tsm.load("path/to/this/folder")',
            f"outputs = session{which}.run({{{feed}}})",
        ]
    )
    code += "" if first.ratio is None else f'\nfaster = session{which}.run({{{feed}}}, ratio="1/2")'
    rows = [
        (component.name, kind, tensor.name, tensor.dtype, "[" + ", ".join(map(str, tensor.dims)) + "]")
        for component in report.components
        for kind, side in (("input", component.inputs), ("output", component.outputs))
        for tensor in side
    ]
    table = _grid(
        ("component", "", "name", "dtype", "dims"), [(c, k, f"`{n}`", d, s) for c, k, n, d, s in rows]
    )
    files = ", ".join(f"`{component.file}`" for component in report.components)
    return (
        f"## Load it\n\n```python\n{code}\n```\n\nLoading compares every file with the SHA-256 in `manifest.json`; "
        f"numpy and onnxruntime are enough. {files} can also be opened by ONNX Runtime directly."
        f"{_chosen(first)}\n\n{table}"
    )


def _chosen(component: ComponentEntry) -> str:
    if component.ratio is None:
        return ""
    return (
        f"\n\nThe ratio is chosen whenever `{component.file}` runs: the share of the tokens that each merge removes, "
        f"from 0 (nothing merges) to 1/2; where none is given it is {_plain(component.ratio.default)}. A server can go "
        "faster under load and back. Without this package the graph has one more input, "
        f"`{_plain(component.ratio.input)}`, a float32 scalar that must be given; the default is in its metadata."
    )


def _what(merge: MergeConfig, report: Report) -> str:
    notes = "".join(f" Note: {_plain(note)}." for note in report.notes)
    notes += "".join(f" {name.capitalize()}: {value}." for name, value in trained_rows(report))
    if not merge.active:
        return f"## What was merged\n\nNothing: the model is exported as it is.{notes}"
    text = f"## What was merged\n\nSettings: {merge.describe()}.{notes}"
    for component in report.components:
        text += f" Component `{component.name}`: {len(component.merges)} merge points."
        for barrier in component.barriers:
            text += f" Barrier (tokens are unmerged before it): {barrier_text(barrier)}."
    for part in report.tokens:
        if not part.merges:
            continue
        rows = [
            (str(i if m.layer is None else m.layer), str(m.before), str(m.after))
            for i, m in enumerate(part.merges)
        ]
        where = f"batch {part.batch}, length {part.length}"
        if any(m.data_dependent for m in part.merges):
            where += f" ({GENERATED_INPUT})"
        text += f"\n\nTokens at {where}:\n\n{_grid(('layer', 'before', 'after'), rows)}"
        ratio = part.flops.ratio
        if ratio:
            text += f"\n\nMatrix products there: {fewer(ratio)} than unmerged, those of the merging included."
    return text


def _accuracy(verdicts: Verdicts) -> str:
    parity = verdicts.parity
    if parity is None:
        return ""
    if parity.against:
        return (
            f"## Does it compute what it should?\n\nCompared with {parity.against}, on generated inputs of several "
            "kinds and sizes, half of them other than those that the rewriter saw.\n\n"
            + _grid(("parity", ""), parity_rows(parity))
        )
    return (
        "## Does it compute what PyTorch computes?\n\nCompared with the original eager model, with the reference "
        "merging applied, over random, constant, periodic, gappy, padded, huge and tiny series at sizes other than "
        "the export's.\n\n" + _grid(("parity", ""), parity_rows(parity))
    )


def _cost(verdicts: Verdicts) -> str:
    cost = verdicts.cost
    if cost is None:
        return ""
    notes = "".join(f"\n\nNote: {_plain(note)}." for note in cost.notes)
    return (
        f"## What merging costs and brings\n\nMeasured on {_plain(cost_title(cost))}; medians over columns, the change "
        "being that of the columns' own changes; both models in ONNX Runtime on the CPU, timed in turns in one run.\n\n"
        + _grid(("", cost.unmerged_words, "merged", "change"), cost_rows(cost))
        + notes
    )


def _precision(report: Report) -> str:
    cost, entry = report.verdicts.precision, report.precision
    if cost is None or entry is None:
        return ""
    notes = "".join(f"\n\nNote: {_plain(note)}." for note in cost.notes)
    if entry.sensitivity is not None and entry.sensitivity.products:
        notes += "\n\n" + _grid(SENSITIVITY_HEADER, sensitivity_rows(entry.sensitivity))
    return (
        f"## What the precision costs and brings\n\n{_plain(precision_summary(entry))} Parity and merge cost above are "
        f"those of the float32 files that these were made from. Against them, on {precision_title(cost)}: "
        f"{precision_words(cost)}.\n\n" + _grid(PRECISION_HEADER, precision_rows(cost)) + notes
    )


def _limits(merge: MergeConfig, report: Report) -> str:
    causal = (
        " Merging decides over the whole row, padding included, so give rows of different lengths in different calls; "
        "and an unmerged output holds copies: single tokens are not causal."
        if merge.active
        else ""
    )
    if any(name in SCHEMAS and SCHEMAS[name].data_dependent for name in report.merge_types):
        causal += " How many tokens merge is decided over the whole batch: a forecast depends on the series beside it."
    said = backends.limits(report.of_target)
    return f"## Limits\n\n{said}{causal} The figures above hold for that data and that machine; measure on your own."


def _versions(report: Report) -> str:
    rows = list(report.versions.items())
    return f"## Versions\n\n{_grid(('tool', 'version'), rows)}" if rows else ""
