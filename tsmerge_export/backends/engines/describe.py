"""What a bundle holds for a back end that builds engines, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsmerge_export.backends.describe import Block, Code, Grid, Heading, Text
from tsmerge_export.console.figures import change

_PLANNED = "Memory planned by the compiler"


def blocks(target: Mapping[str, Any]) -> list[Block]:
    """Caveat, precision; per component its shapes, engine and commands; the compiler's plan.

    Args:
        target: the manifest's entry.
    """
    out: list[Block] = [
        Text(target["on_gpu"], caveat=True),
        Text(f"Matrix products are {target['dtype']}, all else is float32."),
    ]
    for name, entry in target["components"].items():
        rows = [
            (tensor, str(sizes["min"]), str(sizes["opt"]), str(sizes["max"]))
            for tensor, sizes in entry["profile"].items()
        ]
        out += [
            Heading(f"Component {name}: {entry['onnx']}"),
            Grid(f"Shapes of {name}", ("input", "smallest", "usual", "largest"), rows),
        ]
        if entry.get("engine"):
            built = entry.get("compute_capabilities")
            where = f" for compute capabilities {', '.join(built)}" if built else ""
            out.append(
                Text(f"Engine: {entry['engine']}{where} (an executable; manifest.json holds its SHA-256).")
            )
        for tool, command in (entry.get("commands") or {}).items():
            out += [Text(f"With {tool}:"), Code(command)]
        if entry.get("missing"):
            out.append(
                Text(
                    f"No engine was built, for here is missing: {'; '.join(entry['missing'])}.",
                    told=[f"{name}: no engine was built: {reason}" for reason in entry["missing"]],
                )
            )
    rows4 = plan_rows(target)
    if rows4:
        header = ("memory planned by the compiler, not measured", "unmerged", "merged", "change")
        out.append(Grid(_PLANNED, header, rows4, short=f"{target['runtime']}: {_PLANNED.lower()}"))
    return out


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
