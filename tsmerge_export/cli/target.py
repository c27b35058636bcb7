"""Flags of the runtime that a bundle is written for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tsmerge_export import backends
from tsmerge_export.cli.providers import provider_options
from tsmerge_export.settings.one_shape import FLAG, OneShape
from tsmerge_export.settings.precision import FP32, HALVES

if TYPE_CHECKING:
    from tsmerge_export.backends.target import Target


def capabilities(text: str) -> tuple[str, ...]:
    """Type of ``--compute-capability``: 80 of ``80`` or ``8.0``, commas between."""
    return tuple(dict.fromkeys(part.strip().replace(".", "") for part in text.split(",")))


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """The flags of the runtime that a bundle is written for."""
    first, *between, last = backends.built_in()
    group = parser.add_argument_group("runtime")
    group.add_argument(
        "--runtime",
        default=backends.DEFAULT,
        metavar="NAME",
        help=f"{', '.join((f'{first} (default)', *between))} or {last}; or a back end of another package",
    )
    group.add_argument(
        "--dtype",
        default="fp32",
        metavar="TYPE",
        help="of matrix products in TensorRT: fp32 (default), fp16 or bf16; for onnxruntime another name of "
        "--precision fp16 or bf16",
    )
    for which, what in (("min", "smallest"), ("opt", "usual"), ("max", "largest")):
        group.add_argument(
            f"--{which}-shapes",
            metavar="NAME:1x512,...",
            help=f"{what} input shapes of an engine",
        )
    group.add_argument(
        FLAG,
        metavar="BxN",
        help="files for B series of N steps a call and no others, all lengths constants: for CUDA graphs",
    )
    group.add_argument(
        "--compute-capability",
        type=capabilities,
        default=(),
        metavar="80,86,...",
        help="GPUs that a TensorRT-RTX engine is built for",
    )


def target_of(args: argparse.Namespace) -> Target:
    """The runtime of the flags. Raises UsageError for shapes that cannot be read, or a library that is not there."""
    from tsmerge_export.backends.engines.profile import parse_shapes
    from tsmerge_export.backends.target import SHAPE_FLAGS, Target

    given = zip((args.min_shapes, args.opt_shapes, args.max_shapes), SHAPE_FLAGS, strict=True)
    low, usual, high = (None if text is None else parse_shapes(text, flag) for text, flag in given)
    plugin = provider_options(args)["plugin"] if args.runtime != backends.DEFAULT else None
    # For ONNX Runtime it is the precision of the files, see precision_of.
    half = args.runtime == backends.DEFAULT and args.dtype in HALVES
    return Target(
        args.runtime,
        FP32 if half else args.dtype,
        (low, usual, high),
        args.compute_capability,
        None if plugin is None else Path(plugin),
        None if args.static is None else OneShape.parse(args.static),
    )
