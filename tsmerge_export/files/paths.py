"""Paths that come from users and from files: where they may lead."""

from __future__ import annotations

import errno
import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from tsmerge_export.errors import UsageError


def real_path(path: str | Path) -> Path:
    """The absolute path, links followed; it need not exist.

    Raises:
        OSError: links that lead to each other (Python before 3.13 raises RuntimeError there).
    """
    try:
        return Path(path).resolve()
    except RuntimeError:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None


def room_for(path: Path, given: object) -> Path:
    """Check, before any work, that a folder can come to stand at ``path``, of which one is not in the way.

    Missing parents are made.

    Args:
        given: what the user called it after ``-o``, for messages.

    Returns:
        The path.

    Raises:
        UsageError: a file is there, or its parent cannot be made or written to.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"-o {given}: is a file; give the name of a folder to make")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"-o {given}: its folder {path.parent} cannot be made ({error.strerror})") from None
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"-o {given}: no permission to write in {path.parent}")
    return path


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
