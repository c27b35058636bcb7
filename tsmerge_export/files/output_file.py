"""Single files that a command or function was told to write."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from tsmerge_export.errors import UsageError
from tsmerge_export.files.atomic import fsync_tree
from tsmerge_export.files.beside import Beside, ChangedError, look
from tsmerge_export.files.paths import real_path


class OutputFile:
    """A file to write, as it stood when the command began: checked before any work, written whole or not at all.

    What stands there at the beginning is replaced; what comes to stand there meanwhile is not. A link is followed. A
    device or a pipe is written into directly.

    Args:
        flag: as the user gave it, for messages. path: where to.

    Attributes:
        path: where it is, links followed. direct: it is a device or a pipe.

    Raises:
        UsageError: a folder, no folder to write into, or no permission.
    """

    def __init__(self, flag: str, path: str | Path) -> None:
        self.flag, self.given = flag, str(path)
        self.path = real_path(path)
        self.direct = _is_device(Path(path))
        if self.direct:
            return
        parent = self.path.parent
        if self.path.is_dir() or not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise UsageError(f"{flag} {path}: cannot be written; give a file in an existing folder")
        self._seen = look(self.path)

    def __str__(self) -> str:
        return self.given

    def __fspath__(self) -> str:
        return self.given

    def write(self, write: Callable[[Path], object]) -> None:
        """Let ``write`` make the file under a name with the same ending, and put it into place.

        Raises:
            UsageError: it cannot be written, or something else came to stand there; that stays.
        """
        try:
            if self.direct:
                write(Path(self.given))
                return
            with Beside(self.path) as beside:
                write(beside.new)
                if self._seen.kind == "file":
                    beside.new.chmod(stat.S_IMODE(self.path.stat().st_mode))
                fsync_tree(beside.new, recurse=False)
                beside.put(self._seen)
            self._seen = look(self.path)
        except ChangedError as error:
            theirs = (
                f"theirs is kept in {error.kept}"
                if error.kept
                else "it stays, and this result is not written"
            )
            raise UsageError(
                f"{self.flag} {self.given}: was made or changed by someone else meanwhile; {theirs}"
            ) from None
        except OSError as error:
            raise UsageError(
                f"{self.flag} {self.given}: cannot be written ({error.strerror or error})"
            ) from None

    def write_text(self, text: str) -> None:
        """Write UTF-8 text. Raises UsageError as :meth:`write`."""
        self.write(lambda place: place.write_text(text, encoding="utf-8"))


def _is_device(path: Path) -> bool:
    """Whether ``path`` is something that is written into, not replaced: a terminal, ``/dev/null``, a pipe."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or str(path).startswith(("/dev/", "/proc/"))
