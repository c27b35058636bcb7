"""Command line: ``tsmerge-export MODEL ...`` and ``tsmerge export|validate|inspect``.

Everything heavy (torch, onnx, rich) is imported by the commands when they need it, so that help and usage errors are
immediate and an interrupt during the imports is handled like any other.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main", "main_export"]


def main_export(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``tsmerge-export``; ``argv`` without the program's name. Returns the exit code."""
    from tsmerge_export.cli.handler import guarded

    def run() -> int:
        from tsmerge_export.cli.parser import export_parser

        args = export_parser().parse_args(argv)
        return int(args.run(args))

    return guarded(run)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``tsmerge``; ``argv`` without the program's name. Returns the exit code."""
    from tsmerge_export.cli.handler import guarded

    def run() -> int:
        from tsmerge_export.cli.parser import tsmerge_parser

        args = tsmerge_parser().parse_args(argv)
        return int(args.run(args))

    return guarded(run)
