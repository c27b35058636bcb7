"""Flags of the precision of a bundle's files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tsmerge_export.backends import DEFAULT
from tsmerge_export.backends.onnxruntime.place import SHORT, Place
from tsmerge_export.cli.readers import modules, names, percent
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.settings.precision import BUDGET, FP32, HALVES, KINDS, Precision


def add_precision_options(parser: argparse.ArgumentParser) -> None:
    """The flags of the precision of a bundle's files."""
    first, *between, last = KINDS
    group = parser.add_argument_group("precision")
    group.add_argument(
        "--precision",
        metavar="KIND",
        help=f"of the weights: {', '.join((first, *between))} or {last}; int8, int8-static (scales of activations by "
        "calibration on --data before its last fifth), fp16 and bf16 are of products, too; default: what the weights "
        f"were trained for, else {FP32}",
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


def precisions(text: str) -> tuple[str, ...]:
    """Type of a ``--precision`` that takes several."""
    return names(text, "precision")


def check_precisions(kinds: Sequence[str], place: Place) -> None:
    """Refuse what files to be timed at ``place`` cannot be.

    Raises:
        UsageError: an unknown precision. UnsupportedError: one that the place cannot time.
    """
    for kind in kinds:
        if not Precision(kind).low:
            continue
        if kind in HALVES and place.on_cpu:
            others = ", ".join(one for one in KINDS if one not in HALVES)
            raise UnsupportedError(
                f"--precision {kind}: files in half are for GPUs, and their times on a CPU say nothing of one; "
                f"choose among {others}, or give --providers cuda"
            )
        if place.names[0] == SHORT["tensorrt"]:
            raise UnsupportedError(
                f"--precision {kind}: files below float32 are not for TensorRT; give --providers cuda or cpu, or "
                "leave --precision out"
            )


def precision_of(args: argparse.Namespace) -> Precision | None:
    """The precision of the flags; of ``--dtype``, where the runtime is ONNX Runtime. None where neither says one.

    Raises:
        UsageError: an unknown one, a flag without effect, or two that contradict each other.
    """
    kind = args.precision or FP32
    if args.runtime == DEFAULT and args.dtype in HALVES and kind != args.dtype:
        if kind != FP32:
            raise UsageError(
                f"--precision {kind}: --dtype {args.dtype} asks for another precision of the same files; leave one of "
                "the two out"
            )
        kind = args.dtype
    asked = Precision(kind, args.keep_precise, args.max_increase)
    return None if args.precision is None and not asked.low else asked
