"""All that this project does to one model, step by step: speed, memory, size and error in one interleaved run.

    python benchmarks/headline.py [--data FILE ...] [--length 1024] [--batch 8] [--threads 1] [--runs 20] [--json FILE]

From eager PyTorch in float32 without merging (chronos-bolt-nano), over ONNX Runtime, weights that were distilled for
half of the tokens in every layer (chronos-bolt-half-nano), merged, to those in int8. All take turns, each in a process
of its own, which also reports its peak memory, libraries included. Times are medians, the speed-up is the median of the
ratios of neighbouring turns. Sizes are of the weights in safetensors, and of the ONNX file with its graph. Errors are
of windows of the last fifth of every table, against the forecasts of eager PyTorch without merging: median over the
columns of the change, with the 90 % interval. Runs on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from precision import instructions  # beside this file
from rich.console import Console
from rich.table import Table as RichTable

import tsmerge_export as tsm
from tsmerge_export import demo
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.compile.precision import quantise_files
from tsmerge_export.console.figures import change
from tsmerge_export.families.base import Arrays
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tables.read import read_table
from tsmerge_export.tools.bench.candidate import Candidate
from tsmerge_export.tools.bench.run import interleave
from tsmerge_export.verify.data import Table, rolling_windows
from tsmerge_export.verify.quality import increase, spread
from tsmerge_export.verify.window_errors import METRICS, Forecasts, next_to_nothing, run_named
from tsmerge_export.version import versions

EAGER, PLAIN = "eager PyTorch, float32, unmerged", "ONNX Runtime, float32, unmerged"
MERGED, INT8 = "ONNX Runtime, distilled, merged", "ONNX Runtime, distilled, merged, int8"
BEFORE, AFTER = (demo.CHRONOS_BOLT.parent / f"chronos-bolt-{name}" for name in ("nano", "half-nano"))

Run = Callable[[Arrays], Arrays]


def eagerly(source: CheckpointSource, inputs: Arrays) -> Arrays:
    """The module as it was loaded."""
    with torch.inference_mode():
        tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
        found = source.components[0].eager(source.model, tensors)
    return {name: value.numpy() for name, value in found.items()}


def files_of(before: CheckpointSource, after: CheckpointSource, folder: Path) -> dict[str, Path]:
    """The ONNX files by row."""
    assert after.trained is not None
    built = {}
    for name, source, merge in ((PLAIN, before, MergeConfig("none")), (MERGED, after, after.trained.merge)):
        where = folder / str(len(built))
        where.mkdir()
        built[name] = [Compilation(source, merge).merged(source.components[0], where)]
    where = folder / "int8"
    where.mkdir()
    built[INT8] = quantise_files(built[MERGED], tsm.Precision("int8"), where)[0]
    return {name: files[0].merged for name, files in built.items()}


def errors_of(
    runs: dict[str, tuple[CheckpointSource, Run]], table: Table, args: argparse.Namespace
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Change of every metric over eager PyTorch, and its interval, by row."""
    source = runs[EAGER][0]
    cut = rolling_windows(table, args.length, source.horizon, limit=args.windows)
    found = {}
    for name, (own, run) in runs.items():
        found[name] = Forecasts(own.of_family, own.model, run).errors(cut)
        print(f"{table.name}: {name} done", file=sys.stderr)
    out: dict[str, dict[str, tuple[float, float, float]]] = {}
    for name in [name for name in runs if name != EAGER]:
        out[name] = {}
        for metric in METRICS:
            both = (found[name][metric], found[EAGER][metric], next_to_nothing(metric, cut))
            out[name][metric] = (increase(*both).median, *spread(*both))
    return out


