"""Files and folders that change in one step or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # linux/fs.h
_RENAME_SWAP = 2  # sys/stdio.h on macOS


def exchange(first: Path, second: Path) -> bool:
    """Swap two existing paths of one file system atomically.

    Returns:
        False where the system or file system cannot do that; nothing has changed then.

    Raises:
        OSError: the swap itself failed (no permission, a path vanished).
    """
    a, b = os.fsencode(first), os.fsencode(second)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            result = libc.renamex_np(a, b, _RENAME_SWAP)
        else:
            result = libc.renameat2(_AT_FDCWD, a, _AT_FDCWD, b, _RENAME_EXCHANGE)
    except (OSError, AttributeError, TypeError):  # no such function in this C library
        return False
    if result == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(second))


def process_alive(pid: int) -> bool:
    """Whether a process with that id exists (also another user's)."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def fsync_tree(folder: Path, recurse: bool = True) -> None:
    """Push a folder, and by default everything in it, to the disk."""
    for entry in folder.rglob("*") if recurse else ():
        if entry.is_file():
            _fsync(entry)
    _fsync(folder)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot sync folders
            raise
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file beside its place and rename it: readers see the old content or the new.

    Raises:
        OSError: the folder cannot be written.
    """
    write_beside(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file beside ``path``, and rename it into place. Raises OSError as :func:`write_text`."""
    beside = path.with_name(f".{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        write(beside)
        _fsync(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
