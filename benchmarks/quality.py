"""What merging costs in accuracy: change of the MSE against tokens kept, for every method at several amounts.

    python benchmarks/quality.py --data DIR [--models bolt,t5] [--windows 8] [--only NAME;...] [--output FILE.md]

The trained models that ship forecast 64 steps from 512 over the test split (last 20 %) of ETTh1, ETTh2, exchange_rate,
``--windows`` windows spread evenly over each column; 0 is all. The figures are the median over columns of the MSE of
the median forecast on standardised data, merged in eager PyTorch, and the median over columns of its change against
unmerged (tsmerge_export.verify.change), with the worst column. DIR holds the three files as published; they are
checked by hash.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes"))

from nano.errors import UserError
from nano.evaluate import column_mse, cut_windows
from nano.series import Panel, load_panels

import tsmerge_export as tsm
from tsmerge_export import demo
from tsmerge_export.checkpoint import load_model
from tsmerge_export.families import for_model
from tsmerge_export.verify.change import least, over_columns, percent

MODELS = {"bolt": demo.CHRONOS_BOLT, "t5": demo.CHRONOS_T5}
RATIOS = ("1/10", "1/4", "1/2")
MERGES: dict[str, tsm.MergeConfig] = {
    **{f"local k=1, {ratio}": tsm.MergeConfig(k=1, ratio=ratio) for ratio in RATIOS},
    **{f"local k=8, {ratio}": tsm.MergeConfig(k=8, ratio=ratio) for ratio in RATIOS},
    **{f"global, {ratio}": tsm.MergeConfig(method="global", ratio=ratio) for ratio in RATIOS},
    **{
        f"dynamic k=1, {t}": tsm.MergeConfig(method="dynamic", k=1, threshold=t)
        for t in (0.98, 0.95, 0.9, 0.7)
    },
    **{f"pitome, {ratio}": tsm.MergeConfig(method="pitome", ratio=ratio) for ratio in RATIOS},
    "pitome gaussian, 1/4": tsm.MergeConfig(method="pitome", ratio="1/4", energy="gaussian"),
    **{f"ssm, {ratio}": tsm.MergeConfig(method="ssm", ratio=ratio) for ratio in RATIOS},
    "local k=1, 1/4, l2": tsm.MergeConfig(k=1, ratio="1/4", similarity="l2"),
    "local k=1, 1/4, metric key": tsm.MergeConfig(k=1, ratio="1/4", metric="key"),
    "local k=1, 1/4, linear": tsm.MergeConfig(k=1, ratio="1/4", schedule="linear"),
    **{
        f"local k=1, {ratio}, prop-attn": tsm.MergeConfig(k=1, ratio=ratio, prop_attn=True)
        for ratio in RATIOS
    },
}
NONE = "unmerged"


@dataclass
class Row:
    """One method on one model: share of tokens kept after the last layer, and the columns' MSE by data set."""

    model: str
    name: str
    kept: float
    mse: dict[str, list[float]]


def measure(
    model: Any, merge: tsm.MergeConfig, panels: list[Panel], windows: int
) -> tuple[float, dict[str, list[float]]]:
    """Mean share of tokens kept after the last layer, and per data set the MSE of every column."""
    family, core = for_model(model)
    component = family.components(core)[0]
    level = int(np.argmin(np.abs(np.asarray(family.quantile_levels(core)) - 0.5)))
    shares: list[float] = []

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
        return {name: value.numpy() for name, value in component.eager(core, tensors).items()}

    errors: dict[str, list[float]] = {}
    for panel in panels:
        columns = []
        for column in range(panel.values.shape[1]):
            series, actual = cut_windows(
                panel.values[:, column], panel.validation_end, len(panel.values), windows or None
            )
            with torch.no_grad(), tsm.merging(core, merge) as state:
                predicted = family.forecast(core, run, series, 0)[:, level]
                if state.steps:
                    shares.append(state.steps[-1].kept.shape[1] / state.steps[0].target.shape[1])
            columns.append(column_mse(predicted, actual))
        errors[panel.name] = columns
    return float(np.mean(shares)) if shares else 1.0, errors


def cell(mse: list[float], base: list[float] | None) -> str:
    """Median error, and against ``base`` the median of the columns' changes and the worst of them."""
    words = f"{np.median(mse):.4f}"
    if base is None:
        return words
    found = over_columns(
        [percent(before, after, least("mse")) for before, after in zip(base, mse, strict=True)]
    )
    return f"{words} ({found.median:+.1f} %, {found.worst_percent:+.1f} %)"


def table(rows: list[Row], arguments: str) -> str:
    """The page: one table for each model; ``arguments`` made it."""
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "chronos-forecasting")
    )
    lines = [
        "# Merge cost by method",
        "",
        f"Made on {datetime.date.today().isoformat()} by `python benchmarks/quality.py {arguments}`; "
        f"Python {platform.python_version()}, {versions}.",
        "",
        "Median over columns of the MSE of the median forecast (context 512, horizon 64, standardised, test split); in "
        "brackets its change against the unmerged model: the median over columns of the column's own change, and the "
        "worst column's. Tokens kept after the last layer.",
    ]
    for model in dict.fromkeys(row.model for row in rows):
        own = [row for row in rows if row.model == model]
        base, sets = own[0], list(own[0].mse)
        lines += ["", f"## chronos-{model}-nano", "", "| method | tokens kept | " + " | ".join(sets) + " |"]
        lines.append("|---|---:|" + "---:|" * len(sets))
        for row in own:
            cells = [cell(row.mse[name], None if row is base else base.mse[name]) for name in sets]
            lines.append(f"| {row.name} | {100 * row.kept:.0f} % | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the three published files")
    parser.add_argument("--models", default="bolt,t5", help="bolt, t5 or both")
    parser.add_argument("--windows", type=int, default=8, help="windows per column; 0 is all (default: 8)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", help="methods, by the start of their name, separated by semicolons")
    parser.add_argument("--output", type=Path, help="write the page here as well")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    wanted = [
        name
        for name in MERGES
        if args.only is None or any(name.startswith(part) for part in args.only.split(";"))
    ]
    try:
        panels = load_panels(args.data, args.data)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    rows = []
    models = args.models.split(",")
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("quality", total=len(models) * (len(wanted) + 1))
        for name in models:
            model = load_model(MODELS[name]).model.eval()
            for label in (NONE, *wanted):
                bar.update(task, description=f"{name}: {label}")
                merge = MERGES.get(label, tsm.MergeConfig(method="none"))
                rows.append(Row(name, label, *measure(model, merge, panels, args.windows)))
                bar.advance(task)
    only = "" if args.only is None else f" --only '{args.only}'"
    page = table(
        rows, f"--data DIR --models {args.models} --windows {args.windows} --threads {args.threads}{only}"
    )
    print(page)
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
