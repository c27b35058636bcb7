"""Cost against length: a plain Transformer encoder, and state-space models, merged against unmerged in ONNX Runtime.

    python benchmarks/long_context.py [--part encoder,mamba2,mamba] [--tokens 1024,2048,4096,8192,16384] [--runs 7]
                                      [--threads 2] [--ratio 1/4] [--heads 2] [--json FILE] [--plot FILE.png]

*encoder*: 10 layers, d 512, feed-forward 2,048, pre-norm, random weights, batch 1; merging is local, k = 1. Attention
is plain matrix products and softmax, the form that exporters write, so it holds N x N scores for each head: with 2
heads of 256 a layer needs 2.1 GB for them at N = 16,384, with 8 heads 8.6 GB. Matrix products cost the same either way.

*mamba2*, *mamba*: 4 blocks, d 256, state 64 and 16, random weights, every token a time step; unmerged, local k = 1 and
ssm (quadratic, only up to --most).

All candidates of one length take turns, each in a process of its own, which also reports its peak memory. Two checks
are printed, and the command ends with 1 if they fail: no value that a k = 1 merge makes is larger than 2 copies of the
tokens (so nothing has N x N entries), from ONNX Runtime's profile of a real run; and the time of a state-space model,
unmerged or with k = 1, grows linearly (at most 2.5 times when the length doubles). Times nothing on a GPU.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn

from tsmerge_export.backends.onnxruntime.portable import to_portable
from tsmerge_export.backends.onnxruntime.profile import largest_merge_value
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.console.progress import NoProgress
from tsmerge_export.families import get
from tsmerge_export.onnx_model.weights import write_model
from tsmerge_export.rewrite.merge_graph import merge_graph
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.bench.candidate import Candidate
from tsmerge_export.tools.bench.run import interleave

LAYERS, WIDTH = 10, 512
SERIES = {"low_limit": -15.0, "high_limit": 15.0, "context_length": 1 << 20}
STATE_SPACE: dict[str, dict[str, Any]] = {
    "mamba2": {
        "architectures": ["Mamba2ForCausalLM"], "model_type": "mamba2", "hidden_size": 256, "num_heads": 8,
        "head_dim": 64, "state_size": 64, "n_groups": 1, "num_hidden_layers": 4, "vocab_size": 64, "chunk_size": 64,
        "series_config": SERIES,
    },
    "mamba": {
        "architectures": ["MambaForCausalLM"], "model_type": "mamba", "hidden_size": 256, "state_size": 16,
        "num_hidden_layers": 4, "vocab_size": 64, "series_config": SERIES,
    },
}  # fmt: skip
BASE = "unmerged"
_COPIES = 2
_LINEAR = 2.5  # at most so many times the time at twice the length


class Layer(nn.Module):
    """Pre-norm attention and feed-forward, attention as matrix products and softmax."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, N, D]`` -> ``[B, N, D]``."""
        normed = self.first(x)
        q, k, v = (
            read(normed).reshape(*x.shape[:2], self.heads, WIDTH // self.heads).transpose(1, 2)
            for read in (self.q, self.k, self.v)
        )
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        x = x + self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        hidden: Tensor = self.down(torch.relu(self.up(self.second(x))))
        return x + hidden


def encoder(heads: int) -> ir.Model:
    """Plain ONNX, ``x [batch, length, 512] -> y`` alike."""
    torch.manual_seed(0)
    module = nn.Sequential(*(Layer(heads) for _ in range(LAYERS)), nn.LayerNorm(WIDTH)).eval()
    dynamic = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    with torch.no_grad():
        program = torch.export.export(
            module, (torch.randn(2, 37, WIDTH),), dynamic_shapes=dynamic, strict=False
        )
        found = torch.onnx.export(
            program, dynamo=True, opset_version=18, verbose=False, input_names=["x"], output_names=["y"]
        )
    assert found is not None
    return found.model


def plain_model(part: str, heads: int, folder: Path) -> tuple[ir.Model, dict[str, int]]:
    """The unmerged graph of a part, and what is protected."""
    if part == "encoder":
        return encoder(heads), {}
    family = get(part)
    torch.manual_seed(0)
    model = family.build(STATE_SPACE[part])
    source = CheckpointSource.load(model)
    return source.plain(source.components[0], folder, NoProgress()), {"protect_last": 1}


def files_of(part: str, args: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """ONNX files by candidate."""
    plain, protected = plain_model(part, args.heads, folder)
    merges = {"local k=1": MergeConfig(ratio=args.ratio)}
    if part != "encoder":
        merges["ssm"] = MergeConfig("ssm", ratio=args.ratio, metric="hidden", residual_prune_share=0)
    files = {BASE: folder / f"{part}.onnx"}
    write_model(to_portable(plain.clone()), files[BASE])
    for number, (name, merge) in enumerate(merges.items()):
        files[name] = folder / f"{part}-{number}.onnx"
        model, report = merge_graph(plain.clone(), merge, **protected)
        if report.barriers:
            raise SystemExit(f"{part}, {name}: not merged all the way: {report.barriers[0]}")
        write_model(to_portable(model), files[name])
    return files


def inputs_of(part: str, tokens: int) -> dict[str, np.ndarray]:
    """One series. A whole number of chunks is as good as any here: the file was exported for all lengths."""
    rng = np.random.default_rng(tokens)
    if part == "encoder":
        # Neighbours are alike, as in a series.
        walk = rng.standard_normal((1, tokens, WIDTH)).cumsum(1)
        return {"x": ((walk - walk.mean(1)) / walk.std(1)).astype(np.float32)}
    return {"input_ids": rng.integers(0, 64, (1, tokens), dtype=np.int64)}


def measure(
    part: str, tokens: int, files: dict[str, Path], folder: Path, args: argparse.Namespace
) -> list[dict]:
    """A row per candidate at one length."""
    stored = folder / "inputs.npz"
    np.savez(stored, **inputs_of(part, tokens))
    chosen = {name: path for name, path in files.items() if name != "ssm" or tokens <= args.most}
    candidates = [Candidate(n, "onnxruntime", part, str(p), {}, n != BASE) for n, p in chosen.items()]
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"{part}, N = {tokens}", total=None)
        timings = interleave(
            candidates, "model", stored, args.threads, runs=args.runs, seconds=args.seconds,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    rows = []
    for timing in timings:
        row: dict[str, Any] = {"part": part, "candidate": timing.candidate.name, "tokens": tokens}
        if timing.error is None:
            row["median_ms"] = 1e3 * statistics.median(timing.seconds)
            row["speedup"] = statistics.median(
                b / t for b, t in zip(timings[0].seconds, timing.seconds, strict=False)
            )
            row["runs"], row["peak_mib"] = len(timing.seconds), (timing.peak or 0) / 2**20
        else:
            row["error"] = timing.error
        rows.append(row)
    return rows


def check_merge_values(part: str, path: Path, tokens: int, width: int) -> dict[str, Any]:
    """Whether no value that merging makes is larger than a few copies of the tokens."""
    op_type, shape = largest_merge_value(path, inputs_of(part, tokens))
    found: dict[str, Any] = {"part": part, "tokens": tokens, "largest": shape, "by": op_type}
    found["linear"] = math.prod(shape) <= _COPIES * tokens * width
    return found


def show(part: str, rows: list[dict[str, Any]]) -> None:
    """One table to stdout: growth is the time over that of the length before."""
    table = Table(title=f"{part}: time and peak memory of the process against tokens")
    for column in ("N", "candidate", "median ms", "growth", "speed-up", "peak MiB", "runs"):
        table.add_column(column, justify="left" if column == "candidate" else "right")
    for row in rows:
        if "error" in row:
            table.add_row(f"{row['tokens']:,}", row["candidate"], row["error"], "", "", "", "")
            continue
        growth = "" if row.get("growth") is None else f"{row['growth']:.2f}x"
        table.add_row(
            f"{row['tokens']:,}", row["candidate"], f"{row['median_ms']:,.1f}", growth, f"{row['speedup']:.2f}x",
            f"{row['peak_mib']:,.0f}", str(row["runs"]),
        )  # fmt: skip
    Console(width=100).print(table)


def add_growth(rows: list[dict[str, Any]]) -> None:
    """Times the time at half the length, where that was measured."""
    times = {(row["candidate"], row["tokens"]): row.get("median_ms") for row in rows}
    for row in rows:
        before = times.get((row["candidate"], row["tokens"] // 2))
        row["growth"] = row["median_ms"] / before if before and "median_ms" in row else None


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Time and peak memory against tokens, both logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    parts = list(dict.fromkeys(row["part"] for row in rows))
    figure, panels = pyplot.subplots(2, len(parts), figsize=(5 * len(parts), 7), squeeze=False, sharex=True)
    for column, part in enumerate(parts):
        for name in dict.fromkeys(row["candidate"] for row in rows if row["part"] == part):
            own = [r for r in rows if r["part"] == part and r["candidate"] == name and "median_ms" in r]
            for panel, key in zip(panels[:, column], ("median_ms", "peak_mib"), strict=True):
                panel.loglog([r["tokens"] for r in own], [r[key] for r in own], marker=".", label=name)
                panel.grid(True, which="both", alpha=0.3)
        panels[0][column].set(title=part)
        panels[1][column].set(xlabel="tokens N")
        panels[0][column].legend(fontsize=8)
    panels[0][0].set_ylabel("milliseconds")
    panels[1][0].set_ylabel("peak MiB of the process")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    numbers = lambda text: [int(part) for part in text.split(",")]  # noqa: E731
    parser.add_argument("--part", default="encoder,mamba2,mamba", help="comma-separated (default: all)")
    parser.add_argument("--tokens", type=numbers, default=[1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--runs", type=int, default=7, help="timed runs of each candidate")
    parser.add_argument(
        "--seconds", type=float, default=300, help="no new turn of a length after that, yet 5"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ratio", default="1/4", help="share of the tokens that each layer removes")
    parser.add_argument("--heads", type=int, default=2, help="of the encoder's attention, a divisor of 512")
    parser.add_argument("--most", type=int, default=4096, help="longest N of the quadratic ssm")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--plot", type=Path, help="write the log-log plot here")
    args = parser.parse_args()
    parts = args.part.split(",")
    unknown = [part for part in parts if part not in ("encoder", *STATE_SPACE)]
    if unknown:
        parser.error(f"--part {unknown[0]} is not known; known are: encoder, {', '.join(STATE_SPACE)}")
    rows: list[dict[str, Any]] = []
    checks: list[dict[str, Any]] = []
    linear = True
    for part in parts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            files, mine = files_of(part, args, folder), []
            for tokens in args.tokens:
                mine += measure(part, tokens, files, folder, args)
            width = WIDTH if part == "encoder" else STATE_SPACE[part]["hidden_size"]
            # Shapes follow from N alone: two lengths tell as much as all.
            checks += [check_merge_values(part, files["local k=1"], n, width) for n in (1024, 2048)]
        add_growth(mine)
        show(part, mine)
        if part != "encoder":
            linear = linear and all(
                (row["growth"] or 0) <= _LINEAR for row in mine if row["candidate"] != "ssm"
            )
        rows += mine
    for check in checks:
        print(
            f"{check['part']}, N = {check['tokens']:,}: the largest value that merging makes is {check['largest']}, "
            f"by {check['by']}: {'nothing is N x N' if check['linear'] else 'TOO LARGE'}"
        )
    if parts != ["encoder"]:
        print(f"state-space models grow linearly with N: {'yes' if linear else 'NO'}")
    versions = {name: metadata.version(name) for name in ("torch", "onnxruntime", "onnx", "transformers")}
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {args.threads} threads, Python {platform.python_version()}, "
        + ", ".join(f"{k} {v}" for k, v in versions.items())
    )
    if args.plot is not None:
        plot(rows, args.plot)
    if args.json is not None:
        args.json.write_text(
            json.dumps({"versions": versions, "rows": rows, "checks": checks}, indent=2) + "\n"
        )
    if not (linear and all(check["linear"] for check in checks)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
