"""Flags of the runtime that a bundle is written for."""

from __future__ import annotations

import argparse

from tsmerge_export import backends


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """The flags of the runtime that a bundle is written for."""
    first, *between, last = backends.RUNTIMES
    group = parser.add_argument_group("runtime")
    group.add_argument(
        "--runtime",
        default=backends.DEFAULT,
        metavar="NAME",
        help=f"{', '.join((f'{first} (default)', *between))} or {last}",
    )
    group.add_argument(
        "--dtype",
        default="fp32",
        metavar="TYPE",
        help="of matrix products in TensorRT: fp32 (default), fp16 or bf16",
    )
    for which, what in (("min", "smallest"), ("opt", "usual"), ("max", "largest")):
        group.add_argument(
            f"--{which}-shapes",
            metavar="NAME:1x512,...",
            help=f"{what} input shapes of an engine",
        )
    group.add_argument(
        "--compute-capability", metavar="80,86,...", help="GPUs that a TensorRT-RTX engine is built for"
    )
    group.add_argument("--plugin", metavar="FILE", help="plugin library for TensorRT (libtsmerge_trt.so)")
