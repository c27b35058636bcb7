"""Chronos-T5 bundles against chronos-forecasting's ``predict``, in one interleaved run; and what merging costs.

    python benchmarks/chronos_t5.py [--models tiny,nano] [--runs 5] [--threads 2] [--json FILE]
    python benchmarks/chronos_t5.py --data DIR [--windows 6]     also accuracy, on ETTh1, ETTh2 and exchange_rate

Speed: batch 8, context 512, horizon 64, 20 samples. ``tiny`` is the published size of chronos-t5-tiny (8 M
parameters) with random weights, ``nano`` the trained model that ships. Candidates: chronos-forecasting as its users
call it (eager PyTorch, its default attention), ours unmerged, ours merged (N/4 and halving in every encoder layer), and
Chronos-Bolt for perspective. Every candidate lives in a process of its own, which sleeps while another one runs; time
is that of a call, peak memory that of the whole process (imports included), series per second follow from the median.

Accuracy: the trained model on the last fifth of each table, rolling windows, the same random numbers for every cut;
weighted quantile loss (scaled CRPS) and MASE of utilsforecast, means over columns. Times nothing on a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

BATCH, CONTEXT, HORIZON, SAMPLES = 8, 512, 64, 20
BASE = "chronos-forecasting"
MERGES = {"ours, unmerged": None, "ours, N/4": "1/4", "ours, N/2": "1/2"}
BOLT = "Chronos-Bolt, ours"
CUTS = ("1/100", "1/50", "1/20", "1/10", "1/6", "1/4", "1/2")
DATA = {"ETTh1": ("ETTh1.csv", 24), "ETTh2": ("ETTh2.csv", 24), "exchange_rate": ("exchange_rate.txt.gz", 5)}
LIMIT = 3.0  # per cent of weighted quantile loss

TINY = {
    "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": 256, "d_ff": 1024, "d_kv": 64,
    "num_heads": 4, "num_layers": 4, "num_decoder_layers": 4, "vocab_size": 4096, "feed_forward_proj": "relu",
    "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "initializer_factor": 0.05,
    "tie_word_embeddings": False, "is_encoder_decoder": True,
    "chronos_config": {
        "tokenizer_class": "MeanScaleUniformBins", "tokenizer_kwargs": {"low_limit": -15.0, "high_limit": 15.0},
        "n_tokens": 4096, "n_special_tokens": 2, "pad_token_id": 0, "eos_token_id": 1, "use_eos_token": True,
        "model_type": "seq2seq", "context_length": CONTEXT, "prediction_length": HORIZON, "num_samples": SAMPLES,
        "temperature": 1.0, "top_k": 50, "top_p": 1.0,
    },
}  # fmt: skip


# -- making the candidates, in a process of its own ------------------------------------------------------------------


def make(folder: Path, model: str, ratios: list[str | None]) -> None:
    """Write ``eager`` (a model folder) and a bundle per ratio, ``bundle-0``, ``bundle-1``, ...; not proved here."""
    import torch

    from tsmerge_export import demo
    from tsmerge_export.bundle import BundleWriter
    from tsmerge_export.bundle.manifest import Described
    from tsmerge_export.checkpoint import load_model
    from tsmerge_export.compile.checkpoint_source import CheckpointSource
    from tsmerge_export.compile.compilation import Compilation
    from tsmerge_export.compile.shared_weights import share
    from tsmerge_export.families import get
    from tsmerge_export.settings.config import MergeConfig

    if model == "tiny":
        torch.manual_seed(0)
        core: Any = get("chronos-t5").build(TINY)
    else:
        core = load_model(demo.CHRONOS_BOLT if model == "bolt" else demo.CHRONOS_T5).model
    family = get("chronos-bolt" if model == "bolt" else "chronos-t5")
    core.config.architectures = [type(core).__name__]
    core.save_pretrained(folder / "eager")
    compilation = Compilation(CheckpointSource.load(core), MergeConfig(method="none"))
    for component in compilation.source.components:
        compilation.plain(component, folder)
    for index, ratio in enumerate(ratios):
        merge = MergeConfig(method="none") if ratio is None else MergeConfig(ratio=ratio)
        with BundleWriter(folder / f"bundle-{index}") as writer:
            parts = [
                compilation.merged(component, writer.path, merge, scratch=writer.scratch)
                for component in compilation.source.components
            ]
            share([part.merged for part in parts], writer.path)
            writer.commit(
                Described(
                    family=family.name,
                    merge=merge.to_dict(),
                    components=tuple(part.entry() for part in parts),
                    pipeline=family.pipeline(core),
                )
            )


# -- one candidate, in a process of its own --------------------------------------------------------------------------


def work(kind: str, path: str, threads: int) -> None:
    """Answer every line on stdin by one timed call; an empty line ends."""
    from tsmerge_export.tools.bench.worker import peak_bytes

    warnings.simplefilter("ignore")
    series = np.random.default_rng(0).standard_normal((BATCH, CONTEXT)).cumsum(1).astype(np.float32)
    if kind == BASE:
        import torch
        from chronos import ChronosPipeline

        torch.set_num_threads(threads)
        pipeline: Any = ChronosPipeline.from_pretrained(path)
        inputs: Any = torch.from_numpy(series)
        options = {"num_samples": SAMPLES}
    else:
        import tsmerge_export as tsm

        pipeline, inputs = tsm.pipeline(path, threads=threads), series
        options = {} if kind == BOLT else {"num_samples": SAMPLES}
    for line in sys.stdin:
        if not line.strip():
            break
        start = time.perf_counter()
        found = pipeline.predict(inputs, HORIZON, **options)
        seconds = time.perf_counter() - start
        assert found.shape[0] == BATCH and found.shape[-1] == HORIZON
        print(json.dumps({"seconds": seconds, "peak_mb": peak_bytes() / 2**20}), flush=True)


class Worker:
    """A candidate's process."""

    def __init__(self, kind: str, path: Path, threads: int) -> None:
        # The number of threads is set before any library is loaded: OpenMP and BLAS read it then.
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, __file__, "--work", kind, str(path), str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.seconds: list[float] = []
        self.peak_mb = 0.0

    def call(self, keep: bool = True) -> None:
        """One call; ``keep``: it counts."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a candidate's process ended; see its message above")
        answer = json.loads(line)
        self.peak_mb = answer["peak_mb"]
        if keep:
            self.seconds.append(answer["seconds"])
        time.sleep(0.1)  # threads that spin after their work are asleep before the next candidate begins

    def close(self) -> None:
        """End the process."""
        self._process.communicate("\n")


def speed(model: str, runs: int, threads: int, scratch: Path) -> list[dict[str, Any]]:
    """One row per candidate, timed in turns."""
    folder, bolt = scratch / model, scratch / "bolt"
    child("--make", str(folder), model, json.dumps(list(MERGES.values())))
    if not bolt.exists():
        child("--make", str(bolt), "bolt", "[null]")
    paths = {BASE: folder / "eager"}
    paths |= {name: folder / f"bundle-{index}" for index, name in enumerate(MERGES)}
    paths[BOLT] = bolt / "bundle-0"
    workers = {name: Worker(name, path, threads) for name, path in paths.items()}
    try:
        for worker in workers.values():
            worker.call(keep=False)
        for run in range(runs):
            order = list(workers.values())
            for worker in order if run % 2 == 0 else order[::-1]:
                worker.call()
            print(f"{model}: run {run + 1} of {runs}", file=sys.stderr)
    finally:
        for worker in workers.values():
            worker.close()
    base = workers[BASE]
    return [
        {
            "model": model,
            "candidate": name,
            "median_s": statistics.median(worker.seconds),
            "min_s": min(worker.seconds),
            "speedup": statistics.median(b / s for b, s in zip(base.seconds, worker.seconds, strict=True)),
            "series_per_s": BATCH / statistics.median(worker.seconds),
            "peak_mb": worker.peak_mb,
            "memory_ratio": worker.peak_mb / base.peak_mb,
        }
        for name, worker in workers.items()
    ]


def child(*args: str) -> None:
    """Run this file again with these arguments."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, __file__, *args], check=True, env=environment)


