"""Merged against unmerged on one transformer encoder, in one interleaved run.

    python benchmarks/encoder.py [--batch 1,4] [--threads 1,2] [--runs 15] [--only NAME,...] [--json FILE]

A T5-small-size encoder (d 512, 6 layers, 8 heads, random weights) over N = 512 tokens: eager PyTorch with sdpa,
torch.compile, unmerged ONNX Runtime, OpenVINO where installed, and merged ONNX Runtime at r = 64, N/4, halving, and
with nothing to merge at run time (all merge nodes present, ``min_tokens`` above N).

Prints medians and ratios to unmerged ONNX Runtime (the median of the ratios of neighbouring runs, and the ratio of the
fastest runs, which says how noisy the machine was), the share of time in
merge nodes (ONNX Runtime's profiler; the merge operators and the gathers that let positions and masks follow), and the
efficiency: measured speed-up over that of the FLOPs of all matrix products. With two threads, turns in which the two
cores shared a cache and turns in which they did not (a virtual machine's host moves them) are told apart. Needs torch,
transformers, chronos-forecasting, onnxruntime; times nothing on a GPU.
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
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.backends.onnxruntime.profile import merge_share
from tsmerge_export.backends.openvino.network import compile_file
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.errors import MissingDependencyError
from tsmerge_export.families import get
from tsmerge_export.inspection.flops import count
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.bench import cores

TOKENS, WIDTH = 512, 512
CONFIG = {
    "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": WIDTH, "d_ff": 2048, "d_kv": 64,
    "num_heads": 8, "num_layers": 6, "num_decoder_layers": 1, "vocab_size": 4096, "feed_forward_proj": "relu",
    "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
    "chronos_config": {
        "tokenizer_class": "MeanScaleUniformBins", "tokenizer_kwargs": {"low_limit": -15.0, "high_limit": 15.0},
        "n_tokens": 4096, "n_special_tokens": 2, "pad_token_id": 0, "eos_token_id": 1, "use_eos_token": True,
        "model_type": "seq2seq", "context_length": TOKENS - 1, "prediction_length": 64, "num_samples": 20,
        "temperature": 1.0, "top_k": 50, "top_p": 1.0,
    },
}  # fmt: skip
MERGES = {
    "merged r=64": MergeConfig(r=64),
    "merged N/4": MergeConfig(ratio="1/4"),
    "merged N/2": MergeConfig(ratio="1/2"),
    "merged r(N)=0": MergeConfig(ratio="1/2", min_tokens=100_000),
    "compact N/4": MergeConfig(ratio="1/4", positions="compact"),
}
BASE = "onnxruntime"


def encoder() -> torch.nn.Module:
    """The model, float32, seeded random weights."""
    torch.manual_seed(0)
    return get("chronos-t5").build(CONFIG).eval()


def build_files(model: torch.nn.Module, names: list[str], folder: Path) -> dict[str, Path]:
    """ONNX files by candidate name."""
    compilation = Compilation(CheckpointSource.load(model), MergeConfig(method="none"))
    component = compilation.source.components[0]
    compilation.plain(component, folder)
    files = {}
    for name in names:
        merge = MERGES.get(name, MergeConfig(method="none"))
        target = folder / str(len(files))
        target.mkdir()
        files[name] = compilation.merged(component, target, merge).merged
    return files


def candidates(
    model: torch.nn.Module,
    files: dict[str, Path],
    inputs: dict[str, np.ndarray],
    threads: int,
    wanted: set[str] | None,
) -> dict[str, Callable[[], Any]]:
    """Callables that run one forward, by name."""
    torch.set_num_threads(threads)
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    found: dict[str, Callable[[], Any]] = {}

    def take(name: str) -> bool:
        return wanted is None or name in wanted

    if take("eager sdpa"):
        model.set_attn_implementation("sdpa")
        found["eager sdpa"] = lambda: model.encoder(**tensors)
    if take("torch.compile"):
        compiled = torch.compile(model.encoder)
        found["torch.compile"] = lambda: compiled(**tensors)
    for name, path in files.items():
        if take(name):
            opened = open_session(path, threads, timed=True)
            found[name] = lambda opened=opened: opened.run(None, inputs)
    if take("openvino"):
        try:
            network = compile_file(files[BASE], threads)
        except MissingDependencyError as error:
            print(f"{error}: left out", file=sys.stderr)
        else:
            found["openvino"] = lambda: network(inputs)
    return found


def interleaved(
    runners: dict[str, Callable[[], Any]], runs: int, label: str, threads: int
) -> tuple[dict[str, list[float]], list[str]]:
    """Seconds of every run, all candidates in turn, after a warm-up of two; and of every turn where the cores were."""
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    places: list[str] = []
    with torch.no_grad(), Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=(runs + 2) * len(runners))
        gc.disable()
        for turn in range(runs + 2):
            before = place(threads)
            for name, run in runners.items():
                start = time.perf_counter()
                run()
                if turn >= 2:
                    seconds[name].append(time.perf_counter() - start)
                bar.advance(task)
            if turn >= 2:
                after = place(threads)
                places.append(before if before == after else "cores moved meanwhile")
        gc.enable()
    return seconds, places


def place(threads: int) -> str:
    """Whether the cores share a cache, in words; nothing with one thread."""
    found = cores.distance() if threads > 1 else None
    if found is None:
        return ""
    return "cores share a cache" if found < cores.FAR else "cores share no cache"


def measure(
    batch: int,
    threads: int,
    runs: int,
    wanted: set[str] | None,
    model: torch.nn.Module,
    files: dict[str, Path],
) -> list[dict[str, Any]]:
    """One row per candidate and place of the cores, at one batch size and thread count."""
    component = get("chronos-t5").components(model)[0]
    inputs = component.example(model, batch, TOKENS - 1)
    runners = candidates(model, files, inputs, threads, wanted)
    seconds, places = interleaved(runners, runs, f"batch {batch}, threads {threads}", threads)
    flops = {name: count(onnx.load(file), inputs).total for name, file in files.items()}
    shares = {name: merge_share(file, inputs, threads) for name, file in files.items() if name in MERGES}
    rows = []
    for where in sorted(set(places)):
        turns = [index for index, found in enumerate(places) if found == where]
        base = [seconds[BASE][index] for index in turns]
        for name in seconds:
            times = [seconds[name][index] for index in turns]
            ratio = statistics.median(b / t for b, t in zip(base, times, strict=True))
            row: dict[str, Any] = {
                "candidate": name, "batch": batch, "threads": threads, "tokens": TOKENS, "runs": len(turns),
                "cores": where, "median_ms": 1e3 * statistics.median(times), "min_ms": 1e3 * min(times),
                "speedup": ratio, "fastest": min(base) / min(times),
            }  # fmt: skip
            if name in MERGES:
                ideal = flops[BASE] / flops[name]
                row |= {"flop_ideal": ideal, "efficiency": ratio / ideal, "merge_share": shares[name]}
            rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print a table to stdout for each place of the cores."""
    for where in sorted({row["cores"] for row in rows}):
        _table([row for row in rows if row["cores"] == where])


