"""Merging times precision: size, speed and error of every pair, in one interleaved run.

    python benchmarks/precision.py [--models chronos-bolt-nano,...] [--published chronos-bolt,...] [--ratio 1/10]
                                   [--data FILE ...] [--length 512] [--batch 8] [--threads 1] [--json FILE]

Models of ``--models`` ship with the package and are trained; those of ``--published`` have the size of a published
model and random weights, so that only speed and size are told. *auto* is ``--keep-precise auto``: what 4 bits hurt is
found on the first table, before its last fifth, and has 8 bits. Each is exported unmerged and merged (``local``,
``--ratio``; weights that are trained for a setting merge by that), and both files are quantised. Times are those of the
component that merges, all files in turn, medians; speed-ups are medians of the ratios within turns. Errors are those of
the third verdict: against the float32 file with the same merging, the median over columns, with the 90 % interval; the
change by merging alone stands in the float32 line. ``--data`` may name several tables; without it, the sample series.
Sizes are of all components, weights and graphs. Runs on the CPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table as RichTable

import tsmerge_export as tsm
from tsmerge_export import demo, families
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.compile.precision import quantise_files
from tsmerge_export.console.figures import change
from tsmerge_export.errors import TsmergeError, UnsupportedError
from tsmerge_export.report.precision import sensitivity_words
from tsmerge_export.settings.precision import AUTO, FP32, INT4_WEIGHTS, QUANTISED, Precision
from tsmerge_export.tables.read import read_table
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.data import Table
from tsmerge_export.verify.precision import measure
from tsmerge_export.version import versions

MODELS = ("chronos-bolt-nano", "chronos-bolt-half-nano", "chronos-t5-nano")
PUBLISHED = ("chronos-bolt",)
UNMERGED, MERGED = "unmerged", "merged"
#: Of a line; the last is of trained models alone.
CHOSEN = f"{INT4_WEIGHTS}, {AUTO}"
LINES = {kind: Precision(kind) for kind in QUANTISED} | {CHOSEN: Precision(INT4_WEIGHTS, (AUTO,))}
WARM_UP = 2
#: Of the CPU's instructions, those that multiply whole numbers of 8 bits.
VNNI = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")

Sides = dict[tuple[str, str], list[Built]]


def files_of(compilation: Compilation, folder: Path, table: Table | None, threads: int) -> Sides:
    """The files of all components, by merging and precision.

    Args:
        table: to find by what 4 bits hurt; None leaves that out.
    """
    checks = Checks(threads=threads, timed=False)
    made: Sides = {}
    proved = folder / "float32"
    proved.mkdir(parents=True)
    merged = [compilation.merged(part, proved) for part in compilation.source.components]
    made[MERGED, FP32] = merged
    made[UNMERGED, FP32] = [replace(one, merged=one.unmerged) for one in merged]
    for merging in (UNMERGED, MERGED):
        for line, precision in LINES.items():
            twins, where = made[merging, FP32], folder / merging / line
            if precision.auto and table is None:
                continue
            where.mkdir(parents=True)
            series = partial(compilation.source.calibration, twins, checks)
            try:
                made[merging, line], entry = quantise_files(twins, precision, where, series)
            except UnsupportedError as error:
                print(f"{merging} {line}: {error}", file=sys.stderr)
                continue
            if entry.sensitivity is not None:
                print(f"{merging} {line}: {sensitivity_words(entry.sensitivity)}", file=sys.stderr)
    return made


def times_of(
    sides: Sides, feed: Mapping[str, Any], args: argparse.Namespace
) -> dict[tuple[str, str], list[float]]:
    """Seconds of every turn, by file: all in one process, one after the other, forwards and backwards."""
    sessions = {key: open_session(built[0].merged, args.threads, timed=True) for key, built in sides.items()}
    taken: dict[tuple[str, str], list[float]] = {key: [] for key in sessions}
    begin = time.monotonic()
    gc.disable()
    for turn in range(args.runs + WARM_UP):
        order = list(sessions) if turn % 2 == 0 else [*reversed(sessions)]
        for key in order:
            start = time.perf_counter()
            sessions[key].run(None, dict(feed))
            if turn >= WARM_UP:
                taken[key].append(time.perf_counter() - start)
        if turn >= WARM_UP + 4 and time.monotonic() - begin > args.seconds:
            break
    gc.enable()
    return taken


def errors_of(
    source: CheckpointSource, sides: Sides, table: Table, args: argparse.Namespace
) -> dict[str, Any]:
    """Changes of the errors by merging, and by precision at the same merging, JSON-ready by file."""
    checks = Checks(threads=args.threads, timed=False)
    found: dict[str, Any] = {}
    for (merging, kind), built in sides.items():
        against = (merging, FP32) if kind != FP32 else (UNMERGED, FP32)
        if against == (merging, kind):
            continue
        cost = measure(
            source.of_family,
            source.model,
            sides[against],
            built,
            table,
            checks,
            windows=args.windows,
            timed=None,
        )
        found[f"{merging} {kind}"] = {
            "data": table.name,
            "windows": cost.windows,
            "changes": {metric: vars(one) for metric, one in cost.changes.items()},
            "moved_percent": cost.decisions_moved_percent if kind != FP32 and merging == MERGED else (),
        }
        print(f"{table.name}: {merging} {kind} done", file=sys.stderr)
    return found


def of_model(
    name: str, source: CheckpointSource, tables: Sequence[Table], args: argparse.Namespace, folder: Path
) -> Any:
    """Rows of one model."""
    trained = source.trained
    merge = trained.merge if trained is not None else tsm.MergeConfig(ratio=args.ratio)
    compilation = Compilation(source, merge)
    sides = files_of(compilation, folder, next(iter(tables), None), args.threads)
    component, length = sides[MERGED, FP32][0].component, min(args.length, source.longest)
    series = np.random.default_rng(0).standard_normal((args.batch, length)).cumsum(axis=1)
    feed = component.from_series(source.model, series.astype(np.float32))
    taken = times_of(sides, feed, args)
    errors = [errors_of(source, sides, table, args) for table in tables]
    sizes = {key: sum(one.merged.stat().st_size for one in built) for key, built in sides.items()}
    rows = []
    for key in [(merging, line) for merging in (UNMERGED, MERGED) for line in (FP32, *LINES)]:
        if key not in taken:
            continue
        twin, plain = taken[key[0], FP32], taken[UNMERGED, FP32]
        rows.append(
            {
                "model": name,
                "merging": key[0] if key[0] == UNMERGED else compilation.merge.brief(),
                "precision": key[1],
                "bytes": sizes[key],
                "of_float32": sizes[key] / sizes[key[0], FP32],
                "ms": 1e3 * statistics.median(taken[key]),
                "over_twin": statistics.median(a / b for a, b in zip(twin, taken[key], strict=True)),
                "over_plain": statistics.median(a / b for a, b in zip(plain, taken[key], strict=True)),
                "runs": len(taken[key]),
                "length": length,
                "batch": args.batch,
                "component": component.name,
                "errors": [each[" ".join(key)] for each in errors if " ".join(key) in each],
            }
        )
    return rows


def wql(row: Mapping[str, Any]) -> str:
    """What a line says of the weighted quantile loss, table by table."""
    said = []
    for each in row["errors"]:
        one = each["changes"]["wql"]
        low, high = (change(one[name]) for name in ("low_percent", "high_percent"))
        said.append(f"{change(one['median_percent'])} ({low} to {high})")
    return "; ".join(said) or "-"


def moved(row: Mapping[str, Any]) -> str:
    """The share of the decisions that moved, of the last layer, table by table."""
    shares = [each["moved_percent"][-1] for each in row["errors"] if each["moved_percent"]]
    return "; ".join("-" if share is None else f"{share:.1f} %" for share in shares) or "-"


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table to stdout."""
    for name in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == name]
        first = own[0]
        size = f"batch {first['batch']}, length {first['length']}, {first['runs']} runs"
        table = RichTable(title=f"{name}: {first['component']}, {size}")
        columns = (
            "merging",
            "precision",
            "MB",
            "of float32",
            "ms",
            "over float32",
            "over all",
            "WQL",
            "moved",
        )
        for index, column in enumerate(columns):
            table.add_column(column, justify="left" if index < 2 else "right")
        for row in own:
            table.add_row(
                row["merging"], row["precision"], f"{row['bytes'] / 1e6:.2f}", f"{row['of_float32']:.2f}",
                f"{row['ms']:.2f}", f"{row['over_twin']:.2f}x", f"{row['over_plain']:.2f}x", wql(row), moved(row),
            )  # fmt: skip
        Console(width=160).print(table)


