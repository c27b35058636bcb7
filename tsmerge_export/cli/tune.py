"""``tsmerge tune MODEL... --data FILE``: flags and command."""

from __future__ import annotations

import argparse
import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsmerge_export.cli.judged import add_judging, check_windows
from tsmerge_export.cli.model import add_model_options
from tsmerge_export.cli.precision import check_precisions, precisions
from tsmerge_export.cli.providers import add_provider_options, place_of, provider_options
from tsmerge_export.cli.readers import percent, seconds
from tsmerge_export.cli.tables import FILES, add_table_options, read_data
from tsmerge_export.errors import UsageError
from tsmerge_export.settings.precision import FP32, KINDS, Precision

if TYPE_CHECKING:
    from tsmerge_export.tables.table import Table
    from tsmerge_export.tools.tune.distilled import Checkpoint

HELP = "find the fastest merge setting whose error on your data stays within a budget"


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        help="folder, hub id or .pt; several: the front runs across them",
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        required=True,
        help=f"series, for validation and test split: {FILES}",
    )
    parser.add_argument(
        "--max-increase",
        type=percent,
        default=3.0,
        metavar="P",
        help="how much the error may rise, with 90%% confidence; default: 3%%",
    )
    parser.add_argument("--metric", choices=("mse", "wql"), default="wql", help="default: wql")
    parser.add_argument("--budget", type=seconds, default=600.0, metavar="TIME", help="default: 10min")
    parser.add_argument(
        "--distill",
        type=seconds,
        metavar="TIME",
        help="then train weights for the best settings, that long in all, and compare these too (see tsmerge distill)",
    )
    parser.add_argument(
        "--precision",
        type=precisions,
        metavar="KIND,...",
        help=f"choose among these precisions too ({', '.join(KINDS)}); the best settings are measured in each, fp16 "
        f"and bf16 on GPUs alone; default: {FP32}, and what the weights were trained for",
    )
    parser.add_argument("-o", "--output", metavar="DIR", help="bundle to write; default: <model>-tuned")
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    add_judging(parser)
    parser.add_argument("--json", metavar="FILE", help="also write everything that was tried as JSON")
    parser.add_argument("--plot", metavar="FILE", help="draw the Pareto front (png, svg or pdf)")
    add_table_options(parser, "--data")
    add_provider_options(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Search, choose, export. Returns 0, also where the answer is not to merge."""
    from tsmerge_export.cli.commands import default_output
    from tsmerge_export.cli.files import check_files, check_inside, folder_named, write_json
    from tsmerge_export.cli.handler import raise_if_interrupted

    check_files(args)
    check_windows(args)
    if args.config is not None and len(args.models) > 1:
        raise UsageError("--config goes with one model only; name one MODEL")
    if len(set(args.models)) < len(args.models):
        raise UsageError(f"{args.models[0]}: is named twice; name every model once")
    from tsmerge_export.bundle import check_output
    from tsmerge_export.checkpoint import check_source

    for model in args.models:
        check_source(model)
    output = folder_named(args.output or default_output(args.models[0], "tuned"))
    check_output(output, args.force)
    if args.distill is not None:
        from tsmerge_export.tools.distill.result import check_folder
        from tsmerge_export.tools.tune.distilled import names_of

        for name in names_of(output):
            check_inside(args, check_folder(name, args.force))
    if args.plot is not None:
        from tsmerge_export.tools.bench.plot import check_plot

        check_plot(args.plot)

    place = place_of(args)
    check_precisions(args.precision or (), place)
    from tempfile import TemporaryDirectory

    from tsmerge_export.console.progress import TUNE_STEPS, RichProgress
    from tsmerge_export.tables.source import open_source
    from tsmerge_export.tables.table import usable_columns
    from tsmerge_export.tools.bench.group import first_only
    from tsmerge_export.tools.tune.contender import prepare
    from tsmerge_export.tools.tune.log import kept
    from tsmerge_export.tools.tune.search import NONE, Search, Tried, identity_of, pareto
    from tsmerge_export.tools.tune.show import front_table, plot, print_answer
    from tsmerge_export.tools.tune.verdict import answer, settled
    from tsmerge_export.verify.checks import Checks
    from tsmerge_export.version import versions

    source = open_source(args.data, "--data")
    table = read_data(args, source=source, columns=args.column, empty_allowed=True)
    assert table is not None  # --data is required
    options: dict[str, Any] = {n: getattr(args, n) for n in ("family", "config", "trust_remote_code")}
    checks = Checks(threads=args.threads, seed=args.seed, place=place)
    study = Path(f"{output}.tune.log")
    identity = identity_of(
        args.models, source.content, args.metric, args.batch, args.length, args.windows,
        columns=args.column, threads=args.threads, table=table.options.words(), place=place,
    )  # fmt: skip
    with kept(study), TemporaryDirectory(prefix="tsmerge-tune-") as folder:
        with RichProgress(TUNE_STEPS, raise_if_interrupted) as progress:
            progress.step("load")
            prepared = partial(
                prepare,
                table=table,
                checks=checks,
                folder=Path(folder),
                windows=args.windows,
                batch=args.batch,
            )
            contenders = [prepared(model, length=args.length, options=options) for model in args.models]
            trained = [one.trained.precision for one in contenders if one.trained is not None]
            kinds = tuple(dict.fromkeys(args.precision or (FP32, *trained)))
            below = [kind for kind in kinds if kind != FP32]
            for contender in contenders:
                for kind in below:  # where it cannot be, that is said before the search
                    contender.run_of(NONE, kind)
            search = Search(contenders, args.metric, study, identity, args.seed)
            progress.step("search")
            shape = contenders[search.reference].validation.target.shape
            shown: dict[str, Any] = {
                "most": args.max_increase, "windows": f"{shape[1]} windows of {shape[0]} columns"
            }  # fmt: skip
            progress.below(front_table(search.tried, args.metric, **shown))

            def told(found: Tried, share: float) -> None:
                progress.update(round(1000 * share), 1000)
                tried = search.tried
                if any(found is t or found == t for t in pareto(tried)):
                    progress.below(front_table(tried, args.metric, **shown))

            search.run(args.budget, told)
            if not any(t.merge.active for t in search.tried):
                raise UsageError(
                    "--budget: over before one setting was measured; give more time (what is done is kept)"
                )
            made: list[Checkpoint] = []
            also: list[Tried] = []
            more: list[str] = []
            if args.distill is not None:
                from tsmerge_export.tools.tune.distilled import distill_best

                progress.step("distill")
                context = int(contenders[0].validation.context.shape[-1])
                made, also, more = distill_best(
                    search, usable_columns(table)[0], args.max_increase, args.distill, names=names_of(output),
                    prepared=lambda path: prepared(str(path), length=context, options={}), options=options,
                    force=args.force, seed=args.seed, threads=args.threads, progress=progress,
                )  # fmt: skip
            if below:
                progress.step("quantise")
                search.lower(below, args.max_increase, progress.update)
                progress.below(front_table(search.tried, args.metric, **shown))
            progress.step("test")
            tried = search.tried
            chosen = answer(
                search.contenders,
                search.reference,
                tried,
                args.metric,
                args.max_increase,
                progress.update,
                also,
                kinds,
            )
            tried = settled(tried, chosen.finals)
        notes = list(dict.fromkeys(note for one in contenders for note in one.notes))
        notes += [*search.notes, *more]
        if not place.on_cpu:
            notes.append(f"speed-ups over eager PyTorch: that ran on the CPU, the files in {place}")
        firsts = dict.fromkeys(first_only(one.source.of_family, one.source.model) for one in contenders)
        notes += [note for note in firsts if note]
        content = {
            "answer": chosen.to_dict(),
            "tried": [one.to_dict() for one in tried],
            "front": [tried.index(one) for one in pareto(tried)],
            "identity": identity,
            "metric": args.metric,
            "max_increase_percent": args.max_increase,
            "run": {
                "data": args.data,
                "table": table.options.words(),
                "budget_seconds": args.budget,
                "distill_seconds": args.distill,
                "precision": None if args.precision is None else list(args.precision),
                "threads": args.threads,
                "seed": args.seed,
            },
            "context": int(contenders[0].validation.context.shape[-1]),
            "windows": int(shape[1]),
            "timed_component": contenders[search.reference].component.name,
            "notes": notes,
            "date": datetime.date.today().isoformat(),
            "versions": versions() | place.versions(),
        }
        write_json(args.json, content)
        print_answer(chosen, tried, args.metric, **shown)
        for note in notes:
            print(f"note: {note}")
        for one in made:
            print(f"checkpoint: {one.path} ({Path(one.of).name}, distilled for {one.merge.brief()})")
        if args.plot is not None:
            args.plot.write(lambda beside: plot(tried, chosen, args.metric, args.max_increase, beside))
            print(f"plot: {args.plot}")
    if chosen.fastest is None:
        print(f"no bundle is written; the search is kept in {study}", flush=True)
        return 0
    own = chosen.fastest.tried.source in args.models
    _export(args, chosen.fastest.tried, table, output, options if own else {}, content)
    print(f"bundle: {output} (search kept in {study})", flush=True)
    return 0


def _export(
    args: argparse.Namespace,
    chosen: Any,
    table: Table,
    output: str,
    options: dict[str, Any],
    search: dict[str, Any],
) -> None:
    """The usual export with the chosen setting over the columns of the search, parity verdict and all.

    ``search`` goes into its report.
    """
    from tsmerge_export import api
    from tsmerge_export.bundle.search import setting_words
    from tsmerge_export.cli.handler import raise_if_interrupted
    from tsmerge_export.console.progress import EXPORT_STEPS, RichProgress
    from tsmerge_export.report.precision import print_precision
    from tsmerge_export.report.text import print_verdicts
    from tsmerge_export.tables.table import usable_columns

    with RichProgress(EXPORT_STEPS, raise_if_interrupted) as progress:
        contents = api.export(
            chosen.source, chosen.merge, output=output, force=args.force, data=usable_columns(table)[0],
            precision=Precision(chosen.precision), threads=args.threads, seed=args.seed, search=search,
            progress=progress, **provider_options(args), **options,
        ).contents  # fmt: skip
    words = setting_words(chosen.merge, chosen.precision, chosen.meant)
    print_verdicts(contents.verdicts, title=f"{contents.family}: {words}")
    print_precision(contents.verdicts.precision, contents.precision)
