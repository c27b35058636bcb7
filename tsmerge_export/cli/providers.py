"""Flags of where ONNX Runtime runs a bundle: its execution providers, and the native library that goes with them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tsmerge_export.errors import UsageError

#: Short names of ONNX Runtime's providers; any other is given in full.
_SHORT = {
    name.removesuffix("ExecutionProvider").lower(): name
    for name in ("CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider")
}


def _providers(text: str) -> tuple[str, ...]:
    """Type of ``--providers``: names in order of preference, commas between them."""
    words = [part.strip() for part in text.split(",")]
    found = tuple(dict.fromkeys(_SHORT.get(word.lower(), word) for word in words))
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of providers such as cuda,cpu")
    return found


def add_provider_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--providers`` and ``--plugin``."""
    group = parser.add_argument_group("ONNX Runtime")
    group.add_argument(
        "--providers",
        type=_providers,
        metavar="NAME,...",
        help="in order of preference: cpu (default), cuda, tensorrt, or names such as OpenVINOExecutionProvider",
    )
    group.add_argument(
        "--plugin",
        metavar="FILE",
        help="library of native operators for the providers; default: $TSMERGE_ORT_PLUGIN (cpu alone), "
        "$TSMERGE_ORT_CUDA_PLUGIN (cuda first) or $TSMERGE_TRT_PLUGIN_REGISTERED (tensorrt first)",
    )


def provider_options(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments ``providers`` and ``plugin`` of :func:`tsmerge_export.load` and :func:`tsmerge_export.pipeline`.

    Raises:
        UsageError: the library is not there, or none goes with these providers.
    """
    if args.plugin is not None and not Path(args.plugin).is_file():
        raise UsageError(f"--plugin {args.plugin}: no such file")
    return {"providers": None if args.providers is None else list(args.providers), "plugin": args.plugin}