def instructions() -> str:
    """Whether the CPU multiplies whole numbers of 8 bits in one instruction."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return "instructions unknown"
    found = [name for name in VNNI if name in words]
    return f"with {', '.join(found)}" if found else "without VNNI"


def names(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=names, default=list(MODELS), help="trained models that ship")
    parser.add_argument(
        "--published", type=names, default=list(PUBLISHED), help="families, at a published size"
    )
    parser.add_argument("--ratio", default="1/10", help="where weights are trained for nothing")
    parser.add_argument("--data", nargs="+", default=[str(demo.SAMPLE_SERIES)], help="tables")
    parser.add_argument("--windows", type=int, default=16, help="per column")
    parser.add_argument("--length", type=int, default=512, help="steps of the timed call")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument(
        "--seconds", type=float, default=90.0, help="no new turn after that long, yet at least 5"
    )
    parser.add_argument("--json", type=Path, help="write the rows here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows: list[dict[str, Any]] = []
    try:
        tables = [read_table(Path(path)) for path in args.data]
        with tempfile.TemporaryDirectory(prefix="tsmerge-precision-") as folder:
            for name in args.models:
                source = CheckpointSource.load(demo.CHRONOS_BOLT.parent / name, data=tables[0])
                rows += of_model(name, source, tables, args, Path(folder) / name)
            for name in args.published:
                published = families.get(name).published
                if published is None:
                    continue
                torch.manual_seed(0)
                model = families.get(name).build(dict(published.config)).eval()
                title = f"{published.name} (random weights)"
                rows += of_model(
                    title, CheckpointSource.load(model), (), args, Path(folder) / f"published-{name}"
                )
                if args.json is not None:
                    args.json.write_text(json.dumps({"versions": versions(), "rows": rows}, indent=2) + "\n")
    except TsmergeError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    if args.json is not None:
        args.json.write_text(json.dumps({"versions": versions(), "rows": rows}, indent=2) + "\n")
    show(rows)
    known = ", ".join(f"{name} {number}" for name, number in versions().items())
    print(f"{platform.machine()}, {os.cpu_count()} cores, {instructions()}, threads {args.threads}, {known}")


if __name__ == "__main__":
    main()
