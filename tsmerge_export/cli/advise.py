"""``tsmerge advise MODEL --data FILE``: flags and command."""

from __future__ import annotations

import argparse

from tsmerge_export.cli.model import add_model_options
from tsmerge_export.cli.providers import add_provider_options, place_of
from tsmerge_export.cli.readers import names, whole
from tsmerge_export.cli.tables import FILES, add_table_options, read_data

HELP = "foretell from data and model whether merging will help, without a search"


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument("model", metavar="MODEL", help="folder, hub id or .pt")
    parser.add_argument("--data", metavar="FILE", required=True, help=f"series: {FILES}")
    parser.add_argument("--column", type=names, metavar="NAME,...", help="columns to look at; default: all")
    parser.add_argument(
        "--length", type=whole(1), metavar="N", help="context in steps; default: all that the model reads"
    )
    parser.add_argument("--batch", type=whole(1), default=8, metavar="N", help="series per call; default: 8")
    parser.add_argument(
        "--windows", type=whole(1), default=16, metavar="N", help="windows per column; default: 16"
    )
    parser.add_argument("--threads", type=whole(1), metavar="N", help="threads of the runtime")
    parser.add_argument("--json", metavar="FILE", help="also write figures and advice as JSON")
    parser.add_argument(
        "--plot", metavar="FILE", help="draw spectra, cosines and speed-ups (png, svg or pdf)"
    )
    add_table_options(parser, "--data")
    add_provider_options(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look, judge, print. Returns 0 whatever the advice."""
    from tsmerge_export.cli.files import check_files, write_json
    from tsmerge_export.cli.handler import raise_if_interrupted

    check_files(args)
    if args.plot is not None:
        from tsmerge_export.tools.bench.plot import check_plot

        check_plot(args.plot)
    place = place_of(args)
    from tsmerge_export.tools.advise.spectrum import require_scipy

    require_scipy()

    from tsmerge_export.compile.checkpoint_source import CheckpointSource
    from tsmerge_export.console.progress import ADVISE_STEPS, RichProgress
    from tsmerge_export.tools.advise.advice import judge
    from tsmerge_export.tools.advise.show import command_of, plot, print_study
    from tsmerge_export.tools.advise.study import study
    from tsmerge_export.version import versions

    table = read_data(args, columns=args.column, empty_allowed=True)
    assert table is not None  # --data is required
    options = {name: getattr(args, name) for name in ("family", "config", "trust_remote_code")}
    with RichProgress(ADVISE_STEPS, raise_if_interrupted) as progress:
        source = CheckpointSource.load(args.model, progress=progress, **options)
        found = study(
            source, table, length=args.length, batch=args.batch, windows=args.windows, threads=args.threads,
            place=place,
            progress=progress,
        )  # fmt: skip
    advice = judge(found.figures)
    content = {
        "model": args.model,
        "data": args.data,
        "advice": advice.to_dict() | {"command": command_of(args.model, advice)},
        "figures": found.figures.to_dict(),
        "notes": list(found.notes),
        "versions": versions() | place.versions(),
    }
    write_json(args.json, content)
    print_study(found, advice, args.model, source.components[0].name)
    if args.plot is not None:
        args.plot.write(lambda beside: plot(found, advice, beside))
        print(f"plot: {args.plot}")
    return 0
