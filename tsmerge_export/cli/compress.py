"""``tsmerge compress MODEL``: flags and command."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsmerge_export.bundle.compression import CLUSTER, QUANTISE, STEPS
from tsmerge_export.cli.judged import add_judging, check_windows
from tsmerge_export.cli.merging import add_merging, merge_config
from tsmerge_export.cli.model import add_model_options
from tsmerge_export.cli.precision import check_precisions, precisions
from tsmerge_export.cli.providers import add_provider_options, place_of, provider_options
from tsmerge_export.cli.readers import names, percent
from tsmerge_export.cli.tables import FILES, add_table_options, read_data, table_options
from tsmerge_export.errors import UsageError
from tsmerge_export.settings.precision import INT8_STATIC, QUANTISED, Precision

if TYPE_CHECKING:
    from tsmerge_export.backends.onnxruntime.place import Place
    from tsmerge_export.bundle.compression import Compression
    from tsmerge_export.settings.config import MergeConfig
    from tsmerge_export.tables.table import Table
    from tsmerge_export.tools.compress.compress import Wanted
    from tsmerge_export.tools.tune.contender import Contender

HELP = "prune, cluster and quantise a model's weights within an error budget"
#: Behind the name of the bundle: the folder of the weights.
CHECKPOINT = "-checkpoint"


def _steps(text: str) -> tuple[str, ...]:
    """Type of ``--steps``."""
    return names(text, "step")


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument("model", metavar="MODEL", help="folder, hub id or .pt file")
    group = parser.add_argument_group("compression")
    group.add_argument(
        "--data",
        metavar="FILE",
        help=f"series, for validation and test part: {FILES}; default: a sample series",
    )
    group.add_argument(
        "--max-increase",
        type=percent,
        default=3.0,
        metavar="P",
        help="how much the weighted quantile loss may rise over all steps, with 90%% confidence; default: 3%%",
    )
    group.add_argument(
        "--steps",
        type=_steps,
        default=STEPS,
        metavar="STEP,...",
        help=f"default: {','.join(STEPS)}, all of them",
    )
    group.add_argument(
        "--precision",
        type=precisions,
        metavar="KIND,...",
        help=f"what to quantise to: the strongest within the budget of {', '.join(QUANTISED)}; default: all but "
        f"{INT8_STATIC}",
    )
    add_judging(group)
    group = parser.add_argument_group("output")
    group.add_argument("-o", "--output", metavar="DIR", help="bundle to write; default: <model>-compressed")
    group.add_argument("--force", action="store_true", help="replace a bundle and weights that are there")
    group.add_argument("--json", metavar="FILE", help="also write what was tried as JSON")
    add_merging(parser)
    add_table_options(parser, "--data")
    add_provider_options(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compress, look at the test part, export. Returns 0, also where no step is within the budget."""
    from tsmerge_export.cli.commands import default_output
    from tsmerge_export.cli.files import check_files, check_inside, folder_named, write_json
    from tsmerge_export.tools.compress.compress import KINDS, Wanted

    merge = merge_config(args)
    if merge is not None and merge.at_run_time:
        raise UsageError("--ratio runtime is for exports; give the ratio that errors are to be measured at")
    if args.precision is not None and QUANTISE not in args.steps:
        raise UsageError(
            f"--precision has no effect without the step {QUANTISE}; leave it out, or add it to --steps"
        )
    check_files(args)
    check_windows(args)
    if CLUSTER in args.steps:
        from tsmerge_export.tools.compress.weights import k_means

        k_means()
    wanted = Wanted(args.steps, args.max_increase, kinds=args.precision or KINDS)
    from tsmerge_export.bundle import check_output
    from tsmerge_export.tools.compress.output import FOLDER
    from tsmerge_export.tools.distill.distill import check_model

    check_model(args.model)
    output = folder_named(args.output or default_output(args.model, "compressed"))
    check_inside(args, check_output(output, args.force))
    check_inside(args, FOLDER.check(f"{output}{CHECKPOINT}", args.force))
    place = place_of(args)
    if QUANTISE in wanted.steps:
        check_precisions(wanted.kinds, place)
    table = read_data(args, columns=args.column, empty_allowed=True)
    from tsmerge_export.report.compression import ABOUT, compression_table, tried_words
    from tsmerge_export.report.compression import words as said
    from tsmerge_export.typed import plain

    found, precision = _work(args, merge, wanted, output, place, table)
    content = plain(found)
    from tsmerge_export.console.terminal import print_table

    print_table(*compression_table(found), ABOUT, (0, 1))
    for sentence in (*said(found), tried_words(found)):
        print(sentence)
    if found.checkpoint is None:
        write_json(args.json, content)
        print("no model is written", flush=True)
        return 0
    weights = f"{output}{CHECKPOINT}"
    print(f"checkpoint: {weights}", flush=True)
    _export(args, weights, found, precision, output, table, content)
    write_json(args.json, content)
    print(f"bundle: {output}", flush=True)
    return 0


