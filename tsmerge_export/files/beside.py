"""Making a file or folder beside its place, and putting it there without ever deleting what is not known.

What is made stands in ``.<name>.tmp-<pid>-<host>-<random>/``, next to ``lock``, a journal that the process keeps
locked while it lives. At the end it changes places with what stands under the name. Only then is it known for certain
what that was: if it is not what stood there at the beginning, the two change back. Whatever kills the process, the next
run in that folder reads the journal and goes on from there.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from tsmerge_export.files.atomic import exchange, move_new

_NAME = re.compile(r"\.(?P<name>.+)\.tmp-\d+-(?P<host>[0-9a-f]{16})-[0-9a-f]{8}")
_LOCK, _OLD = "lock", "old"
_MOST_JOURNAL_BYTES = 1 << 16


class Seen(NamedTuple):
    """What stood under a name at one moment; equal only if it is the same thing, with the same in it.

    Attributes:
        kind: ``nothing``, ``file``, ``folder`` or ``other`` (a link, a device). node: device and inode.
        content: a file's size and time; a digest of a folder's names with their sizes and times.
    """

    kind: str
    node: tuple[int, int] = (0, 0)
    content: str = ""


class ChangedError(OSError):
    """What stands under the name is not what stood there at the beginning. ``seen`` is what does; it was left alone."""

    def __init__(self, seen: Seen, kept: Path | None) -> None:
        super().__init__(f"something else came to stand there{f', it is kept in {kept}' if kept else ''}")
        self.seen, self.kept = seen, kept


def look(path: Path) -> Seen:
    """What stands under ``path`` now; links are not followed.

    Raises:
        OSError: it cannot be looked at.
    """
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return Seen("nothing")
    node = (found.st_dev, found.st_ino)
    if stat.S_ISREG(found.st_mode):
        return Seen("file", node, f"{found.st_size} {found.st_mtime_ns}")
    if not stat.S_ISDIR(found.st_mode):
        return Seen("other", node)
    digest = hashlib.sha256()
    for name, entry in sorted(entries(path)):
        inside = entry.lstat()
        is_folder = stat.S_ISDIR(inside.st_mode)  # its time may change as it moves
        facts = () if is_folder else (inside.st_size, inside.st_mtime_ns)
        digest.update(repr((name, stat.S_IFMT(inside.st_mode), *facts)).encode())
    return Seen("folder", node, digest.hexdigest())


def entries(folder: Path) -> Iterator[tuple[str, Path]]:
    """Everything in a folder, with its name relative to it; links are not followed."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            entry = Path(parent, name)
            yield entry.relative_to(folder).as_posix(), entry


class Beside:
    """Context manager: make a thing at :attr:`new`, then :meth:`put` it under ``path``.

    Without a ``put``, or on any exception, everything made is removed and ``path`` is as it was.

    Attributes:
        new: where to make it; does not exist yet. scratch: a folder for what is not part of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        token = f"{os.getpid()}-{_host()}-{secrets.token_hex(4)}"
        self._work = path.with_name(f".{path.name}.tmp-{token}")
        self.new = self._work / f"new{path.suffix}"
        self.scratch = self._work / "scratch"
        self._journal = _Journal()

    def __enter__(self) -> Beside:
        sweep(self.path.parent)
        self._work.mkdir()
        try:
            self._journal.create(self._work)
            self.scratch.mkdir()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            _settle(self._work, self.path, self._journal)
            _remove(self._work)
        finally:
            self._journal.close()

    def put(self, seen: Seen) -> None:
        """Put what was made under the name, in place of what was seen there, which is removed.

        Raises:
            ChangedError: something else stands there by now; it stays.
            OSError: it cannot be moved.
        """
        made = look(self.new)
        self._journal.begin(made, seen)
        with contextlib.suppress(FileExistsError):
            if seen.kind == "nothing":
                move_new(self.new, self.path)
            else:
                self._swap(seen)
        kept = _settle(self._work, self.path, self._journal)
        stands = look(self.path)
        if stands != made:
            raise ChangedError(stands, kept)

    def _swap(self, seen: Seen) -> None:
        old = self._work / _OLD
        try:
            if exchange(self.new, self.path):
                return
            os.rename(self.path, old)  # no atomic exchange here; killed after it, `sweep` puts it back
        except FileNotFoundError:  # its owner took it away: there is nothing to replace
            pass
        if look(old) in (seen, Seen("nothing")):
            move_new(self.new, self.path)


def sweep(folder: Path, name: str | None = None) -> None:
    """Settle what runs that are gone have left in a folder; with ``name``, what they left of that one.

    A run is gone when its journal is not locked. Where it may be running on another host (of a shared file system),
    under another user, or where there are no locks, what it left stays.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for entry in names:
        match = _NAME.fullmatch(entry)
        if match is None or match["name"] in (".", "..") or name not in (None, match["name"]):
            continue
        mine = _host()
        if match["host"][:8] != mine[:8] and match["host"][8:] != mine[8:]:
            continue
        with contextlib.suppress(OSError, ValueError, TypeError):  # of a journal that is not ours, too
            _sweep_one(folder / entry, folder / match["name"])


