"""Flags of commands that judge many models on windows of a table, and time them."""

from __future__ import annotations

import argparse

from tsmerge_export.cli.readers import names, whole


def add_judging(group: argparse._ActionsContainer) -> None:
    """What is looked at: columns, series of a timed call, context, windows; threads, and the seed of what is drawn."""
    group.add_argument("--column", type=names, metavar="NAME,...", help="columns to look at; default: all")
    group.add_argument(
        "--batch", type=whole(1), default=8, metavar="N", help="series per timed call; default: 8"
    )
    group.add_argument(
        "--length", type=whole(1), metavar="N", help="context in steps; default: all that the model reads"
    )
    group.add_argument(
        "--windows",
        type=whole(1),
        default=16,
        metavar="N",
        help="windows per column and part, at least 5; default: 16",
    )
    group.add_argument("--threads", type=whole(1), metavar="N", help="threads of the runtime")
    group.add_argument("--seed", type=whole(0), default=0, metavar="N", help="of what is drawn; default: 0")


def check_windows(args: argparse.Namespace) -> None:
    """Raises UsageError for fewer windows than a bound takes."""
    from tsmerge_export.errors import UsageError
    from tsmerge_export.verify.change import LEAST_WINDOWS

    if args.windows < LEAST_WINDOWS:
        raise UsageError(f"--windows {args.windows}: a bound of 90 % takes at least {LEAST_WINDOWS}")
