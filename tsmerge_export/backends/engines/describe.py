"""What a bundle holds for TensorRT, for people: on stdout, and in the model card."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from tsmerge_export.console.figures import change
from tsmerge_export.console.terminal import print_table


def plan_rows(target: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Per component the compiler's memory plan: what, unmerged, merged, change. Planned at the largest shapes."""
    rows = []
    for name, entry in target["components"].items():
        plans = entry.get("plan") or {}
        for key, text in (
            ("activation_bytes", "activations"),
            ("weights_bytes", "weights"),
            ("engine_bytes", "file"),
        ):
            before, after = (plans.get(which, {}).get(key) for which in ("unmerged", "merged"))
            if after is None:
                continue
            moved = change(100 * (after / before - 1) if before else None)
            rows.append((f"{name}: {text}", _size(before), _size(after), moved))
    return rows


def _size(count: int | None) -> str:
    return "-" if count is None else f"{count / 2**20:.1f} MiB"


def target_section(manifest: Mapping[str, Any]) -> str:
    """Markdown about the target of a bundle; empty where there is none."""
    target = manifest.get("target")
    if not isinstance(target, Mapping):
        return ""
    lines = [
        f"## {target['runtime']}",
        f"{target['on_gpu']} Matrix products are {target['dtype']}, all else is float32.",
    ]
    for name, entry in target["components"].items():
        shapes = "; ".join(
            f"`{tensor}` {sizes['min']} to {sizes['max']}, best at {sizes['opt']}"
            for tensor, sizes in entry["profile"].items()
        )
        lines.append(f"Component `{name}`: `{entry['onnx']}`, shapes {shapes}.")
        if entry.get("engine"):
            built = entry.get("compute_capabilities")
            where = f" for compute capabilities {', '.join(built)}" if built else ""
            lines.append(
                f"Engine `{entry['engine']}`{where}: an executable; `manifest.json` holds its SHA-256."
            )
        for tool, command in (entry.get("commands") or {}).items():
            lines.append(f"With {tool}:\n\n```\n{command}\n```")
        if entry.get("missing"):
            lines.append("No engine was built, for here is missing: " + "; ".join(entry["missing"]) + ".")
    rows = plan_rows(target)
    if rows:
        table = [
            "| memory planned by the compiler, not measured | unmerged | merged | change |",
            "|---|---|---|---|",
        ]
        lines.append("\n".join([*table, *("| " + " | ".join(row) + " |" for row in rows)]))
    return "\n\n".join(lines)


def print_target(manifest: Mapping[str, Any]) -> None:
    """The plan on stdout; on stderr why there is no engine."""
    target = manifest.get("target")
    if not isinstance(target, Mapping):
        return
    rows = plan_rows(target)
    if rows:
        title = f"{target['runtime']}: memory planned by the compiler"
        print_table(("", "unmerged", "merged", "change"), rows, title)
    for name, entry in target["components"].items():
        for reason in entry.get("missing") or ():
            print(f"{name}: no engine was built: {reason}", file=sys.stderr)
