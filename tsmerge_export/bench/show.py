"""The table of ``tsmerge bench``."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table

from tsmerge_export.bench.compare import Row
from tsmerge_export.version import versions

_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("p50 ms", "p50_ms", ".1f"),
    ("p90", "p90_ms", ".1f"),
    ("p99", "p99_ms", ".1f"),
    ("series/s", "series_per_second", ".1f"),
    ("peak MiB", "peak_mib", ".0f"),
    ("speed-up", "ratio", ".2f"),
    ("(fastest)", "fastest", ".2f"),
    ("GFLOP", "gflops", ".2f"),
    ("FLOP ideal", "flop_ideal", ".2f"),
    ("efficiency", "efficiency", ".2f"),
    ("merging", "merge_share", ".0%"),
)


def _place(row: Row) -> tuple[str, int, int, int]:
    return row.group, row.batch, row.length, row.threads


def print_rows(rows: Sequence[Row], merge: str) -> None:
    """One table per size on stdout; ``merge`` describes the settings. Speed-ups are against unmerged ONNX Runtime."""
    if merge != "none":
        print(f"merged: {merge}")
    console = Console(width=max(120, Console().width))
    for (group, batch, length, threads), members in groupby(rows, _place):
        found = list(members)
        runs = max(row.runs for row in found)
        table = Table(
            title=f"{group}: batch {batch}, length {length}, threads {threads}, {runs} runs in turn",
            title_justify="left",
        )
        table.add_column("candidate", overflow="fold")
        for title, _, _ in _COLUMNS:
            table.add_column(title, justify="right", no_wrap=True)
        for row in found:
            if row.error is not None:
                table.add_row(row.candidate, f"failed: {row.error}")
                continue
            values: list[Any] = [getattr(row, name) for _, name, _ in _COLUMNS]
            cells = [
                "" if value is None else format(value, form)
                for value, (_, _, form) in zip(values, _COLUMNS, strict=True)
            ]
            table.add_row(row.candidate, *cells)
        console.print(table)


def verdict_lines(rows: Sequence[Row]) -> list[str]:
    """A plain sentence for every size at which a merged form is no faster than the unmerged one."""
    return [
        f"merging does not pay for {row.group} at batch {row.batch}, length {row.length}, threads {row.threads}: "
        f"{row.candidate} runs at {row.ratio:.2f} times the speed of the unmerged file"
        for row in rows
        if row.flop_ideal is not None and row.ratio is not None and row.ratio < 1
    ]


def versions_line() -> str:
    """The machine and the versions of what was timed."""
    known = ", ".join(f"{name} {number}" for name, number in versions().items())
    return f"{platform.machine()}, {os.cpu_count()} cores, {known}"