def interval(figures: Sequence[float]) -> str:
    middle, low, high = map(change, figures)
    return f"{middle} ({low} to {high})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=[str(demo.SAMPLE_SERIES)], help="tables")
    parser.add_argument("--windows", type=int, default=16, help="per column")
    parser.add_argument("--length", type=int, default=1024, help="steps of context, timed and forecast from")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=90.0, help="no new turn after that long")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    before, after = (CheckpointSource.load(path) for path in (BEFORE, AFTER))
    tables = [read_table(Path(path)) for path in args.data]
    with tempfile.TemporaryDirectory(prefix="tsmerge-headline-") as name:
        folder = Path(name)
        files = files_of(before, after, folder)
        walks = np.random.default_rng(0).standard_normal((args.batch, args.length)).cumsum(axis=1)
        stored = folder / "inputs.npz"
        np.savez(stored, **before.feed(walks.astype(np.float32)))  # type: ignore[arg-type]
        candidates = [Candidate(EAGER, "eager", "bolt", str(BEFORE), {})]
        candidates += [Candidate(key, "onnxruntime", "bolt", str(file), {}) for key, file in files.items()]
        timings = interleave(
            candidates, before.components[0].name, stored, args.threads, runs=args.runs, seconds=args.seconds
        )
        sizes = {EAGER: (BEFORE / "model.safetensors").stat().st_size}
        sizes |= {key: file.stat().st_size for key, file in files.items()}
        names = [spec.name for spec in before.components[0].outputs]
        runs: dict[str, tuple[CheckpointSource, Run]] = {EAGER: (before, partial(eagerly, before))}
        for key, file in files.items():
            session = open_session(file, args.threads)
            runs[key] = (before if key == PLAIN else after, partial(run_named, session, names))
        errors = {table.name: errors_of(runs, table, args) for table in tables}
    rows: list[dict[str, Any]] = []
    for timing in timings:
        key = timing.candidate.name
        if timing.error is not None:
            raise SystemExit(f"{key}: {timing.error}")
        ratios = [b / t for b, t in zip(timings[0].seconds, timing.seconds, strict=False)]
        rows.append(
            {
                "name": key,
                "ms": 1e3 * statistics.median(timing.seconds),
                "speedup": statistics.median(ratios),
                "runs": len(timing.seconds),
                "peak_mib": (timing.peak or 0) / 2**20,
                "bytes": sizes[key],
                "errors": {data: found[key] for data, found in errors.items() if key in found},
            }
        )
    if args.json is not None:
        settings = {key: str(value) for key, value in vars(args).items()}
        content = {"settings": settings, "versions": versions(), "rows": rows}
        args.json.write_text(json.dumps(content, indent=2) + "\n")
    show(rows, args)


def show(rows: Sequence[dict[str, Any]], args: argparse.Namespace) -> None:
    """Print the table, and the first row against the last in one line."""
    table = RichTable(title=f"batch {args.batch}, {args.length} steps, {rows[0]['runs']} turns")
    for index, column in enumerate(("", "ms", "speed-up", "peak MiB", "MB", "error")):
        table.add_column(column, justify="left" if index in (0, 5) else "right")
    for row in rows:
        said = [f"{data}: WQL {interval(one['wql'])}" for data, one in row["errors"].items()]
        table.add_row(
            row["name"], f"{row['ms']:.2f}", f"{row['speedup']:.2f}x", f"{row['peak_mib']:.0f}",
            f"{row['bytes'] / 1e6:.2f}", "\n".join(said) or "-",
        )  # fmt: skip
    Console(width=160).print(table)
    first, last = rows[0], rows[-1]
    errors = ", ".join(
        f"WQL {change(one['wql'][0])} and MSE {change(one['mse'][0])} on {data}"
        for data, one in last["errors"].items()
    )
    print(
        f"{first['name']} -> {last['name']}: {last['speedup']:.1f} times as fast ({first['ms']:.1f} -> "
        f"{last['ms']:.1f} ms), {first['peak_mib']:.0f} -> {last['peak_mib']:.0f} MiB of peak memory, "
        f"{first['bytes'] / 1e6:.2f} -> {last['bytes'] / 1e6:.2f} MB; {errors}"
    )
    known = ", ".join(f"{name} {number}" for name, number in versions().items())
    print(f"{platform.machine()}, {os.cpu_count()} cores, {instructions()}, threads {args.threads}, {known}")


if __name__ == "__main__":
    main()
