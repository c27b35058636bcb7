"""What ``tsmerge distill`` is worth: the nano models, merged, before and after training for it, beside speed.

    python benchmarks/distill.py --data DIR [--models chronos-bolt-nano,...] [--settings 1/4,1/2,elastic]
                                 [--positions compact] [--protect-newest 32] [--tuned FLAGS]
                                 [--steps 2000 | --budget 20min] [--seeds 0,1,2] [--control] [--threads 1] -o DIR

DIR holds ETTh1.csv, ETTh2.csv and exchange_rate.txt.gz as ``recipes/train_nano.py`` downloads them. Every training
learns from the first 60 % of each, is chosen by the next 20 % and tested on the last 20 %, once; then on a series that
it never saw, of statsmodels (``co2``, weekly), where that is installed. The setting ``tuned`` is what ``tsmerge tune``
recommends: ``--tuned`` takes the flags of merging that it prints. With ``--control`` the same weights are trained as
long without merging; what that gives hangs on model, seed and steps, not on the setting. A killed run goes on from its
state; trainings whose rows are in the output folder are not repeated, and all that are there are shown: several calls
add up. Prints changes of MSE and WQL against the original model, unmerged: the median over columns, in per cent, with
90 % intervals; of several seeds the mean and the range; then the largest speed-up that costs at most 3 % on every table
trained on, before and after; checkpoints and their ``distillation.json`` stay in the output folder. Runs on the CPU.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table as RichTable

import tsmerge_export as tsm
from tsmerge_export import demo, families
from tsmerge_export.cli.merging import add_merging, merge_config
from tsmerge_export.console.progress import DISTILL_STEPS, RichProgress
from tsmerge_export.errors import TsmergeError
from tsmerge_export.tools.distill import windows
from tsmerge_export.tools.distill.forecasts import UNMERGED, Judge
from tsmerge_export.tools.distill.result import Distilled
from tsmerge_export.tools.distill.scores import Change, changes_of
from tsmerge_export.tools.distill.speed import speeds
from tsmerge_export.verify.data import Table
from tsmerge_export.version import versions

FILES = ("ETTh1.csv", "ETTh2.csv", "exchange_rate.txt.gz")
ELASTIC = "0,1/10,1/4,1/2"
MODELS = ("chronos-bolt-nano", "chronos-t5-nano")
#: Per cent.
GOAL = 3.0
#: What follows a training's name in the name of the file that holds its rows.
ROWS = ".rows.json"


def unseen() -> list[Table]:
    """A series that no nano model and no distillation has seen; none where statsmodels is not installed."""
    try:
        from statsmodels.datasets import co2
    except ModuleNotFoundError:
        return []
    return [Table("co2", ("co2",), co2.load_pandas().data.to_numpy(np.float64))]


def elsewhere(original: torch.nn.Module, made: Distilled, table: Table) -> list[dict[str, Any]]:
    """Scores of a table's last fifth, or more where a context does not leave it."""
    family = families.get(made.family)
    objective = family.objective(original)
    assert objective is not None
    judge = Judge(family, objective, torch.device("cpu"), made.recipe.seed)
    context = min(family.context(original), len(table.values) * 4 // 5 - objective.horizon)
    (scored,) = windows.prepare(
        [table], horizon=objective.horizon, longest=family.context(original), context=context,
        any_length=objective.any_length, limit=5, test_limit=None, seed=0,
    ).scored  # fmt: skip
    reference = judge.errors(original, UNMERGED, scored.test)
    rows = []
    for merge in (*made.trained.settings(), UNMERGED):
        before = changes_of(judge.errors(original, merge, scored.test), reference, scored.test, 0)
        after = changes_of(judge.errors(made.model, merge, scored.test), reference, scored.test, 0)
        rows.append(row(f"{table.name} (unseen, context {context})", merge, before, after, None))
    return rows


def row(data: str, merge: tsm.MergeConfig, before: Any, after: Any, control: Any) -> dict[str, Any]:
    """JSON-ready, and what the table shows."""
    sides = {"before": before, "after": after, "control": control}
    return {
        "data": data,
        "ratio": str(merge.ratio) if merge.active else "0",
        **{
            side: None if found is None else {m: c.to_dict() for m, c in found.items()}
            for side, found in sides.items()
        },
        "shown": {side: "" if found is None else words(found) for side, found in sides.items()},
    }


def words(found: dict[str, Change]) -> str:
    """MSE and WQL with their intervals."""
    return " / ".join(f"{c.percent:+.1f} [{c.low:+.1f}, {c.high:+.1f}]" for c in (found["mse"], found["wql"]))


def over_seeds(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Of settings with several seeds: setting, data, ratio, seeds, MSE / WQL after and of the control."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for r in rows:
        groups.setdefault((r["training"].rpartition("-")[0], r["data"], r["ratio"]), []).append(r)

    def told(found: list[dict[str, Any]], side: str) -> str:
        values = {m: [r[side][m]["percent"] for r in found if r[side] is not None] for m in ("mse", "wql")}
        return " / ".join(
            f"{np.mean(of):+.1f} ({min(of):+.1f} to {max(of):+.1f})" for of in values.values() if len(of) > 0
        )

    return [
        (*group, str(len(found)), told(found, "after"), told(found, "control"))
        for group, found in groups.items()
        if len(found) > 1
    ]


def largest(rows: list[dict[str, Any]], side: str) -> tuple[str, float]:
    """The training, and the largest speed-up whose MSE and WQL rise by at most 3 % on every table trained on."""
    held: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for r in rows:
        if "unseen" not in r["data"] and r["ratio"] != "0":
            held.setdefault((r["training"], r["ratio"]), []).append(r)
    good = [
        (f"{training}, {ratio}", found[0]["speed"])
        for (training, ratio), found in held.items()
        if all(
            (percent := r[side][metric]["percent"]) is not None and percent <= GOAL
            for r in found
            for metric in ("mse", "wql")
        )
    ]
    return max([*good, ("unmerged", 1.0)], key=lambda one: one[1])


def trained(
    model: str, setting: str, seed: int, args: argparse.Namespace, bar: RichProgress
) -> list[dict[str, Any]]:
    """One training with its rows."""
    name = name_of(model, setting, seed, args)
    elastic = setting == "elastic"
    source = demo.CHRONOS_BOLT.parent / model
    made = tsm.distill(
        source,
        merge_of(setting, args),
        data=[args.data / file for file in FILES],
        elastic=ELASTIC if elastic else (),
        steps=args.steps,
        budget=args.budget,
        seed=seed,
        control=args.control,
        threads=args.threads,
        state=args.output / f"{name}.state",
        resume=True,
        progress=bar,
    )
    made.save(args.output / name, force=True)
    found = speeds(made, made.trained.settings(), threads=args.threads, progress=bar)
    fast = {str(tsm.MergeConfig.from_dict(one.merge).ratio): round(one.value, 2) for one in found}
    rows = [row(s.data, s.merge, s.before, s.after, s.control) for s in made.scores]
    original = tsm.load_model(source).model
    for table in unseen():
        rows += elsewhere(original, made, table)
    minutes = made.history.seconds / 60
    return [
        {
            "training": name,
            "steps": made.history.steps,
            "minutes": minutes,
            "speed": fast.get(r["ratio"], 1.0),
            **r,
        }
        for r in rows
    ]


def merge_of(setting: str, args: argparse.Namespace) -> tsm.MergeConfig:
    """What a training is for; of elastic weights at the largest of their ratios."""
    if setting == "tuned":
        return args.tuned  # type: ignore[no-any-return]
    return tsm.MergeConfig(
        "local",
        k=1,
        ratio=Fraction(1, 2) if setting == "elastic" else Fraction(setting),
        positions=args.positions,
        protect_newest=args.protect_newest,
    )


def flags_of_merging(text: str) -> tsm.MergeConfig:
    """The setting that flags of ``tsmerge-export`` stand for. Raises ArgumentTypeError."""
    parser = argparse.ArgumentParser(prog="--tuned", add_help=False)
    add_merging(parser)
    try:
        found = merge_config(parser.parse_args(shlex.split(text)))
    except TsmergeError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if found is None:
        raise argparse.ArgumentTypeError("no flag of merging")
    return found


def rows_of(model: str, setting: str, seed: int, args: argparse.Namespace, bar: RichProgress) -> None:
    """Write the rows of one training beside its checkpoint, unless they are there."""
    file = args.output / f"{name_of(model, setting, seed, args)}{ROWS}"
    if file.exists():
        return
    text = json.dumps(trained(model, setting, seed, args, bar), indent=1)
    part = file.with_suffix(".part")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(file)


def name_of(model: str, setting: str, seed: int, args: argparse.Namespace) -> str:
    """Of a training's checkpoint."""
    own = []
    if setting == "tuned":
        setting = args.tuned.brief().replace(" ", "_")
    else:
        own += ["compact"] if args.positions == "compact" else []
        own += [f"newest{args.protect_newest}"] if args.protect_newest else []
    return "-".join([model, setting.replace("/", "_"), *own, str(seed)])


def main() -> int:
    """Train, print, write."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/distill.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS))
    parser.add_argument("--settings", type=lambda text: text.split(","), default=["1/4", "1/2", "elastic"])
    parser.add_argument("--positions", choices=("gather", "compact"), default="gather")
    parser.add_argument("--protect-newest", type=int, default=0)
    parser.add_argument("--tuned", type=flags_of_merging, metavar="FLAGS")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--budget")
    parser.add_argument("--seeds", type=lambda text: [int(n) for n in text.split(",")], default=[0])
    parser.add_argument("--control", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    if ("tuned" in args.settings) != (args.tuned is not None):
        parser.error("the setting tuned and --tuned FLAGS go together")
    args.output.mkdir(parents=True, exist_ok=True)
    try:
        with RichProgress(DISTILL_STEPS, lambda: None) as bar:
            for model in args.models:
                for setting in args.settings:
                    for seed in args.seeds:
                        rows_of(model, setting, seed, args, bar)
    except TsmergeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    files = sorted(args.output.glob(f"*{ROWS}"))
    rows = [r for file in files for r in json.loads(file.read_text(encoding="utf-8"))]
    table = RichTable(title="MSE / WQL against the original model, unmerged, per cent [90 %]")
    for heading in ("training", "min", "data", "ratio", "speed-up", "before", "after", "control"):
        table.add_column(heading)
    for r in rows:
        shown = r["shown"]
        table.add_row(
            r["training"], f"{r['minutes']:.0f}", r["data"], r["ratio"], f"{r['speed']:.2f}",
            shown["before"], shown["after"], shown["control"],
        )  # fmt: skip
    Console(width=200).print(table)
    if several := over_seeds(rows):
        table = RichTable(title="mean (least to most) over seeds")
        for heading in ("setting", "data", "ratio", "seeds", "after", "control"):
            table.add_column(heading)
        for line in several:
            table.add_row(*line)
        Console(width=200).print(table)
    for model in args.models:
        found = [r for r in rows if r["training"].startswith(model)]
        before, after = largest(found, "before"), largest(found, "after")
        print(
            f"{model}: largest speed-up at most {GOAL:g} % worse on every table trained on: "
            f"{before[1]:.2f} before ({before[0]}), {after[1]:.2f} after ({after[0]})"
        )
    text = json.dumps({"rows": rows, "versions": versions()}, indent=1)
    (args.output / "distill.json").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
