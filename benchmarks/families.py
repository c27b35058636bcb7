"""Every family at a typical published size with random weights: unmerged against merged ONNX Runtime, in one run.

    python benchmarks/families.py [--only NAME,...] [--lengths 128,512,2048] [--ratio 1/4] [--batch 4] [--threads 1]
                                  [--plugin libtsmerge_ort.so]

Registry-driven: whatever families are installed, built in or plug-ins, with a ``published`` size. Per family and
context length: the median time per call of both files in turn, the speed-up (the median of the ratios of neighbouring
runs), the FLOP ideal (ratio of all matrix products), the efficiency (speed-up over ideal), and from which of the
lengths on merging pays: 1.05x or more. A family whose length is fixed by its config is built anew for every length
(``context_length``); the others run at those up to the published context. With ``--plugin`` the merged file runs with
that library's native operators too. Times nothing on a GPU.
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
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tsmerge_export import families
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.backends.onnxruntime.place import Place
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.errors import TsmergeError
from tsmerge_export.families.base import Arrays, Component, Family
from tsmerge_export.inspection.flops import count
from tsmerge_export.settings.config import MergeConfig

LENGTHS = (128, 512, 2048)
WARM_UP = 2
#: Less is noise, and not worth a changed forecast.
PAYS = 1.05


def build_model(family: Family, config: Mapping[str, Any]) -> torch.nn.Module:
    """Float32, seeded random weights."""
    torch.manual_seed(0)
    return family.build(config).eval()


def has_fixed_length(component: Component) -> bool:
    """Whether no dim of the inputs but the batch is dynamic."""
    return not any(isinstance(dim, str) and dim != "batch" for spec in component.inputs for dim in spec.dims)


def make_files(
    component: Component, model: torch.nn.Module, merge: MergeConfig, folder: Path
) -> tuple[Path, Path]:
    """The unmerged file and the merged one."""
    folder.mkdir()
    built = Compilation(CheckpointSource.load(model), merge).merged(component, folder)
    return built.unmerged, built.merged


def measure(
    files: tuple[Path, Path],
    feed: Arrays,
    threads: int,
    runs: int,
    seconds: float,
    say: Any,
    plugin: Path | None = None,
) -> dict[str, Any]:
    """Figures of one size; both files (and the merged one with native operators) in turn, after a warm-up of two."""
    sessions = [open_session(file, threads, timed=True) for file in files]
    if plugin is not None:
        sessions.append(open_session(files[1], threads, timed=True, place=Place.of(plugin=plugin)))
    taken: list[list[float]] = [[] for _ in sessions]
    begin = time.monotonic()
    gc.disable()
    for turn in range(runs + WARM_UP):
        order = range(len(sessions))
        for index in order if turn % 2 == 0 else reversed(order):
            start = time.perf_counter()
            sessions[index].run(None, feed)
            if turn >= WARM_UP:
                taken[index].append(time.perf_counter() - start)
        say(turn + 1)
        if turn >= WARM_UP + 4 and time.monotonic() - begin > seconds:
            break
    gc.enable()
    speedup, *native = (
        statistics.median(a / b for a, b in zip(taken[0], other, strict=True)) for other in taken[1:]
    )
    flops = [count(onnx.load(file), feed).total for file in files]
    ideal = flops[0] / flops[1]
    return {
        "runs": len(taken[0]),
        "unmerged_ms": 1e3 * statistics.median(taken[0]),
        "merged_ms": 1e3 * statistics.median(taken[1]),
        "speedup": speedup,
        "flop_ideal": ideal,
        "efficiency": speedup / ideal,
        **({"native_ms": 1e3 * statistics.median(taken[2]), "native_speedup": native[0]} if native else {}),
    }


def of_family(
    family: Family, args: argparse.Namespace, folder: Path, bar: Progress
) -> tuple[list[dict[str, Any]], str]:
    """One row per length, and why there is none."""
    published = family.published
    if published is None:
        return [], "names no published size"
    config, merge = dict(published.config), MergeConfig(ratio=args.ratio)
    model = build_model(family, config)
    points = family.merge_points(model)
    if points.count == 0:
        return [], f"does not merge: {points.reason}"
    fixed = has_fixed_length(family.components(model)[0])
    lengths = args.lengths if fixed else [n for n in args.lengths if n <= family.context(model)]
    rows, files = [], None
    for number, length in enumerate(lengths):
        if fixed:
            model = build_model(family, {**config, "context_length": length})
        component = family.components(model)[0]
        if files is None or fixed:
            files = make_files(component, model, merge, folder / f"{family.name}-{number}")
        feed = component.example(model, args.batch, length)
        task = bar.add_task(f"{family.name}, length {length}", total=args.runs + WARM_UP)
        row = measure(
            files, feed, args.threads, args.runs, args.seconds,
            lambda done, task=task: bar.update(task, completed=done), args.plugin,
        )  # fmt: skip
        bar.remove_task(task)
        rows.append({"family": family.name, "size": published.name, "length": length, **row})
    return rows, "" if rows else f"reads at most {family.context(model)} steps"


def pays_from(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """The least length from which on merging is faster by :data:`PAYS` at every one measured; None: at none."""
    found = None
    for row in sorted(rows, key=lambda row: -row["length"]):
        if row["speedup"] < PAYS:
            break
        found = int(row["length"])
    return found


def show(rows: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> None:
    """Print the table to stdout."""
    table = Table(
        title=f"local k=1 ratio={args.ratio}, batch {args.batch}, threads {args.threads}, random weights"
    )
    native = ("native ms", "speed-up") if args.plugin is not None else ()
    columns = (
        "family",
        "length",
        "unmerged ms",
        "merged ms",
        "speed-up",
        "FLOP ideal",
        "efficiency",
        *native,
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "family" else "right")
    for row in rows:
        table.add_row(
            row["family"], str(row["length"]), f"{row['unmerged_ms']:.2f}", f"{row['merged_ms']:.2f}",
            f"{row['speedup']:.2f}x", f"{row['flop_ideal']:.2f}x", f"{row['efficiency']:.2f}",
            *((f"{row['native_ms']:.2f}", f"{row['native_speedup']:.2f}x") if native else ()),
        )  # fmt: skip
    Console(width=110).print(table)


def versions() -> dict[str, str]:
    """Of what computes."""
    return {
        name: metadata.version(name) for name in ("torch", "onnxruntime", "onnx", "transformers", "numpy")
    }


def write(rows: Sequence[Mapping[str, Any]], notes: Sequence[str], path: Path | None) -> None:
    """After every family: a whole run takes long."""
    if path is not None:
        path.write_text(
            json.dumps({"versions": versions(), "rows": list(rows), "notes": list(notes)}, indent=2) + "\n"
        )


def wholes(text: str) -> list[int]:
    """Comma-separated lengths, in order."""
    return sorted({int(part) for part in text.split(",")})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="families, comma-separated; default: all")
    parser.add_argument("--lengths", type=wholes, default=list(LENGTHS), help="context lengths in steps")
    parser.add_argument("--ratio", default="1/4", help="share of tokens that each layer removes")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=15, help="timed runs of each file")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="no new turn after that long, yet at least 5"
    )
    parser.add_argument("--plugin", type=Path, help="libtsmerge_ort.so: its native operators too")
    parser.add_argument("--json", type=Path, help="write the rows here")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    try:
        chosen = families.names() if args.only is None else args.only.split(",")
        with (
            tempfile.TemporaryDirectory() as folder,
            Progress(console=Console(stderr=True), transient=True) as bar,
        ):
            for name in chosen:
                try:
                    found, note = of_family(families.get(name), args, Path(folder), bar)
                except TsmergeError as error:
                    if args.only is not None:
                        raise
                    found, note = [], str(error)
                rows += found
                if note:
                    notes.append(f"{name}: left out, it {note}" if note[0].islower() else f"{name}: {note}")
                elif (least := pays_from(found)) is None:
                    notes.append(f"{name}: merging does not pay at the longest context measured")
                else:
                    notes.append(f"{name}: merging pays from {least} steps on, of the lengths measured")
                write(rows, notes, args.json)
    except TsmergeError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    show(rows, args)
    for note in notes:
        print(note)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version}" for name, version in versions().items())
    )


if __name__ == "__main__":
    main()