# -- accuracy --------------------------------------------------------------------------------------------------------


def accuracy(data: Path, windows: int, threads: int, scratch: Path) -> list[dict[str, Any]]:
    """One row per table and cut of the trained model."""
    import tsmerge_export as tsm
    from tsmerge_export.forecast.base import LEVELS
    from tsmerge_export.verify.data import read_table, rolling_windows

    ratios = [None, *CUTS]
    child("--make", str(scratch / "cuts"), "nano", json.dumps(ratios))
    rows: list[dict[str, Any]] = []
    for name, (file, season) in DATA.items():
        table = read_table(data / file)
        cut = rolling_windows(table, CONTEXT, HORIZON, limit=windows)
        for index, ratio in enumerate(ratios):
            model = tsm.pipeline(scratch / "cuts" / f"bundle-{index}", threads=threads)
            quantiles, _ = model.predict_quantiles(
                cut.context.reshape(-1, CONTEXT), HORIZON, quantile_levels=LEVELS, num_samples=SAMPLES, seed=0
            )
            wql, mase = score(cut, table, quantiles, LEVELS, season)
            row = {"data": name, "cut": ratio or "none", "wql": wql, "mase": mase}
            base = rows[-index] if index else row
            row |= {f"{key}_change": 100 * (row[key] / base[key] - 1) for key in ("wql", "mase")}
            rows.append(row)
            print(f"{name}: {ratio or 'unmerged'}", file=sys.stderr)
    return rows