def _table(rows: list[dict[str, Any]]) -> None:
    columns = (
        "candidate",
        "median ms",
        "min ms",
        "speed-up",
        "of fastest",
        "FLOP ideal",
        "efficiency",
        "in merge nodes",
    )
    table = Table(
        title=f"N = {TOKENS}, batch {rows[0]['batch']}, threads {rows[0]['threads']}, {rows[0]['runs']} runs in turn"
        + (rows[0]["cores"] and f", {rows[0]['cores']}")
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "candidate" else "right")
    for row in rows:
        extra = ["", "", ""]
        if "efficiency" in row:
            extra = [
                f"{row['flop_ideal']:.2f}x",
                f"{row['efficiency']:.3f}",
                f"{row['merge_share']:.1%}",
            ]
        table.add_row(
            row["candidate"],
            f"{row['median_ms']:.1f}",
            f"{row['min_ms']:.1f}",
            f"{row['speedup']:.2f}x",
            f"{row['fastest']:.2f}x",
            *extra,
        )
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", default="1,4", help="batch sizes, comma-separated")
    parser.add_argument("--threads", default="1,2", help="thread counts, comma-separated")
    parser.add_argument("--runs", type=int, default=15, help="timed runs of each candidate")
    parser.add_argument("--only", help="candidates, comma-separated; unmerged onnxruntime always runs")
    parser.add_argument("--json", type=Path, help="write the rows here")
    args = parser.parse_args()
    wanted = None if args.only is None else {BASE, *args.only.split(",")}
    model = encoder()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        names = [BASE, *(name for name in MERGES if wanted is None or name in wanted)]
        files = build_files(model, names, Path(folder))
        for threads in map(int, args.threads.split(",")):
            for batch in map(int, args.batch.split(",")):
                found = measure(batch, threads, args.runs, wanted, model, files)
                show(found)
                rows += found
    versions = {name: metadata.version(name) for name in ("torch", "onnxruntime", "onnx", "transformers")}
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        + ", ".join(f"{k} {v}" for k, v in versions.items())
    )
    if args.json is not None:
        args.json.write_text(json.dumps({"versions": versions, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
