"""The file that keeps a search between runs: that it is one, and that one run at a time writes it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tsmerge_export.errors import UsageError
from tsmerge_export.files.lock import lock

_MOST_LINE_BYTES = 1 << 20


@contextlib.contextmanager
def kept(log: Path) -> Iterator[None]:
    """Own the log of a search inside the ``with``; made if it is missing.

    What a run that was killed has left of a line, and its lock, are taken away.

    Raises:
        UsageError: another file, in use by another run, or not to be written.
    """
    try:
        file = log.open("ab+")
    except OSError as error:
        raise UsageError(f"{log}: cannot be written ({error.strerror}); give another -o") from None
    with file:
        if not lock(file):
            raise UsageError(f"{log}: another run is searching there; wait for it, or give another -o")
        file.seek(0)
        if not _is_log(file.readline(_MOST_LINE_BYTES)):
            raise UsageError(f"{log}: is not the log of a search; move it away, or give another -o")
        _cut(file)
        left = Path(f"{log}.lock")  # of optuna: a link, which a killed run leaves
        if left.is_symlink():
            left.unlink()
        yield


def _is_log(line: bytes) -> bool:
    if not line:
        return True
    try:
        first = json.loads(line)
    except ValueError:
        return False
    return isinstance(first, dict) and "op_code" in first


def _cut(file: BinaryIO) -> None:
    """Cut off what stands behind the last whole line."""
    end = file.seek(0, 2)
    file.seek(max(0, end - _MOST_LINE_BYTES))
    rest = len(file.read().rpartition(b"\n")[2])
    if rest:
        file.truncate(end - rest)
