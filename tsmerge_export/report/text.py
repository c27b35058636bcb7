"""Results for people: verdict tables on stdout, ``report.json``, the findings of ``inspect``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tsmerge_export.bundle.manifest import BarrierEntry, Described
from tsmerge_export.bundle.verdicts import Cost, Parity, Speed, Verdicts, Worst
from tsmerge_export.console import figures, terminal
from tsmerge_export.console.figures import change
from tsmerge_export.typed import read

if TYPE_CHECKING:
    from rich.console import Console

    from tsmerge_export.families.listing import Entry

#: How tokens are counted where their number depends on the data.
GENERATED_INPUT = "the method decides by the data how many tokens stay: these are counts on generated input"
_NUMBERS = re.compile(r"\[\n(?:\s+(?:-?[0-9.eE+-]+|null),?\n)+\s+\]")
#: Metrics of the merge cost in a word or two.
METRIC_NAMES = {"wql": "weighted quantile loss", "mse": "MSE", "mae": "MAE"}
_NAME = 30
#: Metrics of a table of errors, with their units.
METRICS = {
    "mse": "MSE of the median, in standard deviations squared",
    "mae": "MAE of the median, in standard deviations",
    "wql": "weighted quantile loss",
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


def barrier_text(barrier: BarrierEntry) -> str:
    """One line about a barrier: operator, where, why."""
    return f"{barrier.op_type} in {short_scope(barrier.scope) or barrier.node}: {barrier.reason}"


def parity_rows(parity: Parity) -> list[tuple[str, str]]:
    """Lines of the parity verdict as label and text."""
    rows = [
        ("verdict", "passed" if parity.passed else "FAILED"),
        ("compared", f"{parity.cases} cases, {parity.rows} series"),
        ("largest error", f"{number(parity.max_rel, 3)} of the output's scale"),
        ("tolerance", f"atol {number(parity.atol)} of scale, rtol {number(parity.rtol)}"),
        ("decision flips", f"{parity.decision_flips} (within float noise, values not compared)"),
        ("kept mismatches", str(parity.kept_mismatches)),
    ]
    if parity.noisy_rows:
        times = number(parity.times_noise, 2)
        rows.append(("within float32 noise", f"{parity.noisy_rows} (at most {times} times the model's own)"))
    rows += [("warning", text) for text in parity.warnings]
    return rows + [("failure", text) for text in parity.failures[:5]]


def speed_place(speed: Speed) -> str:
    """At which size a speed was measured."""
    return f"batch {speed.batch}, length {speed.length}, threads {speed.threads or 'default'}"


def cost_rows(cost: Cost) -> list[tuple[str, str, str, str]]:
    """Lines of the merge cost as metric, unmerged, merged, change.

    Medians over the columns of the data, of the errors and of the columns' changes (see
    :mod:`tsmerge_export.verify.change`); below each metric the column that it rose most in.
    """
    median = cost.median
    before, after, delta = median.unmerged, median.merged, median.change_percent
    rows = []
    for key, text in METRICS.items():
        if key not in before:
            continue
        rows.append((text, number(before.get(key)), number(after.get(key)), change(delta.get(key))))
        worst = worst_column(cost, key)
        if worst is not None:
            values = (number(worst.unmerged), number(worst.merged), change(worst.percent))
            rows.append((f"  of the worst column, {column_name(worst.column)}", *values))
    for name, moved in cost.outputs.items():
        rows.append((f"{name}: root mean square of the difference, of its own", "-", number(moved), "-"))
    speed = cost.speed
    if speed is not None:
        rows.append(
            (
                f"time per call ({speed_place(speed)})",
                f"{speed.unmerged_ms:.2f} ms",
                f"{speed.merged_ms:.2f} ms",
                figures.speed(speed.ratio),
            )
        )
    tokens = cost.tokens
    if tokens and tokens[0]:  # the method decides by the data how many
        left = 100 * (tokens[-1] / tokens[0] - 1)
        rows.append(("tokens of that batch", str(tokens[0]), str(tokens[-1]), change(left)))
    return rows


def worst_column(cost: Cost, metric: str) -> Worst | None:
    """The column whose error rose most.

    None where fewer than two columns compare, and in bundles of versions that did not note it.
    """
    found = cost.changes.get(metric)
    return found.worst if found is not None and found.compared > 1 else None


def column_name(name: object) -> str:
    """A column's name in one line, cut to what fits into a table."""
    line = " ".join(str(name).split())
    return line if len(line) <= _NAME else line[: _NAME - 1] + "\u2026"


def cost_title(cost: Cost) -> str:
    """On what the merge cost was measured."""
    if not cost.columns:
        return cost.data
    against = "" if cost.original is None else f"; against {cost.original}, unmerged"
    return (
        f"{cost.data}: {len(cost.columns)} columns x {cost.windows or 0} windows, "
        f"context {cost.context}, horizon {cost.horizon}{against}"
    )


def print_verdicts(verdicts: Verdicts | Mapping[str, Any], title: str = "") -> None:
    """Print parity and merge cost as tables on stdout.

    Args:
        verdicts: typed or as in ``report.json``; that there is no cost (nothing merged, or parity failed) is said.
        title: a line above.
    """
    if not isinstance(verdicts, Verdicts):
        verdicts = read(Verdicts, dict(verdicts), "the verdicts")
    console = terminal.console()
    if title:
        console.print(title, soft_wrap=True)
    parity, cost = verdicts.parity, verdicts.cost
    if parity is not None:
        against = parity.against or "eager PyTorch with the same merging"
        what = (
            "exported model"
            if verdicts.precision is None
            else "the float32 files that those of the bundle were made from"
        )
        console.print(f"\nParity: {what} against {against}", soft_wrap=True)
        terminal.print_table(("", ""), parity_rows(parity), words=(0, 1))
    if cost is None:
        failed = parity is not None and not parity.passed
        console.print("Merge cost: not measured, " + ("parity failed" if failed else "nothing is merged"))
        return
    console.print(f"Merge cost on {cost_title(cost)}", soft_wrap=True)
    terminal.print_table(("", cost.unmerged_words, "merged", "change"), cost_rows(cost))
    for note in cost.notes:
        console.print(f"note: {note}", soft_wrap=True)


def trained_rows(described: Described) -> list[tuple[str, str]]:
    """What the weights were trained for, as rows; none where the checkpoint names nothing."""
    trained = described.trained_for
    if trained is None:
        return []
    rows = [("weights trained for", trained.describe())]
    if trained.unmerged is not None:
        rows.append(("loss of the weights unmerged", change(100 * trained.unmerged)))
    return rows


def original_rows(described: Described) -> list[tuple[str, str]]:
    """What merging was compared with, as rows; none where that is the model itself."""
    found = described.original
    return [] if found is None else [("compared with", f"{found.source}, unmerged (SHA-256 {found.sha256})")]


def _giga(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e9:.3f} GFLOP"


def print_inspection(found: Mapping[str, Any]) -> None:
    """Print what :func:`tsmerge_export.inspection.inspect.inspect_path` found."""
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
            console.print(
                f"barrier (tokens are unmerged here): {barrier_text(read(BarrierEntry, barrier, part['file']))}",
                soft_wrap=True,
            )
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
