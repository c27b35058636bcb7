"""``tsmerge distill MODEL``: flags and command."""

from __future__ import annotations

import argparse
import datetime
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsmerge_export.cli.merging import add_merging, merge_config
from tsmerge_export.cli.model import add_model_options
from tsmerge_export.cli.readers import batch, names, percent, rate, seconds, whole
from tsmerge_export.cli.tables import FILES, add_table_options, read_tables
from tsmerge_export.errors import TsmergeError
from tsmerge_export.settings.precision import FP32, TRAINABLE

if TYPE_CHECKING:
    from tsmerge_export.bundle.distillation import Timed
    from tsmerge_export.console.progress import Progress
    from tsmerge_export.settings.config import MergeConfig
    from tsmerge_export.tools.distill.result import Distilled
    from tsmerge_export.tools.distill.settings import Recipe

HELP = "train a model's weights for the merging that it is used with"


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument(
        "model", metavar="MODEL", help="folder, hub id or .pt file; its unmerged self teaches"
    )
    add_merging(parser)
    group = parser.add_argument_group(
        "training",
        "what --ratio leaves open is the largest of --elastic, or 1/2: half of the tokens in every layer",
    )
    group.add_argument(
        "--data",
        metavar="FILE",
        nargs="+",
        help=f"series to train and judge on, each split in time 60:20:20: {FILES}; default: synthetic series",
    )
    group.add_argument("--column", type=names, metavar="NAME,...", help="columns to use; default: all")
    group.add_argument("--budget", type=seconds, metavar="TIME", help="of training; default: 15min")
    group.add_argument("--steps", type=whole(1), metavar="N", help="train for so many, instead of a budget")
    group.add_argument(
        "--elastic", metavar="R,R,...", help="one checkpoint for all these ratios; 0 is unmerged"
    )
    group.add_argument(
        "--trainable",
        default="all",
        metavar="WHAT",
        help="all (default), norm+attention, or lora:R of rank R",
    )
    group.add_argument(
        "--batch", type=batch, default="auto", metavar="N", help="windows per step; default: auto, by memory"
    )
    group.add_argument("--lr", type=rate, metavar="X", help="highest learning rate; default: by model size")
    group.add_argument(
        "--precision",
        default=FP32,
        metavar="KIND",
        help=f"train for files in this precision, rounded as there: {', '.join(TRAINABLE)}; default: {FP32}",
    )
    group.add_argument("--seed", type=whole(0), default=0, metavar="N", help="default: 0")
    group.add_argument("--device", default="auto", metavar="NAME", help="auto (default), cpu, cuda or cuda:N")
    group.add_argument("--threads", type=whole(1), metavar="N", help="of PyTorch; default: half of the cores")
    group.add_argument(
        "--context",
        type=whole(1),
        metavar="N",
        help="steps of the windows; default: all that model and data allow",
    )
    group.add_argument(
        "--windows",
        type=whole(1),
        metavar="N",
        help="of the test part, per column; default: all, or 64 in all of a model that draws step by step",
    )
    group.add_argument(
        "--max-increase",
        type=percent,
        default=3.0,
        metavar="P",
        help="goal: how much MSE and WQL may rise against the unmerged model, on the test part; default: 3%%",
    )
    group.add_argument(
        "--control",
        action="store_true",
        help="train as long without merging too, to tell repair from fine-tuning",
    )
    group.add_argument(
        "--no-speed", action="store_true", help="do not time merged against unmerged ONNX files at the end"
    )
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o", "--output", metavar="DIR", help="checkpoint to write; default: <model>-distilled"
    )
    group.add_argument("--force", action="store_true", help="replace a checkpoint that a distillation wrote")
    group.add_argument(
        "--resume", action="store_true", help="go on from where a run with the same flags was interrupted"
    )
    group.add_argument("--json", metavar="FILE", help="also write the report as JSON")
    add_table_options(parser, "--data")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, test, write. Returns 0, also where the goal is not met."""
    from tsmerge_export.cli.commands import default_output
    from tsmerge_export.cli.files import check_files, check_inside, write_json

    merge = merge_config(args)
    check_files(args)
    from tsmerge_export.tools.distill.distill import check_model
    from tsmerge_export.tools.distill.folder import holds_state, kept, remove, state_of
    from tsmerge_export.tools.distill.result import check_folder
    from tsmerge_export.tools.distill.settings import Recipe

    given = (
        "trainable",
        "budget",
        "steps",
        "batch",
        "lr",
        "seed",
        "device",
        "control",
        "context",
        "windows",
        "threads",
        "precision",
    )
    recipe = Recipe(
        elastic=args.elastic or (), max_increase=args.max_increase / 100,
        **{name: getattr(args, name) for name in given},
    )  # fmt: skip
    merge = _with_ratio(merge, recipe)
    recipe.points(merge)
    recipe.torch_device()
    check_model(args.model)
    args.output = args.output or default_output(args.model, "distilled")
    output = check_folder(args.output, args.force)
    check_inside(args, output)
    state = state_of(output)
    with kept(state):
        if args.resume and not holds_state(state):
            _say(f"--resume: nothing is kept in {state} yet, the training starts at its beginning")
        elif holds_state(state) and not args.resume:
            _say(
                f"a training that was interrupted is kept in {state}; it starts again (--resume goes on with it)"
            )
        try:
            report = _work(args, merge, recipe, state)
        except KeyboardInterrupt:
            if holds_state(state):
                _say(f"the training is kept in {state}; the same command with --resume goes on with it")
            raise
        remove(state)
    from tsmerge_export.bundle.distillation import report_of_distillation
    from tsmerge_export.console.terminal import print_table
    from tsmerge_export.report.distillation import AGAINST, course_words, goal, score_table, speed_words

    write_json(args.json, report)
    found = report_of_distillation(report)
    print(f"{found.family}: {course_words(found)}")
    header, rows = score_table(found, found.speeds)
    print_table(header, rows, f"{AGAINST[0].upper()}{AGAINST[1:]}", (0, 1))
    if found.speeds:
        print(speed_words(found.speeds, found.recipe.precision))
    for note in found.notes:
        print(f"note: {note}")
    print(goal(found))
    print(f"checkpoint: {args.output}", flush=True)
    return 0


def _with_ratio(merge: MergeConfig | None, recipe: Recipe) -> MergeConfig:
    """The setting, with the amount that is left open filled in."""
    from fractions import Fraction

    from tsmerge_export.settings.config import MergeConfig

    ratio = max(recipe.elastic, default=Fraction(1, 2))
    if merge is None:
        return MergeConfig(ratio=ratio)
    return replace(merge, ratio=ratio) if merge.open and not merge.at_run_time else merge


def _work(args: argparse.Namespace, merge: MergeConfig, recipe: Recipe, state: Path) -> dict[str, Any]:
    """Train, test, time, and put the checkpoint with its report into place. Returns the report."""
    from tsmerge_export.cli.handler import raise_if_interrupted
    from tsmerge_export.console.progress import DISTILL_STEPS, RichProgress
    from tsmerge_export.report.write import write_distillation
    from tsmerge_export.tools.distill.distill import distill
    from tsmerge_export.typed import plain

    tables = read_tables(args, columns=args.column)
    options = {name: getattr(args, name) for name in ("family", "config", "trust_remote_code")}
    with RichProgress(DISTILL_STEPS, raise_if_interrupted) as progress:
        distilled = distill(
            args.model, merge, data=tables or None, recipe=recipe, state=state, resume=args.resume,
            progress=progress, **options,
        )  # fmt: skip
        speeds, notes = ((), ()) if args.no_speed else _speeds(distilled, args.threads, progress)
    content = distilled.record() | {
        "format": "tsmerge-distillation-report",
        "source": args.model,
        "data": args.data or [],
        "table": _reading(args),
        "output": Path(args.output).name,
        "speeds": plain(speeds),
        "notes": [*distilled.notes, *notes],
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    distilled.save(args.output, args.force, beside=partial(write_distillation, content))
    return content


def _reading(args: argparse.Namespace) -> list[str]:
    """The flags that say how the tables are read."""
    from tsmerge_export.cli.tables import table_options

    columns = [] if args.column is None else ["--column", ",".join(args.column)]
    return [*table_options(args).words(), *columns]


def _speeds(
    distilled: Distilled, threads: int | None, progress: Progress
) -> tuple[tuple[Timed, ...], tuple[str, ...]]:
    """What the trained settings bring, and notes. A model that cannot be exported has no speed, but is no error."""
    from tsmerge_export import families
    from tsmerge_export.tools.bench.group import first_only
    from tsmerge_export.tools.distill.speed import speeds

    progress.step("speed")
    try:
        found = speeds(distilled, distilled.trained.settings(), threads=threads, progress=progress)
    except TsmergeError as error:
        return (), (f"no speed-up was measured: {error}",)
    first = first_only(families.get(distilled.family), distilled.model)
    return found, () if first is None else (first,)


def _say(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)
