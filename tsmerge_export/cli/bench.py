"""``tsmerge bench MODEL|DIR...``: flags and command."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from tsmerge_export.cli.merging import add_merging
from tsmerge_export.cli.model import add_graph_options, add_model_options
from tsmerge_export.cli.providers import add_provider_options, place_of
from tsmerge_export.cli.readers import whole
from tsmerge_export.cli.tables import FILES, add_table_options, read_data
from tsmerge_export.errors import UsageError
from tsmerge_export.settings.config import AUTO, MergeConfig

HELP = "time merged and unmerged models and their rivals against each other"


def _wholes(text: str) -> tuple[int, ...]:
    read: Callable[[str], int] = whole(1)
    return tuple(dict.fromkeys(read(part) for part in text.split(",")))


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument(
        "sources",
        metavar="MODEL|DIR",
        nargs="+",
        help="models (folder, hub id, .pt, .onnx, .pt2), and bundles: beside the model of their family, or alone",
    )
    add_merging(parser)
    group = parser.add_argument_group("measuring")
    group.add_argument(
        "--batch",
        type=_wholes,
        metavar="N,...",
        help="series per call; default: 1,8, or a bundle's one shape",
    )
    group.add_argument(
        "--length",
        type=_wholes,
        metavar="N,...",
        help="steps per series; default: 512, or a bundle's one shape",
    )
    group.add_argument("--threads", type=_wholes, default=(1,), metavar="N,...", help="default: 1")
    group.add_argument(
        "--against",
        default="onnxruntime,eager",
        metavar="NAME,...",
        help="rivals: onnxruntime (always), eager, compile, openvino; default: onnxruntime,eager",
    )
    group.add_argument("--runs", type=whole(1), default=20, metavar="N", help="timed runs; default: 20")
    group.add_argument(
        "--seconds", type=whole(1), default=60, metavar="S", help="stop a size after so long; default: 60"
    )
    group.add_argument("--data", metavar="FILE", help=f"series to run on: {FILES}; default: a sample")
    group.add_argument("--json", metavar="FILE", help="also write the rows as JSON")
    group.add_argument(
        "--resume", action="store_true", help="keep the sizes that --json holds from an interrupted run"
    )
    group.add_argument("--plot", metavar="FILE", help="draw time against length and batch (png, svg or pdf)")
    add_table_options(parser, "--data")
    add_provider_options(parser)
    add_model_options(parser)
    add_graph_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and print. Returns 0."""
    from tsmerge_export.bundle import MANIFEST
    from tsmerge_export.cli.commands import merge_config
    from tsmerge_export.cli.files import check_files, write_json
    from tsmerge_export.cli.handler import raise_if_interrupted
    from tsmerge_export.tools.bench.candidate import parse_rivals

    # To time merging is what it is for: the family's amount, also where an export would rather not merge.
    merge = merge_config(args) or MergeConfig(ratio=AUTO)
    check_files(args)
    for source in args.sources:
        if not (Path(source) / MANIFEST).is_file():
            from tsmerge_export.checkpoint import check_source

            check_source(source)
    rivals, notes = parse_rivals(args.against)
    place = place_of(args)
    if args.plot is not None:
        from tsmerge_export.tools.bench.plot import check_plot

        check_plot(args.plot)
    if args.resume and args.json is None:
        raise UsageError("--resume goes on with what --json FILE holds; name it")
    if args.config is not None and len(args.sources) > 1:
        raise UsageError("--config goes with one model only; name one MODEL")

    from tsmerge_export.backends.onnxruntime.place import HERE
    from tsmerge_export.console.progress import BENCH_STEPS, RichProgress
    from tsmerge_export.demo import SAMPLE_SERIES
    from tsmerge_export.graphs.model import GraphOptions
    from tsmerge_export.tables.read import read_table
    from tsmerge_export.tools.bench.compare import Row, bench, earlier_rows
    from tsmerge_export.tools.bench.show import print_rows, verdict_lines, versions_line
    from tsmerge_export.version import versions

    table = read_data(args) or read_table(SAMPLE_SERIES)
    options = {name: getattr(args, name) for name in ("family", "config", "trust_remote_code")}
    settings = {
        "sources": args.sources, "merge": merge.to_dict(), "rivals": rivals, "runs": args.runs, "seconds": args.seconds,
        "data": args.data, "versions": versions() | place.versions(),
    }  # fmt: skip
    if place != HERE:
        settings["place"] = place.to_dict()
    if table.options.words():
        settings["table"] = table.options.words()
    done = earlier_rows(args.json, settings) if args.resume else []

    def told(rows: list[Row]) -> None:
        write_json(
            args.json, {"rows": [row.to_dict() for row in rows], "complete": False, "settings": settings}
        )

    with RichProgress(BENCH_STEPS, raise_if_interrupted) as progress:
        rows, more = bench(
            args.sources,
            merge,
            table=table,
            batches=args.batch,
            lengths=args.length,
            threads=args.threads,
            rivals=rivals,
            runs=args.runs,
            seconds=args.seconds,
            options=options,
            graph=GraphOptions(args.token_mask, args.protect_first, args.protect_last, args.inputs),
            progress=progress,
            done=done,
            told=told,
            place=place,
        )
    notes += more
    content = {
        "rows": [row.to_dict() for row in rows],
        "notes": notes,
        "complete": True,
        "settings": settings,
    }
    write_json(args.json, content | {"versions": settings["versions"]})
    print_rows(rows, merge.describe())
    print(versions_line(place))
    for note in (*verdict_lines(rows), *notes):
        print(f"note: {note}")
    if args.plot is not None:
        from tsmerge_export.tools.bench.plot import plot

        args.plot.write(lambda place: plot(rows, place))
        print(f"plot: {args.plot}")
    return 0
