"""Results for people: verdict tables on stdout, ``report.json``, the findings of ``inspect``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tsmerge_export.console import figures, terminal
from tsmerge_export.console.figures import change

if TYPE_CHECKING:
    from rich.console import Console

    from tsmerge_export.families.listing import Entry

#: How tokens are counted where their number depends on the data.
GENERATED_INPUT = "the method decides by the data how many tokens stay: these are counts on generated input"
_NUMBERS = re.compile(r"\[\n(?:\s+(?:-?[0-9.eE+-]+|null),?\n)+\s+\]")
#: What ``report.json`` holds beyond the manifest: ``run`` (the arguments of the export), ``seconds`` (by step of the
#: export), ``tokens`` (per component what ``inspect`` counts), ``example`` (see
#: :mod:`tsmerge_export.verify.example`) and ``search`` (what ``tsmerge tune`` tried).
REPORT_ONLY = ("run", "seconds", "tokens", "example", "search")
#: Metrics of the merge cost in a word or two.
METRIC_NAMES = {"wql": "weighted quantile loss", "mse": "MSE", "mae": "MAE"}
_NAME = 30
_METRICS = {
    "mse": "MSE of the median, in standard deviations squared",
    "mae": "MAE of the median, in standard deviations",
    "wql": "weighted quantile loss",
}


def report_dict(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The content of ``report.json``: what a manifest says about the result, without the list of files.

    Args:
        manifest: of a bundle; ``verdicts`` holds ``parity`` and ``cost`` as their reports' ``to_dict()`` gives them.
            During an export it also holds what only the report keeps, see :data:`REPORT_ONLY`.
    """
    keys = (
        "source",
        "family",
        "merge",
        "notes",
        "graph",
        "opset",
        "inline",
        "components",
        "verdicts",
        "target",
        "versions",
        "created",
        *REPORT_ONLY,
    )
    return {
        "format": "tsmerge-report",
        "format_version": 1,
        **{k: manifest[k] for k in keys if k in manifest},
    }


def json_text(content: Any) -> str:
    """JSON for people and machines: indented, but a list of numbers stays on a line.

    Raises:
        ValueError: a number that JSON does not have (NaN, infinity).
    """
    text = json.dumps(content, indent=2, allow_nan=False)
    # Strings hold no line breaks in JSON, so that only real lists match.
    return (
        _NUMBERS.sub(lambda found: " ".join(found[0].split()).replace("[ ", "[").replace(" ]", "]"), text)
        + "\n"
    )


def number(value: float | None, digits: int = 4) -> str:
    """Short form of a number; a dash for what is not there."""
    return "-" if value is None else f"{value:.{digits}g}"


def short_scope(scope: str | None) -> str:
    """The innermost module's path in an exporter's scope, ``model.encoder.block.0`` of ``.../path: Class/...``."""
    names = [part.partition(":")[0].strip() for part in (scope or "").split("/")]
    return next((name for name in reversed(names) if "." in name), names[-1])


def barrier_text(barrier: Mapping[str, Any]) -> str:
    """One line about a barrier: operator, where, why."""
    where = short_scope(barrier.get("scope")) or barrier.get("node")
    return f"{barrier.get('op_type')} in {where}: {barrier.get('reason')}"


