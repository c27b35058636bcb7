"""Names that change in one step or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

_AT_FDCWD = -100
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2  # linux/fs.h
_RENAME_SWAP, _RENAME_EXCL = 2, 4  # sys/stdio.h on macOS
# EPERM: containers whose list of system calls is older than this one.
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


def exchange(first: Path, second: Path) -> bool:
    """Swap two existing paths of one file system atomically.

    Returns:
        False where the system or file system cannot do that; nothing has changed then.

    Raises:
        OSError: the swap itself failed (a path vanished).
    """
    return _rename(first, second, _RENAME_EXCHANGE, _RENAME_SWAP)


def move_new(source: Path, target: Path) -> None:
    """Rename ``source`` to a name that nothing has; in one step wherever the file system can.

    Raises:
        FileExistsError: something stands there; nothing has changed then. OSError: the renaming failed.
    """
    if _rename(source, target, _RENAME_NOREPLACE, _RENAME_EXCL):
        return
    taken = FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    if os.path.lexists(target):
        raise taken
    if source.is_dir() and not source.is_symlink():
        try:
            os.rename(source, target)  # never onto a file or a folder with something in it
        except OSError as error:
            raise taken if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR) else error from None
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        os.rename(source, target)
    else:
        source.unlink()


def _rename(source: Path, target: Path, linux: int, macos: int) -> bool:
    """``rename`` with a flag. Returns False where there is no such call."""
    a, b = os.fsencode(source), os.fsencode(target)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            result = libc.renamex_np(a, b, macos)
        else:
            result = libc.renameat2(_AT_FDCWD, a, _AT_FDCWD, b, linux)
    except (OSError, AttributeError, TypeError):  # no such function in this C library
        return False
    if result == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(target))


def fsync_tree(path: Path, recurse: bool = True) -> None:
    """Push a file, or a folder and by default everything in it, to the disk."""
    for entry in path.rglob("*") if recurse else ():
        if entry.is_file():
            _fsync(entry)
    _fsync(path)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot sync folders
            raise
    finally:
        os.close(handle)