def score(cut: Any, table: Any, quantiles: Any, levels: Any, season: int) -> tuple[float, float]:
    """Weighted quantile loss and MASE, means over columns."""
    import pandas as pd
    from utilsforecast import losses

    columns, windows = cut.target.shape[:2]
    names = [f"q{level}" for level in levels]
    frame = pd.DataFrame(quantiles.reshape(-1, len(levels)), columns=names)
    frame["unique_id"] = np.repeat(cut.columns, windows * HORIZON)
    frame["ds"] = np.tile(np.arange(windows * HORIZON), columns)
    frame["y"] = cut.target.reshape(-1)
    first = len(table.values) - HORIZON * windows
    train = pd.DataFrame(
        {
            "unique_id": np.repeat(table.columns, first),
            "ds": np.tile(np.arange(-first, 0), columns),
            "y": table.values[:first].T.reshape(-1),
        }
    )
    wql = losses.scaled_crps(frame, {"model": names}, quantiles=np.array(levels))["model"]
    mase = losses.mase(frame.rename(columns={"q0.5": "model"}), ["model"], season, train)["model"]
    return float(wql.mean()), float(mase.mean())


def best_cut(rows: list[dict[str, Any]]) -> str:
    """The largest cut that costs at most 3 % of weighted quantile loss on every table."""
    worst = {cut: max(row["wql_change"] for row in rows if row["cut"] == cut) for cut in CUTS}
    fitting = [cut for cut in CUTS if worst[cut] <= LIMIT]
    if not fitting:
        return (
            f"No cut of {', '.join(CUTS)} per layer costs at most {LIMIT:g} % on every table: do not merge."
        )
    cut = fitting[-1]
    return (
        f"Largest cut that costs at most {LIMIT:g} % of weighted quantile loss on every table: "
        f"{cut} per layer ({worst[cut]:+.1f} % at worst)."
    )


# -- output ----------------------------------------------------------------------------------------------------------


def show(title: str, rows: list[dict[str, Any]], columns: dict[str, tuple[str, str]]) -> None:
    """Print a table to stdout; columns: key -> (heading, format)."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for key, (heading, _) in columns.items():
        table.add_column(heading, justify="left" if isinstance(rows[0][key], str) else "right")
    for row in rows:
        table.add_row(*(format(row[key], how) for key, (_, how) in columns.items()))
    Console(width=110).print(table)


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "--make":
        make(Path(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4]))
        return
    if len(sys.argv) > 1 and sys.argv[1] == "--work":
        work(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="tiny,nano", help="tiny, nano, or nothing for no timing")
    parser.add_argument("--runs", type=int, default=5, help="timed calls of each candidate")
    parser.add_argument("--threads", type=int, default=2, help="threads of each candidate")
    parser.add_argument("--data", type=Path, help="folder with ETTh1.csv, ETTh2.csv and exchange_rate.txt.gz")
    parser.add_argument("--windows", type=int, default=6, help="windows per column")
    parser.add_argument("--json", type=Path, help="write the rows here")
    args = parser.parse_args()
    found: dict[str, Any] = {"threads": args.threads, "runs": args.runs}
    with tempfile.TemporaryDirectory() as scratch:
        for model in filter(None, args.models.split(",")):
            rows = found[model] = speed(model, args.runs, args.threads, Path(scratch))
            show(
                f"chronos-t5 {model}: batch {BATCH}, context {CONTEXT}, horizon {HORIZON}, {SAMPLES} samples, "
                f"{args.threads} threads, {args.runs} runs in turn",
                rows,
                {
                    "candidate": ("", ""), "median_s": ("median s", ".3f"), "min_s": ("min s", ".3f"),
                    "speedup": ("speed-up", ".2f"), "series_per_s": ("series/s", ".1f"),
                    "peak_mb": ("peak MiB", ".0f"), "memory_ratio": ("of upstream's", ".2f"),
                },
            )  # fmt: skip
        if args.data is not None:
            rows = found["accuracy"] = accuracy(args.data, args.windows, args.threads, Path(scratch))
            show(
                f"chronos-t5 nano, tokens cut per encoder layer (local, k = 1); {args.windows} windows per column",
                rows,
                {
                    "data": ("", ""), "cut": ("cut", ""), "wql": ("WQL", ".4f"), "wql_change": ("change %", "+.1f"),
                    "mase": ("MASE", ".3f"), "mase_change": ("change %", "+.1f"),
                },
            )  # fmt: skip
            print(best_cut(rows))
    names = ("torch", "transformers", "chronos-forecasting", "onnxruntime", "numpy")
    found["versions"] = {name: metadata.version(name) for name in names}
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    )
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