def _sweep_one(work: Path, path: Path) -> None:
    found = work.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return
    journal = _Journal()
    try:
        if journal.take(work):
            _settle(work, path, journal)
            _remove(work)
    finally:
        journal.close()


def _settle(work: Path, path: Path, journal: _Journal) -> Path | None:
    """Leave nothing in ``work`` but what its run has made, and what it was told to replace and did.

    Returns:
        Where a thing of someone else is kept that could not go back under its name; mostly None.
    """
    made, seen = journal.made, journal.seen
    if made is None or journal.done:
        return None
    kept: Path | None = None
    for place in (work / f"new{path.suffix}", work / _OLD):
        found = look(place)
        if found.kind == "nothing" or found == made:
            continue
        if found == seen and (place.name != _OLD or look(path) == made):
            continue
        kept = _give_back(place, path, made) or kept
    journal.end()
    return kept


def _give_back(place: Path, path: Path, made: Seen) -> Path | None:
    """Put a thing back under its name, or, where that is taken again, under one that is not hidden; which, if so."""
    if look(path) == made and exchange(place, path):
        if look(place) == made:
            return None
    else:
        with contextlib.suppress(FileExistsError):
            move_new(place, path)
            return None
    kept = path.with_name(f"{path.name}.kept-{secrets.token_hex(4)}")
    move_new(place, kept)
    return kept


def _remove(work: Path) -> None:
    """Remove the folder of a run, its journal last."""
    for entry in list(work.iterdir()) if work.is_dir() else ():
        if entry.name.startswith(_LOCK):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    shutil.rmtree(work, ignore_errors=True)


class _Journal:
    """``lock`` in the folder of a run: locked while the process lives; a line before and after things change places.

    Attributes:
        made, seen: what was made and what it is to replace, once that has begun. done: nothing here is another's.
    """

    def __init__(self) -> None:
        self.made: Seen | None = None
        self.seen: Seen | None = None
        self.done = False
        self._handle: int | None = None

    def create(self, work: Path) -> None:
        """Make and lock it; it has its name only once it is locked. Without locks it never has, and nobody sweeps."""
        part = work / f"{_LOCK}.part"
        self._handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        if self._locked():
            part.rename(work / _LOCK)

    def take(self, work: Path) -> bool:
        """Lock that of a run that is gone, and read it. Returns False where the run lives."""
        place = work / _LOCK
        self._handle = os.open(place, os.O_RDWR | os.O_NOFOLLOW)
        if not self._locked() or place.lstat().st_ino != os.fstat(self._handle).st_ino:
            self.close()
            return False
        for line in os.read(self._handle, _MOST_JOURNAL_BYTES).split(b"\n")[
            :-1
        ]:  # the last one may not be whole
            entry = json.loads(line)
            self.done = entry == "done"
            if not self.done:
                self.made, self.seen = (Seen(kind, (dev, ino), text) for kind, (dev, ino), text in entry)
        return True

    def begin(self, made: Seen, seen: Seen) -> None:
        """Things are about to change places."""
        self.made, self.seen = made, seen
        self._write([made, seen])

    def end(self) -> None:
        """They have, or changed back."""
        self._write("done")
        self.done = True

    def close(self) -> None:
        """Unlock it."""
        if self._handle is not None:
            os.close(self._handle)
        self._handle = None

    def _write(self, entry: object) -> None:
        if self._handle is not None:
            os.write(self._handle, json.dumps(entry).encode() + b"\n")
            os.fsync(self._handle)

    def _locked(self) -> bool:
        try:
            import fcntl

            assert self._handle is not None
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (ImportError, OSError):
            return False
        return True


@functools.cache
def _host() -> str:
    """16 hex digits: eight for the host's name, eight for this boot of it, which its containers have in common."""
    name = socket.gethostname()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        boot = name
    return "".join(hashlib.sha256(text.encode()).hexdigest()[:8] for text in (name, boot))
