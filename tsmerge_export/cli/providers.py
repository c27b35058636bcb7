"""Flags of where ONNX Runtime runs a bundle: its execution providers, and the native library that goes with them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsmerge_export.backends.onnxruntime.native import NONE
from tsmerge_export.backends.onnxruntime.place import SHORT
from tsmerge_export.errors import UsageError

if TYPE_CHECKING:
    from tsmerge_export.backends.onnxruntime.place import Place


def _providers(text: str) -> tuple[str, ...]:
    """Type of ``--providers``: names in order of preference, commas between them."""
    words = [part.strip() for part in text.split(",")]
    found = tuple(dict.fromkeys(SHORT.get(word.lower(), word) for word in words))
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of providers such as cuda,cpu")
    return found


def add_provider_options(
    parser: argparse.ArgumentParser, *, bundles: bool = False, engines: bool = False
) -> None:
    """Add ``--providers`` and ``--plugin``.

    Args:
        bundles: the command runs bundles, whose plugin form ONNX Runtime's TensorRT provider takes.
        engines: the command has ``--runtime``, which ``--plugin`` then goes with.
    """
    group = parser.add_argument_group("ONNX Runtime")
    group.add_argument(
        "--providers",
        type=_providers,
        metavar="NAME,...",
        help="in order of preference: cpu (default), cuda, tensorrt, or names such as OpenVINOExecutionProvider",
    )
    variables = ["$TSMERGE_ORT_PLUGIN (cpu alone)", "$TSMERGE_ORT_CUDA_PLUGIN (cuda first)"]
    if bundles:
        variables.append("$TSMERGE_TRT_PLUGIN_REGISTERED (tensorrt first)")
    *first, last = variables
    text = (
        f"library of native operators for the providers, or none; default: {', '.join(first)} or {last}, "
        "else the installed tsmerge-ort or tsmerge-ort-cuda"
    )
    if engines:
        text += "; with --runtime tensorrt the plugin library for TensorRT (libtsmerge_trt.so)"
    group.add_argument("--plugin", metavar="FILE", help=text)


def provider_options(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments ``providers`` and ``plugin`` of :func:`tsmerge_export.load` and :func:`tsmerge_export.pipeline`.

    Raises:
        UsageError: the library is not there, or none goes with these providers.
    """
    if args.plugin is not None and Path(args.plugin) != NONE and not Path(args.plugin).is_file():
        raise UsageError(f"--plugin {args.plugin}: no such file")
    return {"providers": None if args.providers is None else list(args.providers), "plugin": args.plugin}


def place_of(args: argparse.Namespace) -> Place:
    """Where the verdicts and timings of a command run. It has been tried: what does not start is said at once.

    Raises:
        UsageError: the library is not there, or none goes with these providers.
        MissingDependencyError: a provider is not there or does not start. UnsupportedError: the library does not load.
    """
    from tsmerge_export.backends.onnxruntime.place import Place

    place = Place.of(**provider_options(args))
    place.try_out()
    return place
