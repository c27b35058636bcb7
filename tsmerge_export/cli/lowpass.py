"""``tsmerge lowpass``: flags and command."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsmerge_export.cli.readers import whole
from tsmerge_export.cli.tables import FILES, add_table_options, read_data, table_options
from tsmerge_export.errors import UsageError

if TYPE_CHECKING:
    from tsmerge_export.tools.lowpass.study import Effect

HELP = "show what merging does to the spectrum of signals, beside a Gaussian filter of as many tokens"
_LEAST = 16  # tokens
_DEFAULTS: dict[str, Any] = {"length": 1024, "levels": (0.1, 0.3, 1.0), "period": 64, "signals": 64}


def _levels(text: str) -> tuple[float, ...]:
    try:
        levels = tuple(float(part) for part in text.split(","))
    except ValueError:
        levels = (math.nan,)
    if not all(0 <= level <= 1000 for level in levels):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of noise levels such as 0.1,0.3,1")
    return levels


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    group = parser.add_argument_group("signal")
    group.add_argument("--data", metavar="FILE", help=f"the signal: {FILES}; default: generated ones")
    group.add_argument("--column", metavar="NAME", help="which column of it; default: the only one")
    group.add_argument(
        "--length", type=whole(_LEAST), metavar="N", help="steps of a generated signal; default: 1024"
    )
    group.add_argument(
        "--levels",
        type=_levels,
        metavar="S,S,...",
        help="noise in standard deviations of the signal; default: 0.1,0.3,1",
    )
    group.add_argument(
        "--period", type=whole(6), metavar="N", help="steps of the generated sinusoid's period; default: 64"
    )
    group.add_argument("--signals", type=whole(1), metavar="N", help="how many of each kind; default: 64")
    group.add_argument(
        "--seed", type=whole(0), default=0, metavar="N", help="of phases and noise; default: 0"
    )
    group = parser.add_argument_group("merging")
    group.add_argument(
        "--ratio", default="1/4", metavar="R", help="share of the tokens that a step removes; default: 1/4"
    )
    group.add_argument(
        "--steps", type=whole(1), default=4, metavar="N", help="merge steps in a row; default: 4"
    )
    group.add_argument("--k", default="1", metavar="K", help="neighbourhood: 1, 2, ... or global; default: 1")
    group.add_argument(
        "--similarity",
        default="l2",
        metavar="HOW",
        help="l2 (default), cosine or dot; of tokens of one value, cosine sees the sign alone",
    )
    group.add_argument(
        "--patch", type=whole(1), default=1, metavar="N", help="values that make a token; default: 1"
    )
    group = parser.add_argument_group("output")
    group.add_argument("--json", metavar="FILE", help="also write figures and spectra as JSON")
    group.add_argument("--plot", metavar="FILE", help="draw the spectra (png, svg or pdf)")
    group.add_argument(
        "--markdown", metavar="FILE", help="write a page with the table, and the picture of --plot"
    )
    add_table_options(parser, "--data")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, print, write. Returns 0."""
    from tsmerge_export.cli.files import check_files, write_json
    from tsmerge_export.methods.options import SIMILARITIES
    from tsmerge_export.settings.parse import parse_k, parse_ratio

    check_files(args)
    if args.data is None:
        if args.column is not None:
            raise UsageError("--column names a column of --data; give the file too")
        read_data(args)  # refuses flags about a table that is not given
    wrong = [name for name in _DEFAULTS if args.data is not None and getattr(args, name) is not None]
    if wrong:
        raise UsageError(f"--{wrong[0]} is for generated signals; leave it out, or leave out --data")
    if args.similarity not in SIMILARITIES:
        raise UsageError(
            f"--similarity {args.similarity} is not known; choose one of: {', '.join(SIMILARITIES)}"
        )
    if args.plot is not None:
        from tsmerge_export.tools.bench.plot import check_plot

        check_plot(args.plot)
    from tsmerge_export.tools.lowpass import show
    from tsmerge_export.tools.lowpass.filters import Merging
    from tsmerge_export.version import versions

    how = Merging(parse_ratio(args.ratio), args.steps, parse_k(args.k), args.similarity, args.patch)
    effects = _own(args, how) if args.data is not None else _generated(args, how)
    shown = ("tsmerge-export", "python", "torch", "numpy")
    used = {name: value for name, value in versions().items() if name in shown and value != "unknown"}
    write_json(
        args.json,
        {
            "merging": {**how._asdict(), "ratio": str(how.ratio), "k": how.k or "global"},
            "seed": args.seed,
            "versions": used,
            "effects": [one.to_dict() for one in effects],
        },
    )
    show.print_effects(effects, how.describe())
    if args.plot is not None:
        args.plot.write(lambda place: show.plot(effects, place))
        print(f"plot: {args.plot}")
    if args.markdown is not None:
        image = None if args.plot is None else Path(args.plot).name
        command = shlex.join(["tsmerge", "lowpass", *_given(args)])
        args.markdown.write_text(show.page(effects, how.describe(), command, used, image))
        print(f"page: {args.markdown}")
    return 0


