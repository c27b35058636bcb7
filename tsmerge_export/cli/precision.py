"""Flags of the precision of a bundle's files."""

from __future__ import annotations

import argparse

from tsmerge_export.cli.readers import modules, percent
from tsmerge_export.settings.precision import FP32, KINDS, Precision


def add_precision_options(parser: argparse.ArgumentParser) -> None:
    """The flags of the precision of a bundle's files."""
    first, *between, last = KINDS
    group = parser.add_argument_group("precision")
    group.add_argument(
        "--precision",
        default=FP32,
        metavar="KIND",
        help=f"of the weights: {', '.join((f'{first} (default)', *between))} or {last}; int8 is of activations, too",
    )
    group.add_argument(
        "--keep-precise",
        type=modules,
        default=(),
        metavar="NAME,...",
        help="what stays float32: nodes, or modules with all that is in them",
    )
    group.add_argument(
        "--max-increase",
        type=percent,
        metavar="P%",
        help="fail where a --precision below fp32 may cost more of the weighted quantile loss",
    )


def precision_of(args: argparse.Namespace) -> Precision:
    """The precision of the flags. Raises UsageError for an unknown one, or a flag without effect."""
    return Precision(args.precision, args.keep_precise, args.max_increase)
