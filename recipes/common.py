"""What the recipes share: flags, training of a small model, the verdicts as a table."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from transformers.utils.logging import disable_progress_bar

import tsmerge_export as tsm
from tsmerge_export import families
from tsmerge_export.console.progress import EXPORT_STEPS, RichProgress
from tsmerge_export.demo import SAMPLE_SERIES
from tsmerge_export.errors import TsmergeError
from tsmerge_export.forecast.history import clock
from tsmerge_export.report.text import print_verdicts
from tsmerge_export.verify.data import Table, need_rows, read_table

#: ``(model, past [B, context], future [B, horizon])`` -> the loss of a batch of univariate series.
Loss = Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]


#: A small encoder and decoder over lagged values.
LAGGED: dict[str, Any] = {
    "prediction_length": 24, "context_length": 168, "lags_sequence": [1, 2, 3, 4, 5, 6, 7, 24], "num_time_features": 2,
    "d_model": 32, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
}  # fmt: skip


def point_loss(model: Any, past: torch.Tensor, future: torch.Tensor) -> torch.Tensor:
    """Mean squared error in standard deviations of the window, of PatchTST and PatchTSMixer."""
    result = model(past_values=past[..., None])
    error = (result.prediction_outputs - future[..., None]) / result.scale.clamp(min=1e-2)
    loss: torch.Tensor = error.square().mean()
    return loss


def lagged_loss(model: Any, past: torch.Tensor, future: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of the future, given all of it before, of the Time Series Transformer and its like."""
    count, horizon = past.shape[1], future.shape[1]
    times = torch.from_numpy(clock(-count, count + horizon, model.config.num_time_features)).expand(
        len(past), -1, -1
    )
    found = model(
        past_values=past, past_time_features=times[:, :count], past_observed_mask=torch.ones_like(past),
        future_values=future, future_time_features=times[:, count:],
    )  # fmt: skip
    loss: torch.Tensor = found.loss
    return loss


def arguments(
    doc: str, model: Path | str | None, ratio: str, **choices: tuple[str, ...]
) -> argparse.Namespace:
    """Flags of a recipe; ``doc`` is its description. Without a ``model`` that ships, a small one is trained.

    ``choices`` are flags of the recipe's own with their values, the default first.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if model is None:
        parser.add_argument("model", nargs="?", help="folder or hub id (default: a small one is trained)")
        parser.add_argument(
            "--minutes", type=float, default=3.0, help="of training, at most (default: %(default)s)"
        )
        parser.add_argument("--steps", type=int, default=2000, help="of training (default: %(default)s)")
    else:
        parser.add_argument(
            "model", nargs="?", default=str(model), help="folder or hub id (default: %(default)s)"
        )
    parser.add_argument(
        "-o", "--output", default="build/recipe", help="bundle to write (default: %(default)s)"
    )
    parser.add_argument(
        "--ratio", default=ratio, help="share of tokens removed per layer (default: %(default)s)"
    )
    for name, values in choices.items():
        parser.add_argument(
            f"--{name}", choices=values, default=values[0], help="of the trained model (default: %(default)s)"
        )
    parser.add_argument("--data", help="CSV for the merge cost (default: the bundled sample series)")
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    return parser.parse_args()


def export(args: argparse.Namespace) -> tsm.Bundle:
    """Export with local merging at k = 1, or with none; print the verdicts. A user's mistake ends in one line."""
    try:
        unmerged = args.ratio == "none"
        merge = tsm.MergeConfig("none") if unmerged else tsm.MergeConfig("local", k=1, ratio=args.ratio)
        with RichProgress(EXPORT_STEPS) as progress:
            bundle = tsm.export(
                args.model, merge, output=args.output, data=args.data, force=args.force, progress=progress
            )
    except TsmergeError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    print_verdicts(bundle.verdicts, title=f"{args.model}: {merge.describe()}")
    return bundle


def trained(args: argparse.Namespace, family: str, config: dict[str, Any], loss: Loss) -> None:
    """Train a small model on the first 80 % of the rows of ``--data``, save it beside the bundle.

    ``args.model`` then names it. The merge cost is measured on the last 20 %, which training never sees. Does nothing
    where a model was named.
    """
    if args.model is not None:
        return
    torch.manual_seed(0)
    chosen = families.get(family)
    model: Any = chosen.build(config)
    try:
        table = read_table(SAMPLE_SERIES if args.data is None else args.data)
        need_rows(table.name, int(len(table.values) * 0.8), chosen.context(model), chosen.horizon(model))
    except TsmergeError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    fit(model.train(), _windows(table, chosen.context(model), chosen.horizon(model)), loss, args)
    args.model = f"{args.output}-model"
    disable_progress_bar()
    model.eval().save_pretrained(args.model)


def _windows(table: Table, context: int, horizon: int) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """Draws 32 windows of random columns, each in standard deviations of its column; gaps are filled forward."""
    values = table.values[: int(len(table.values) * 0.8)]
    held = np.maximum.accumulate(np.where(np.isnan(values), 0, np.arange(len(values))[:, None]), axis=0)
    values = np.nan_to_num(np.take_along_axis(values, held, axis=0))
    values = (values - values.mean(0)) / np.maximum(values.std(0), 1e-9)
    rng = np.random.default_rng(0)

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        starts = rng.integers(0, len(values) - context - horizon + 1, 32)
        columns = rng.integers(0, values.shape[1], 32)
        rows = np.stack([values[s : s + context + horizon, c] for s, c in zip(starts, columns, strict=True)])
        return tuple(torch.from_numpy(rows.astype(np.float32)).split([context, horizon], 1))  # type: ignore[return-value]

    return draw


def fit(
    model: Any,
    draw: Callable[[], tuple[torch.Tensor, torch.Tensor]],
    loss: Loss,
    args: argparse.Namespace,
) -> None:
    """AdamW with a cosine schedule over ``--steps``, or as many as ``--minutes`` allow."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    begin, seen = time.monotonic(), []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("train", total=1.0)
        share = 0.0
        while share < 1:
            share = max((len(seen) + 1) / args.steps, (time.monotonic() - begin) / (60 * args.minutes))
            for group in optimizer.param_groups:
                group["lr"] = 5e-4 * (1 + np.cos(np.pi * min(share, 1.0)))
            value = loss(model, *draw())
            optimizer.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            seen.append(value.item())
            bar.update(task, completed=min(share, 1.0))
    tenth = max(1, len(seen) // 10)
    print(
        f"trained {len(seen)} steps in {time.monotonic() - begin:.0f} s: loss {np.mean(seen[:tenth]):.3f} in the first "
        f"tenth, {np.mean(seen[-tenth:]):.3f} in the last"
    )