def _work(
    args: argparse.Namespace,
    merge: MergeConfig | None,
    wanted: Wanted,
    output: str,
    place: Place,
    table: Table | None,
) -> tuple[Compression, str]:
    """Compress, and write the weights where that came to anything. Returns the record and the precision."""
    from tempfile import TemporaryDirectory

    from tsmerge_export.cli.handler import raise_if_interrupted
    from tsmerge_export.console.progress import COMPRESS_STEPS, RichProgress
    from tsmerge_export.demo import SAMPLE_SERIES
    from tsmerge_export.tables.read import read_table
    from tsmerge_export.tools.compress.compress import compress
    from tsmerge_export.tools.compress.output import record_of, write
    from tsmerge_export.tools.tune.contender import prepare
    from tsmerge_export.verify.checks import Checks

    options: dict[str, Any] = {
        name: getattr(args, name) for name in ("family", "config", "trust_remote_code")
    }
    checks = Checks(threads=args.threads, seed=args.seed, place=place)
    with TemporaryDirectory(prefix="tsmerge-compress-") as folder:
        with RichProgress(COMPRESS_STEPS, raise_if_interrupted) as progress:
            progress.step("load")
            prepared = partial(
                prepare, table=table or read_table(SAMPLE_SERIES), checks=checks, folder=Path(folder),
                windows=args.windows, batch=args.batch,
            )  # fmt: skip
            base: Contender = prepared(args.model, length=args.length, options=options)
            context = int(base.validation.context.shape[-1])
            settled = _merging(merge, base)
            found = compress(
                base, settled, wanted, lambda path: prepared(str(path), length=context, options={}), progress
            )
        record = record_of(
            found, base, settled, wanted, data=args.data, table=_reading(args), batch=args.batch,
            windows=args.windows, checkpoint=f"{output}{CHECKPOINT}", output=output,
        )  # fmt: skip
        if found.smaller:
            record = write(found, base, record, f"{output}{CHECKPOINT}", args.force)
    return record, found.precision


def _merging(merge: MergeConfig | None, base: Contender) -> MergeConfig:
    """What is asked for, without an open end; else what the weights were trained for, else not at all."""
    from tsmerge_export.settings.config import MergeConfig

    if merge is not None:
        return base.source.settle(merge).merge
    return MergeConfig("none") if base.trained is None else base.trained.merge


def _reading(args: argparse.Namespace) -> list[str]:
    columns = [] if args.column is None else ["--column", ",".join(args.column)]
    return [*table_options(args).words(), *columns]


def _export(
    args: argparse.Namespace,
    checkpoint: str,
    found: Compression,
    precision: str,
    output: str,
    table: Table | None,
    content: dict[str, Any],
) -> None:
    """The usual export of the weights, verdicts and all; ``content`` goes into its report."""
    from tsmerge_export import api
    from tsmerge_export.cli.handler import raise_if_interrupted
    from tsmerge_export.console.progress import EXPORT_STEPS, RichProgress
    from tsmerge_export.report.precision import print_precision
    from tsmerge_export.report.text import print_verdicts
    from tsmerge_export.settings.config import MergeConfig
    from tsmerge_export.tables.table import usable_columns

    with RichProgress(EXPORT_STEPS, raise_if_interrupted) as progress:
        contents = api.export(
            checkpoint, MergeConfig.from_dict(found.merge), output=output, force=args.force,
            data=None if table is None else usable_columns(table)[0], precision=Precision(precision),
            threads=args.threads, seed=args.seed, compression=content, progress=progress, **provider_options(args),
        ).contents  # fmt: skip
    print_verdicts(contents.verdicts, title=f"{contents.family}, compressed, {precision}")
    print_precision(contents.verdicts.precision, contents.precision)
