"""Train a small forecaster on a state-space model, export it with merging between its blocks, print the verdicts.

python recipes/mamba_forecaster.py                        # Mamba-2, three minutes, the bundled sample series
python recipes/mamba_forecaster.py --backbone mamba --minutes 5 --data series.csv --merge local --ratio 1/8

Series are cut into patches; each is one token. Training forecasts behind every patch, on the rows before the test share
of the data, which the merge cost is measured on; in its second half the model merges as the exported one does, so that
it learns to live with it. The checkpoint is one file that every command of tsmerge takes.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

import tsmerge_export as tsm
from tsmerge_export import demo
from tsmerge_export.console.progress import EXPORT_STEPS, RichProgress
from tsmerge_export.errors import TsmergeError, UsageError
from tsmerge_export.families.patch_mamba import PatchMambaConfig, PatchMambaForForecasting
from tsmerge_export.report.text import print_verdicts
from tsmerge_export.verify.data import Table, read_table

_TEST_SHARE = 0.2  # as the merge cost takes it
_BATCH = 16


def config(kind: str, context: int, horizon: int, layers: int) -> PatchMambaConfig:
    """A model of about 0.2 million parameters with 4 layers."""
    backbone = {"model_type": kind, "hidden_size": 64, "num_hidden_layers": layers, "state_size": 8}
    if kind == "mamba2":
        backbone |= {"head_dim": 32, "num_heads": 4, "n_groups": 1, "chunk_size": 16}
    return PatchMambaConfig(backbone, patch_length=8, context_length=context, prediction_length=horizon)


def windows(table: Table, steps: int) -> np.ndarray:
    """Training rows, every column a series ``[C, T]`` float32. UsageError: too short for one window."""
    rows = table.values[: int(len(table.values) * (1 - _TEST_SHARE))].T.astype(np.float32)
    if rows.shape[1] < steps:
        raise UsageError(
            f"{table.name}: {rows.shape[1]} rows to train on, a window needs {steps}; use --context"
        )
    return rows


def draw(series: np.ndarray, steps: int, rng: np.random.Generator) -> Tensor:
    """``[B, steps]``: random windows of random columns; half of them as a random mixture of two."""
    starts = rng.integers(0, series.shape[1] - steps + 1, (2, _BATCH))
    columns = rng.integers(0, len(series), (2, _BATCH))
    parts = series[columns[..., None], starts[..., None] + np.arange(steps)]
    weight = np.where(rng.random(_BATCH) < 0.5, rng.random(_BATCH), 1.0)[:, None]
    deviation = np.maximum(np.nanstd(parts, axis=2, keepdims=True), 1e-6)
    mixed = weight * parts[0] / deviation[0] + (1 - weight) * parts[1] / deviation[1]
    return torch.from_numpy(np.where(weight == 1, parts[0], mixed).astype(np.float32))


def loss_of(model: PatchMambaForForecasting, window: Tensor) -> Tensor:
    """Mean pinball loss behind every patch, in units of the context's deviation."""
    c = model.config
    context, levels = window[:, : c.context_length], torch.tensor(c.quantiles)[:, None]
    forecast, loc, scale = model.every(context)
    behind = window[:, c.patch_length :].unfold(1, c.prediction_length, c.patch_length)
    target = ((behind[:, : forecast.shape[1]] - loc[..., None]) / scale[..., None])[:, :, None]
    error = (target - forecast).nan_to_num(0.0)
    # A series that leaves its context's range says little about the others.
    return torch.maximum(levels * error, (levels - 1) * error).clamp(max=20).mean()


def train(args: argparse.Namespace, table: Table, merge: tsm.MergeConfig) -> PatchMambaForForecasting:
    """Train for ``--minutes``, the last ``--merged-share`` of them merged; the learning rate falls with time."""
    torch.manual_seed(0)
    context, horizon, minutes = args.context, args.horizon, args.minutes
    model = PatchMambaForForecasting(config(args.backbone, context, horizon, args.layers)).train()
    series = windows(table, context + horizon)
    rng, optimizer = np.random.default_rng(0), torch.optim.AdamW(model.parameters(), lr=2e-3)
    start, smooth, steps = time.monotonic(), 0.0, 0
    columns = (TextColumn("training: {task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=60 * minutes)
        while (passed := time.monotonic() - start) < 60 * minutes or steps < 2:
            done = min(1.0, passed / (60 * minutes))
            if done > 1 - args.merged_share:
                tsm.apply(model, merge)
            optimizer.param_groups[0]["lr"] = 2e-3 * min(1.0, (steps + 1) / 50) * (1 - done) + 1e-5
            loss = loss_of(model, draw(series, context + horizon, rng))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            steps += 1
            smooth += (loss.item() - smooth) / min(steps, 100)
            bar.update(task, completed=passed, description=f"step {steps}, loss {smooth:.3f}")
    print(f"trained {steps} steps in {minutes:g} minutes, loss {smooth:.4f}")
    return tsm.remove(model).eval()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", choices=("mamba2", "mamba"), default="mamba2")
    parser.add_argument("--minutes", type=float, default=3, help="of training (default: %(default)s)")
    parser.add_argument(
        "--merged-share",
        type=float,
        default=0.5,
        help="of the training, merged as the export is (default: 0.5)",
    )
    parser.add_argument("--layers", type=int, default=4, help="blocks (default: %(default)s)")
    parser.add_argument("--context", type=int, default=512, help="steps read (default: %(default)s)")
    parser.add_argument("--horizon", type=int, default=48, help="steps forecast (default: %(default)s)")
    parser.add_argument("--merge", choices=("ssm", "local"), default="ssm")
    parser.add_argument(
        "--ratio", default="1/8", help="share of tokens removed per block (default: %(default)s)"
    )
    parser.add_argument("--data", help="CSV to train and measure on (default: the bundled sample series)")
    parser.add_argument(
        "-o", "--output", default="build/mamba", help="bundle to write (default: %(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    args = parser.parse_args()
    try:
        # Hidden states and residual apart, as in the paper: the residual is never pruned.
        apart = {"metric": "hidden", "residual_prune_share": 0} if args.merge == "ssm" else {}
        merge = tsm.MergeConfig(args.merge, ratio=args.ratio, **apart)
        if Path(args.output).exists() and not args.force:
            raise UsageError(f"{args.output} exists; choose another -o, or add --force")
        data = demo.SAMPLE_SERIES if args.data is None else args.data
        model = train(args, read_table(data), merge)
        Path(args.output).parent.mkdir(parents=True, exist_ok=True)
        checkpoint = tsm.save_checkpoint(model, f"{args.output}.pt")
        with RichProgress(EXPORT_STEPS) as progress:
            bundle = tsm.export(
                checkpoint, merge, output=args.output, data=data, force=args.force, progress=progress
            )
    except TsmergeError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    print_verdicts(bundle.verdicts, title=f"{args.backbone}: {merge.describe()}")
    print(f"checkpoint: {checkpoint}; bundle: {bundle.path}")


if __name__ == "__main__":
    main()