def _generated(args: argparse.Namespace, how: Any) -> list[Effect]:
    from tsmerge_export.cli.handler import raise_if_interrupted
    from tsmerge_export.console.progress import LateBar
    from tsmerge_export.tools.lowpass.study import study

    options = {
        name: usual if getattr(args, name) is None else getattr(args, name)
        for name, usual in _DEFAULTS.items()
    }
    if options["length"] % how.patch or options["length"] // how.patch < _LEAST:
        raise UsageError(
            f"--length {options['length']}: give a multiple of --patch {how.patch}, at least {_LEAST} tokens long"
        )
    bar = LateBar("lowpass", raise_if_interrupted)
    try:
        return study(
            how,
            length=options["length"],
            levels=options["levels"],
            period=options["period"],
            count=options["signals"],
            seed=args.seed,
            progress=bar.update,
        )
    finally:
        bar.close()


def _own(args: argparse.Namespace, how: Any) -> list[Effect]:
    """The effect on one column: its longest stretch without a gap, from its end a whole number of tokens."""
    import numpy as np

    from tsmerge_export.tools.lowpass.study import effect

    table = read_data(args)
    assert table is not None  # the caller looked
    name = args.column
    if name is None and len(table.columns) > 1:
        raise UsageError(f"--data {args.data}: has {len(table.columns)} columns; choose one with --column: "
                         f"{', '.join(table.columns[:8])}{', ...' if len(table.columns) > 8 else ''}")  # fmt: skip
    name = table.columns[0] if name is None else name
    if name not in table.columns:
        raise UsageError(
            f"--column {name}: not in {args.data}; its columns are: {', '.join(table.columns[:8])}"
        )
    values = table.values[:, table.columns.index(name)]
    runs = np.ma.clump_unmasked(np.ma.masked_invalid(values))
    longest = max(runs, key=lambda run: run.stop - run.start)
    signal = values[longest]
    if len(signal) < len(values):
        print(
            f"{name}: has missing values; rows {longest.start} to {longest.stop - 1} are its longest stretch without",
            file=sys.stderr,
        )
    signal = signal[len(signal) % how.patch :]
    if len(signal) < _LEAST * how.patch:
        raise UsageError(
            f"--data {args.data}: {len(signal)} values of {name} in a row are too few; it takes {_LEAST * how.patch}"
        )
    if signal.max() == signal.min():
        raise UsageError(f"--data {args.data}: column {name} is constant; it has no spectrum")
    return [effect(name, None, signal[None], how)]


def _given(args: argparse.Namespace) -> list[str]:
    """The flags of this run, defaults left out; of files the names, for a page is read elsewhere."""
    usual = {"seed": 0, "ratio": "1/4", "steps": 4, "k": "1", "similarity": "l2", "patch": 1}
    names = ("data", "column", *_DEFAULTS, *usual, "json", "plot", "markdown")
    words = []
    for name in names:
        value = getattr(args, name)
        if value is None or value == usual.get(name):
            continue
        words += [f"--{name}", ",".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)]
    return words + table_options(args).words()
