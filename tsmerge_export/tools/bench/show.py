"""The table of ``tsmerge bench``."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from tsmerge_export.backends.onnxruntime.place import HERE, Place
from tsmerge_export.console.figures import pays
from tsmerge_export.console.terminal import print_table
from tsmerge_export.tools.bench.compare import Row
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
    for (group, batch, length, threads), members in groupby(rows, _place):
        found = list(members)
        runs = max(row.runs for row in found)
        columns = [c for c in _COLUMNS if any(getattr(row, c[1]) is not None for row in found)]
        cells = [
            (row.candidate, *(_cell(getattr(row, name), form) for _, name, form in columns))
            for row in found
            if row.error is None
        ]
        title = f"{group}: batch {batch}, length {length}, threads {threads}, {runs} runs in turn"
        print_table(("candidate", *(name for name, _, _ in columns)), cells, title)
        for row in found:
            if row.error is not None:
                print(f"{row.candidate} failed: {row.error}")


def _cell(value: Any, form: str) -> str:
    return "" if value is None else format(value, form)


def verdict_lines(rows: Sequence[Row]) -> list[str]:
    """A plain sentence for every size at which a merged form is no faster than the unmerged one."""
    found = [
        pays(
            row.ratio,
            f"for {row.group} at batch {row.batch}, length {row.length}, threads {row.threads} ({row.candidate})",
        )
        for row in rows
        if row.flop_ideal is not None and row.ratio is not None
    ]
    return [line for line in found if line is not None]


def versions_line(place: Place = HERE) -> str:
    """The machine and the versions of what was timed, and where ONNX Runtime ran where that is not the CPU alone."""
    known = ", ".join(f"{name} {number}" for name, number in (versions() | place.versions()).items())
    where = "" if place.on_cpu else f", {place}"
    return f"{platform.machine()}, {os.cpu_count()} cores, {known}{where}"