def parity_rows(parity: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Lines of the parity verdict as label and text."""
    rows = [
        ("verdict", "passed" if parity.get("passed") else "FAILED"),
        ("compared", f"{parity.get('cases', 0)} cases, {parity.get('rows', 0)} series"),
        ("largest error", f"{number(parity.get('max_rel'), 3)} of the output's scale"),
        ("tolerance", f"atol {number(parity.get('atol'))} of scale, rtol {number(parity.get('rtol'))}"),
        ("decision flips", f"{parity.get('decision_flips', 0)} (within float noise, values not compared)"),
        ("kept mismatches", str(parity.get("kept_mismatches", 0))),
    ]
    if parity.get("noisy_rows"):
        times = number(parity.get("times_noise"), 2)
        rows.append(
            ("within float32 noise", f"{parity['noisy_rows']} (at most {times} times the model's own)")
        )
    rows += [("warning", text) for text in parity.get("warnings") or ()]
    return rows + [("failure", text) for text in (parity.get("failures") or ())[:5]]


def speed_place(speed: Mapping[str, Any]) -> str:
    """At which size a speed was measured."""
    return f"batch {speed.get('batch')}, length {speed.get('length')}, threads {speed.get('threads') or 'default'}"


def speed_words(speed: Mapping[str, Any]) -> str:
    """How many times faster or slower the merged file is."""
    return figures.speed(speed["ratio"])


def cost_rows(cost: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Lines of the merge cost as metric, unmerged, merged, change.

    Medians over the columns of the data, of the errors and of the columns' changes (see
    :mod:`tsmerge_export.verify.change`); below each metric the column that it rose most in.
    """
    overall = (cost.get("overall") or {}).get("median") or {}
    before, after, delta = (overall.get(key) or {} for key in ("unmerged", "merged", "change_percent"))
    rows = []
    for key, text in _METRICS.items():
        if key not in before:
            continue
        rows.append((text, number(before.get(key)), number(after.get(key)), change(delta.get(key))))
        worst = worst_column(cost, key)
        if worst is not None:
            values = (number(worst["unmerged"]), number(worst["merged"]), change(worst["percent"]))
            rows.append((f"  of the worst column, {column_name(worst['column'])}", *values))
    for name, moved in (cost.get("outputs") or {}).items():
        rows.append((f"{name}: root mean square of the difference, of its own", "-", number(moved), "-"))
    speed = cost.get("speed") or {}
    if speed.get("unmerged_ms") is not None:
        rows.append(
            (
                f"time per call ({speed_place(speed)})",
                f"{speed['unmerged_ms']:.2f} ms",
                f"{speed['merged_ms']:.2f} ms",
                speed_words(speed),
            )
        )
    tokens = cost.get("tokens")
    if tokens:  # the method decides by the data how many
        left = 100 * (tokens[-1] / tokens[0] - 1)
        rows.append(("tokens of that batch", str(tokens[0]), str(tokens[-1]), change(left)))
    return rows


def worst_column(cost: Mapping[str, Any], metric: str) -> Mapping[str, Any] | None:
    """The column whose error rose most: ``column``, ``unmerged``, ``merged``, ``percent``.

    None where fewer than two columns compare, and in bundles of versions that did not note it.
    """
    found = (cost.get("changes") or {}).get(metric) or {}
    worst: Mapping[str, Any] | None = found.get("worst")
    return worst if worst is not None and found.get("compared", 0) > 1 else None


def column_name(name: object) -> str:
    """A column's name in one line, cut to what fits into a table."""
    line = " ".join(str(name).split())
    return line if len(line) <= _NAME else line[: _NAME - 1] + "\u2026"


def cost_title(cost: Mapping[str, Any]) -> str:
    """On what the merge cost was measured."""
    columns = len(cost.get("columns") or ())
    if not columns:
        return str(cost.get("data", ""))
    return (
        f"{cost.get('data', '')}: {columns} columns x {cost.get('windows', 0)} windows, "
        f"context {cost.get('context')}, horizon {cost.get('horizon')}"
    )


def print_verdicts(verdicts: Mapping[str, Any], title: str = "") -> None:
    """Print both verdicts as tables on stdout.

    Args:
        verdicts: ``parity`` and ``cost``; that there is no ``cost`` (nothing merged, or parity failed) is said.
        title: a line above.
    """
    console = terminal.console()
    if title:
        console.print(title, soft_wrap=True)
    parity = verdicts.get("parity")
    if parity:
        against = parity.get("against") or "eager PyTorch with the same merging"
        console.print(f"\nParity: exported model against {against}", soft_wrap=True)
        terminal.print_table(("", ""), parity_rows(parity), words=(0, 1))
    cost = verdicts.get("cost")
    if not cost:
        failed = parity and not parity.get("passed")
        console.print("Merge cost: not measured, " + ("parity failed" if failed else "nothing is merged"))
        return
    console.print(f"Merge cost on {cost_title(cost)}", soft_wrap=True)
    terminal.print_table(("", "unmerged", "merged", "change"), cost_rows(cost))
    for note in cost.get("notes") or ():
        console.print(f"note: {note}", soft_wrap=True)


def _giga(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e9:.3f} GFLOP"


def print_inspection(found: Mapping[str, Any]) -> None:
    """Print what :func:`tsmerge_export.onnx_model.inspect.inspect_path` found."""
    from tsmerge_export import ops

    console = terminal.console()
    for part in found["components"]:
        size = f"batch {part['batch']}, length {part['length']}"
        console.print(
            f"{part['file']}: opset {part['opset']}, {part['size'] / 1e6:.1f} MB, at {size}", soft_wrap=True
        )
        if part["merges"]:
            console.print(f"{len(part['merges'])} merges")
            rows = [
                (
                    str(i if merge["layer"] is None else merge["layer"]),
                    short_scope(merge["scope"]) or merge["name"],
                    str(merge["before"]),
                    str(merge["after"]),
                    ops.schema(merge["op_type"]).words(merge["attributes"]),
                )
                for i, merge in enumerate(part["merges"])
            ]
            terminal.print_table(("layer", "node", "tokens", "after", "settings"), rows, words=(0, 1, 4))
            if any(merge.get("data_dependent") for merge in part["merges"]):
                console.print(GENERATED_INPUT, soft_wrap=True)
        elif part["described"]:
            console.print(
                f"{part['described']} merges, written inline: tokens are not counted", soft_wrap=True
            )
        else:
            console.print("no merges")
        for barrier in part["barriers"]:
            console.print(f"barrier (tokens are unmerged here): {barrier_text(barrier)}", soft_wrap=True)
        if not part["barriers"]:
            console.print("barriers: none")
        _print_flops(console, part["flops"])
        counts = ", ".join(f"{count} {kind}" for kind, count in part["nodes"].items())
        console.print(f"nodes ({sum(part['nodes'].values())}): {counts}", soft_wrap=True)


def print_families(entries: Sequence[Entry]) -> None:
    """Print the families, each with what it does not support."""
    console = terminal.console()
    for entry in entries:
        console.print(f"{entry.name} ({entry.package})", style="bold", soft_wrap=True)
        if entry.card is None:
            console.print(
                "  cannot be loaded" if entry.error else "  says nothing about itself", soft_wrap=True
            )
            continue
        rows = [(f"component {name}", what) for name, what in entry.card.components]
        rows += [("tokens", entry.card.tokens), ("merging", entry.card.merging)]
        rows += [("runtimes", ", ".join(entry.card.runtimes))]
        rows += [("not supported", text) for text in entry.card.unsupported]
        for title, text in rows:
            console.print(f"  {title}: {text.replace('`', '')}", soft_wrap=True)


def _print_flops(console: Console, flops: Mapping[str, Any]) -> None:
    console.print("matrix products:")
    ratio = flops["ratio"]
    saved = "-" if ratio is None else figures.fewer(ratio)
    row = (*(_giga(flops[name]) for name in ("unmerged", "merged", "merge_nodes")), saved)
    terminal.print_table(("unmerged", "merged", "in merge nodes", "saved"), [row], words=())
    if flops["uncounted"]:
        console.print(f"not counted: products inside {', '.join(flops['uncounted'])}")
