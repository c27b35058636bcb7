"""``tsmerge triton``: flags and command."""

from __future__ import annotations

import argparse

HELP = "write a bundle as a model of Triton Inference Server"


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    from tsmerge_export.cli.readers import whole

    parser.add_argument("path", metavar="BUNDLE")
    parser.add_argument(
        "-o",
        "--output",
        metavar="REPOSITORY",
        required=True,
        help="folder of all models; made if it is missing",
    )
    parser.add_argument("--name", help="of the model; default: that of the bundle")
    parser.add_argument(
        "--max-batch-size",
        type=whole(1),
        default=64,
        metavar="N",
        help="series of a call at most; default: 64",
    )
    parser.add_argument(
        "--max-queue-delay-us",
        type=whole(0),
        default=2000,
        metavar="US",
        help="so long a request waits for others of its length, microseconds; default: 2000",
    )
    parser.add_argument(
        "--instances", type=whole(1), default=1, metavar="N", help="sessions side by side; default: 1"
    )
    parser.add_argument("--gpu", action="store_true", help="on each GPU instead of on the CPU")
    parser.add_argument("--threads", type=whole(1), metavar="N", help="threads of a session on the CPU")
    parser.add_argument("--plugin", metavar="LIB", help="library of native operators to lay beside the model")
    parser.add_argument(
        "--mounted-at",
        metavar="FOLDER",
        help="where the server sees the repository, for --plugin; default: where it is written",
    )
    parser.add_argument(
        "--length",
        type=whole(1),
        metavar="N",
        help="steps of the series that warm an instance up; default: at most 512",
    )
    parser.add_argument("--force", action="store_true", help="replace a model that this command wrote")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check, write, print where. Returns 0."""
    from pathlib import Path

    from tsmerge_export.backends.onnxruntime.native import CPU_LIBRARY, CUDA_LIBRARY, find_library
    from tsmerge_export.bundle import Bundle
    from tsmerge_export.console.notes import note
    from tsmerge_export.errors import UsageError
    from tsmerge_export.files.paths import real_path
    from tsmerge_export.tools.triton import Serving, write

    if args.mounted_at is not None and args.plugin is None:
        raise UsageError("--mounted-at has no effect without --plugin; leave it out")
    library = CUDA_LIBRARY if args.gpu else CPU_LIBRARY
    plugin = None if args.plugin is None else find_library(args.plugin, library)
    serving = Serving(
        real_path(args.path).name if args.name is None else args.name,
        args.max_batch_size,
        args.max_queue_delay_us,
        args.instances,
        args.gpu,
        args.threads,
    )
    bundle = Bundle.open(args.path)
    folder, notes = write(
        bundle,
        Path(args.output),
        serving,
        plugin=plugin,
        mounted=args.mounted_at,
        length=args.length,
        force=args.force,
    )
    for text in notes:
        note(text)
    print(folder)
    return 0
