"""Each merging operator alone: time and memory against the number of tokens, in ONNX Runtime and in eager PyTorch.

    python benchmarks/operators.py [--tokens 128,...,16384] [--features 64,512] [--threads 1] [--runs 9]
                                   [--batch 1] [--only NAME,...] [--plugin FILE] [--plot FILE.png] [--json FILE]

Float32 rows of random tokens, a quarter of them removed. All candidates of all sizes run in turn; medians. Growth
per doubling of N is counted from 1,024 on: its mean and its greatest step. ``copy`` is a copy of x by ONNX Runtime
(Identity) in the same run, which reuses memory; ``copy, eager`` is ``x.clone()``, whose memory may come as fresh pages
from the system where x is large. With ``--plugin`` also the native operators of that library (``plugins/onnxruntime``).
Quadratic methods stop at ``--most`` tokens. Memory is the growth of the process's resident memory to its peak during
one run at the longest size, in multiples of x, each method in a process of its own (Linux only).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import parser
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tsmerge_export import ops
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.backends.onnxruntime.native import CPU_LIBRARY
from tsmerge_export.backends.onnxruntime.place import Place
from tsmerge_export.merge.plan import make_plan
from tsmerge_export.settings.config import MergeConfig

MERGES = {
    "local k=1": MergeConfig(k=1, ratio="1/4"),
    "local k=8": MergeConfig(k=8, ratio="1/4"),
    "global": MergeConfig(method="global", ratio="1/4"),
    # Random tokens are hardly alike: a low threshold, so that about a quarter of them exceeds it.
    "dynamic k=1": MergeConfig(method="dynamic", k=1, threshold=0.0),
    "per series k=1": MergeConfig(method="dynamic", k=1, threshold=0.0, per_series=True),
    "pitome": MergeConfig(method="pitome", ratio="1/4"),
    "ssm": MergeConfig(method="ssm", ratio="1/4"),
}
QUADRATIC = ("global", "pitome", "ssm")
COPY = "copy"
NATIVE = ", native"


def operator(merge: MergeConfig) -> onnx.ModelProto:
    """``x [B, N, D] -> y [B, M, D]`` by one merge node; the tokens are their own metric and of size 1."""
    step = make_plan(merge, 1)[0]
    settings = ", ".join(f"{name} = {value}" for name, value in step.attributes.items())
    model = parser.parse_model(f"""
        <ir_version: {ops.MIN_IR_VERSION}, opset_import: ["" : 18, "{ops.DOMAIN}" : {ops.VERSION}]>
        merge (float[B, N, D] x, float[B, N] size) => (float[B, M, D] y)
        {{ y, size_out, kept, target = {ops.DOMAIN}.{step.op_type}<{settings}>(x, x, size) }}""")
    node = model.graph.node[0]
    node.overload = ops.variant_key(step.op_type, step.attributes)
    model.functions.append(ops.function(step.op_type, step.attributes, opset=18))
    return model


def inputs(tokens: int, features: int, batch: int = 1) -> dict[str, np.ndarray]:
    """Rows of random tokens."""
    x = np.random.default_rng(tokens).standard_normal((batch, tokens, features)).astype(np.float32)
    return {"x": x, "size": np.ones((batch, tokens), np.float32)}


def candidates(
    names: list[str], threads: int, plugin: Path | None
) -> dict[str, Callable[[dict[str, np.ndarray]], Any]]:
    """Callables by name; each takes the inputs."""
    identity = parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]> g (float[B, N, D] x) => (float[B, N, D] y) { y = Identity(x) }'
    )
    plain = open_session(identity, threads, timed=True)
    found: dict[str, Callable[[dict[str, np.ndarray]], Any]] = {
        COPY: lambda feed: plain.run(None, {"x": feed["x"]}),
        f"{COPY}, eager": lambda feed: torch.from_numpy(feed["x"]).clone(),
    }
    for name in names:
        opened, step = (
            open_session(operator(MERGES[name]), threads, timed=True),
            make_plan(MERGES[name], 1)[0],
        )
        found[name] = lambda feed, opened=opened: opened.run(None, feed)
        if plugin is not None and step.op_type in CPU_LIBRARY.operators:
            fast = open_session(operator(MERGES[name]), threads, timed=True, place=Place.of(plugin=plugin))
            found[name + NATIVE] = lambda feed, fast=fast: fast.run(None, feed)
        found[f"{name}, eager"] = lambda feed, step=step: step(
            torch.from_numpy(feed["x"]), torch.from_numpy(feed["size"])
        )
    return found


def times(names: list[str], args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per size and candidate: median milliseconds, and the growth from half of the length."""
    torch.set_num_threads(args.threads)
    runners = candidates(names, args.threads, args.plugin)
    sizes = [(tokens, features) for features in args.features for tokens in args.tokens]
    feeds = {size: inputs(*size, args.batch) for size in sizes}
    seconds: dict[tuple[str, int, int], list[float]] = {
        (name, *size): []
        for name in runners
        for size in sizes
        if size[0] <= args.most or name.split(",")[0] not in QUADRATIC
    }
    with Progress(console=Console(stderr=True), transient=True) as bar, torch.no_grad():
        task = bar.add_task("operators", total=len(seconds) * (args.runs + 1))
        # Sizes one after the other in every turn: a slow spell of the machine is one of all sizes, and no growth.
        for turn in range(args.runs + 1):
            last = None
            for (name, *size), values in seconds.items():
                feed = feeds[size[0], size[1]]
                if name != last:  # what ran before has left the caches and the threads to its own
                    runners[name](feed)
                last = name
                start = time.perf_counter()
                runners[name](feed)
                if turn:
                    values.append(time.perf_counter() - start)
                bar.advance(task)
    return [
        {
            "candidate": name,
            "tokens": tokens,
            "features": features,
            "ms": 1e3 * statistics.median(values),
            "growth": _growth(seconds.get((name, tokens // 2, features)), values),
        }
        for (name, tokens, features), values in seconds.items()
    ]


def _growth(half: list[float] | None, whole: list[float]) -> float | None:
    """Times from half of the length: the median over the turns."""
    return None if half is None else statistics.median(b / a for a, b in zip(half, whole, strict=True))


def _resident(field: str) -> int:
    """Resident memory of this process, now (VmRSS) or at its peak (VmHWM), in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def _memory(name: str, plugin: Path | None, tokens: int, features: int, threads: int, queue: Any) -> None:
    opened = open_session(operator(MERGES[name]), threads, timed=True, place=Place.of(plugin=plugin))
    feed = inputs(tokens, features)
    opened.run(None, inputs(8, features))
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident
    before = _resident("VmRSS")
    opened.run(None, feed)
    queue.put((_resident("VmHWM") - before) / feed["x"].nbytes)


def memory(names: list[str], args: argparse.Namespace) -> dict[str, float]:
    """Growth of the peak memory during one run, in multiples of x."""
    if not sys.platform.startswith("linux"):
        return {}
    context, found = multiprocessing.get_context("spawn"), {}
    runs: list[tuple[str, Path | None]] = [(name, None) for name in names]
    if args.plugin is not None:
        runs += [
            (name, args.plugin)
            for name in names
            if make_plan(MERGES[name], 1)[0].op_type in CPU_LIBRARY.operators
        ]
    for name, plugin in runs:
        tokens = min(max(args.tokens), args.most) if name in QUADRATIC else max(args.tokens)
        queue: Any = context.Queue()
        process = context.Process(
            target=_memory, args=(name, plugin, tokens, max(args.features), args.threads, queue)
        )
        process.start()
        found[name if plugin is None else name + NATIVE] = float(queue.get())
        process.join()
    return found


def show(rows: list[dict[str, Any]], peaks: dict[str, float], args: argparse.Namespace) -> None:
    """Tables on stdout: milliseconds by size, and how the time grows when N doubles."""
    console = Console(width=150)
    names = list(dict.fromkeys(row["candidate"] for row in rows))
    for features in args.features:
        by = {(row["candidate"], row["tokens"]): row["ms"] for row in rows if row["features"] == features}
        table = Table(
            title=f"batch {args.batch}, D = {features}, {args.threads} thread(s), "
            f"{args.runs} runs in turn: milliseconds"
        )
        for column in (
            "operator",
            *map(str, args.tokens),
            "per doubling",
            "at most",
            "most of a copy",
            "most of a clone",
        ):
            table.add_column(column, justify="left" if column == "operator" else "right")
        for name in names:
            known = [(tokens, by[name, tokens]) for tokens in args.tokens if (name, tokens) in by]
            # Below a thousand tokens the fixed cost of a run hides the growth.
            steps = [
                row["growth"]
                for row in rows
                if (row["candidate"], row["features"]) == (name, features)
                and row["growth"]
                and row["tokens"] >= 2048
            ]
            growth = [f"{statistics.geometric_mean(steps):.2f}x", f"{max(steps):.2f}x"] if steps else ["", ""]
            cells = [f"{by[name, tokens]:.2f}" if (name, tokens) in by else "" for tokens in args.tokens]
            copies = [
                f"{max(value / by[copied, tokens] for tokens, value in known):.1f}x"
                for copied in (COPY, f"{COPY}, eager")
            ]
            table.add_row(name, *cells, *growth, *copies)
        console.print(table)
    for name, times_x in peaks.items():
        console.print(f"peak memory of {name}: {times_x:.1f} times x")


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Time against tokens, both logarithmic, one panel per width; a colour per method, a style per form of it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    widths = sorted({row["features"] for row in rows})
    candidates = list(dict.fromkeys(row["candidate"] for row in rows))
    methods = list(dict.fromkeys(name.split(",")[0] for name in candidates))
    figure, panels = pyplot.subplots(
        1, len(widths), figsize=(5.5 * len(widths) + 2, 4.5), squeeze=False, sharey=True
    )
    for panel, features in zip(panels[0], widths, strict=True):
        for name in candidates:
            own = [row for row in rows if row["candidate"] == name and row["features"] == features]
            method = name.split(",")[0]
            colour = "black" if method == COPY else f"C{methods.index(method)}"
            style = "--" if "eager" in name else ":" if NATIVE in name else "-"
            panel.loglog(
                [r["tokens"] for r in own],
                [r["ms"] for r in own],
                style,
                color=colour,
                marker=".",
                linewidth=1.2,
                label=name,
            )
        panel.set(title=f"D = {features}", xlabel="tokens N")
        panel.grid(True, which="major", alpha=0.3)
    panels[0][0].set_ylabel("milliseconds")
    panels[0][-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser_ = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    numbers = lambda text: [int(part) for part in text.split(",")]  # noqa: E731
    parser_.add_argument("--tokens", type=numbers, default=[2**p for p in range(7, 15)])
    parser_.add_argument("--features", type=numbers, default=[64, 512])
    parser_.add_argument("--batch", type=int, default=1)
    parser_.add_argument("--threads", type=int, default=1)
    parser_.add_argument("--runs", type=int, default=9)
    parser_.add_argument("--most", type=int, default=4096, help="longest N of quadratic methods")
    parser_.add_argument("--only", help="methods, comma-separated: " + ", ".join(MERGES))
    parser_.add_argument("--plugin", type=Path, help="libtsmerge_ort.so: time its operators too")
    parser_.add_argument("--plot", type=Path, help="write the log-log plot here")
    parser_.add_argument("--json", type=Path, help="write the rows here")
    args = parser_.parse_args()
    names = list(MERGES) if args.only is None else args.only.split(",")
    unknown = [name for name in names if name not in MERGES]
    if unknown:
        parser_.error(f"--only {unknown[0]} is not known; known are: {', '.join(MERGES)}")
    rows = times(names, args)
    peaks = memory(names, args)
    show(rows, peaks, args)
    versions = {name: metadata.version(name) for name in ("torch", "onnxruntime", "onnx")}
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        + ", ".join(f"{k} {v}" for k, v in versions.items())
    )
    if args.plot is not None:
        plot(rows, args.plot)
    if args.json is not None:
        args.json.write_text(
            json.dumps({"versions": versions, "rows": rows, "memory": peaks}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
