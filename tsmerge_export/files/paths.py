"""Paths that come from users and from files: where they may lead."""

from __future__ import annotations

import errno
import os
from pathlib import Path, PurePosixPath, PureWindowsPath


def real_path(path: str | Path) -> Path:
    """The absolute path, links followed; it need not exist.

    Raises:
        OSError: links that lead to each other (Python before 3.13 raises RuntimeError there).
    """
    try:
        return Path(path).resolve()
    except RuntimeError:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None


def is_inner_name(name: object) -> bool:
    """Whether ``name`` stays inside its folder on every system: relative, no ``..``, no drive, no backslash."""
    if not isinstance(name, str) or "\\" in name or "\0" in name:
        return False
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    return bool(posix.parts) and not (
        posix.is_absolute() or windows.drive or windows.root or ".." in posix.parts
    )


def beside(owner: Path, name: str) -> Path | None:
    """The file ``name`` that ``owner`` speaks of, or None where that leaves the owner's folder.

    A link may lead to the folder of ``owner`` or, where ``owner`` is a link too, to the folder that it leads to: the
    hub's cache keeps links in ``snapshots/`` to files in ``blobs/``. ONNX Runtime draws the line at the same place.

    Args:
        owner: the file that holds the name. It need not exist.

    Returns:
        A path that was followed to its end; whether something is there is not checked.
    """
    if not is_inner_name(name):
        return None
    try:
        real = real_path(owner.parent / name)
        folders = (real_path(owner.parent), real_path(owner).parent)
    except OSError:  # a circle of links
        return None
    return real if any(real.is_relative_to(folder) for folder in folders) else None
