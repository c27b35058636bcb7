"""Files that the flags name: what is read must be there, what is written must not take its place."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tsmerge_export.errors import UsageError
from tsmerge_export.files.output_file import OutputFile
from tsmerge_export.files.paths import real_path
from tsmerge_export.tables.source import STDIN

_SOURCES = ("model", "models", "sources", "bundle", "path", "table")
_INPUTS = ("data", "config", "inputs")
_FUTURE = "future"  # read by the command itself: a table, or standard input
_ORIGINAL = "original"  # a flag whose value may be a hub id
_OUTPUTS = ("json", "plot", "markdown")


def check_files(args: argparse.Namespace) -> None:
    """Fail on a wrong path before any work is done. Makes an :class:`OutputFile` of what ``--json`` and the like name.

    Raises:
        UsageError: nothing there to read, no place to write, or a file that would take the place of another.
    """
    if hasattr(args, "model"):
        from tsmerge_export.checkpoint import check_source

        check_source(args.model)
        if getattr(args, _ORIGINAL, None) is not None:
            try:
                check_source(args.original)
            except UsageError as error:
                raise UsageError(f"--{_ORIGINAL} {error}") from None
    for flag in _INPUTS:
        for value in _several(getattr(args, flag, None)):
            if not (flag == "data" and value == STDIN) and not Path(value).is_file():
                raise UsageError(f"--{flag} {value}: no such file")
    made: list[OutputFile] = []
    for flag in _OUTPUTS:
        if getattr(args, flag, None) is None:
            continue
        file = OutputFile(f"--{flag}", getattr(args, flag))
        check_apart(args, file, made)
        setattr(args, flag, file)
        made.append(file)


def check_apart(args: argparse.Namespace, file: OutputFile, made: list[OutputFile]) -> None:
    """Refuse a file to write that is one to read, or another one to write. Raises UsageError."""
    for name, path in _named(args):
        if path == file.path and path.is_file():
            raise UsageError(f"{file.flag} {file}: is {name}, which would be lost; give another file")
    for other in made:
        if other.path == file.path and not file.direct:
            raise UsageError(f"{file.flag} {file}: is the same file as {other.flag} {other}; give another")


def folder_named(output: str) -> str:
    """A folder to write as names beside it are made of it: no slash behind, and a name also where it is ``.``"""
    path = Path(output)
    return str(path if path.name not in ("", "..") else real_path(path))


def check_inside(args: argparse.Namespace, folder: Path) -> None:
    """Refuse a folder to replace that holds what is read. Raises UsageError."""
    for name, path in _named(args):
        if path.exists() and path.is_relative_to(folder):
            raise UsageError(f"-o {folder}: holds {name}, which would be lost; give another folder")


def _named(args: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """What the flags name to be read: in words, and where it is."""
    for name in (*_SOURCES, *_INPUTS, _ORIGINAL, _FUTURE):
        for one in _several(getattr(args, name, None)):
            yield (f"{one}" if name in _SOURCES else f"--{name} {one}"), real_path(one)


def _several(value: Any) -> Iterable[Any]:
    """What a flag or argument names: none, one, or a list."""
    if value is None:
        return ()
    return value if isinstance(value, list | tuple) else (value,)


def write_json(file: OutputFile | None, content: Any) -> None:
    """Write ``content`` where ``--json`` says, whole or not at all. Raises UsageError."""
    if file is not None:
        from tsmerge_export.report.text import json_text

        file.write_text(json_text(content))
