"""A folder that a command of ours writes whole, and replaces only where it wrote everything in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tsmerge_export.errors import UsageError
from tsmerge_export.files.atomic import fsync_tree
from tsmerge_export.files.beside import Beside, ChangedError, entries, look, sweep
from tsmerge_export.files.paths import real_path, room_for


def check_own(
    directory: str | Path,
    force: bool,
    *,
    marked: Callable[[Path], bool],
    ours: Callable[[str], bool],
    maker: str,
    flag: str = "-o ",
) -> Path:
    """Check, before any work, that a folder can be written. Makes missing parent folders.

    Args:
        force: replace one that is there. marked: whether a folder with something in it says that we wrote it.
        ours: of a name in it, relative to it, whether we write such. maker: what writes it, in words, for messages.
        flag: what stands before the folder in messages.

    Returns:
        The absolute path, links followed.

    Raises:
        UsageError: it is a file, exists, or with ``force`` holds what is not ours.
    """
    path = real_path(directory)
    if not path.name:
        raise UsageError(f"{flag}{directory}: is not a folder name")
    if not path.exists():
        sweep(path.parent, path.name)
    if path.is_dir():
        names = [name for name, _ in entries(path)]
        if names and not (marked(path) and all(map(ours, names))):
            other = next((name for name in names if not ours(name)), names[0])
            raise UsageError(
                f"{flag}{directory}: holds {other}, which no {maker} has written; choose another name"
            )
        if names and not force:
            raise UsageError(f"{flag}{directory}: exists already; add --force to replace it")
    return room_for(path, directory)


def write_own(path: Path, given: str | Path, make: Callable[[Path], object]) -> None:
    """Make a folder that was checked: all of it or nothing.

    Args:
        path: from :func:`check_own`. given: the folder as it was named, for messages. make: fills an empty folder.

    Raises:
        UsageError: something came to stand there, or it cannot be written; what stands there stays.
    """
    seen = look(path)
    try:
        with Beside(path) as made:
            made.new.mkdir()
            make(made.new)
            fsync_tree(made.new)
            made.put(seen)
    except ChangedError as error:
        came = f"; theirs is kept in {error.kept}" if error.kept else "; it stays, and nothing is written"
        raise UsageError(f"-o {given}: was made or changed by someone else meanwhile{came}") from None
    except OSError as error:
        raise UsageError(f"-o {given}: cannot be written ({error.strerror or error})") from None
