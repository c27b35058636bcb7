"""Flags of the precision of a bundle's files."""

from __future__ import annotations

import argparse

from tsmerge_export.backends import DEFAULT
from tsmerge_export.cli.readers import modules, percent
from tsmerge_export.errors import UsageError
from tsmerge_export.settings.precision import BUDGET, FP32, HALVES, KINDS, Precision


def add_precision_options(parser: argparse.ArgumentParser) -> None:
    """The flags of the precision of a bundle's files."""
    first, *between, last = KINDS
    group = parser.add_argument_group("precision")
    group.add_argument(
        "--precision",
        default=FP32,
        metavar="KIND",
        help=f"of the weights: {', '.join((f'{first} (default)', *between))} or {last}; int8, int8-static (scales of "
        "activations by calibration on --data before its last fifth), fp16 and bf16 are of products, too",
    )
    group.add_argument(
        "--keep-precise",
        type=modules,
        default=(),
        metavar="NAME,...",
        help="what stays float32: nodes, or modules with all that is in them; auto: what a low precision is found to "
        f"hurt, until the error is within --max-increase (default there: {BUDGET:g}%%)",
    )
    group.add_argument(
        "--max-increase",
        type=percent,
        metavar="P%",
        help="fail where a --precision below fp32 may cost more of the weighted quantile loss",
    )


def precision_of(args: argparse.Namespace) -> Precision:
    """The precision of the flags; of ``--dtype``, where the runtime is ONNX Runtime.

    Raises:
        UsageError: an unknown one, a flag without effect, or two that contradict each other.
    """
    kind = args.precision
    if args.runtime == DEFAULT and args.dtype in HALVES and kind != args.dtype:
        if kind != FP32:
            raise UsageError(
                f"--precision {kind}: --dtype {args.dtype} asks for another precision of the same files; leave one of "
                "the two out"
            )
        kind = args.dtype
    return Precision(kind, args.keep_precise, args.max_increase)
