"""Writing a bundle: built beside its place, synced, and swapped in by rename.

``manifest.json`` lists size and SHA-256 of every file. A bundle is either complete or not there: it is built in a
hidden folder, synced, and swapped in by rename (see :mod:`~tsmerge_export.files.beside`). Whatever kills the process,
the old bundle or the new one stands under the name. What is replaced is the bundle that was checked at the beginning.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType

from tsmerge_export.bundle.hashes import entry_of
from tsmerge_export.bundle.json_file import is_bundle
from tsmerge_export.bundle.manifest import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    Described,
    manifest_of,
    to_dict,
)
from tsmerge_export.bundle.opened import Bundle
from tsmerge_export.bundle.output import check_output
from tsmerge_export.errors import UsageError
from tsmerge_export.files.atomic import fsync_tree
from tsmerge_export.files.beside import Beside, ChangedError, look
from tsmerge_export.typed import plain


class BundleWriter:
    """Context manager that builds a bundle beside its place.

    ``with BundleWriter(output, force) as writer:`` write the files into ``writer.path``, then call
    ``writer.commit(described)``. Without a commit, or on any exception (KeyboardInterrupt too), nothing is left and
    an old bundle stays as it was. ``writer.scratch`` is a folder for files that are not part of the bundle; like
    ``writer.path`` it is removed in any case, after a kill by the next run in that folder.
    """

    def __init__(self, output: str | Path, force: bool = False) -> None:
        self._asked = output
        self.output = check_output(output, force)
        self._seen = look(self.output)
        check_output(output, force)  # again, so that what was seen is what was checked
        self._beside = Beside(self.output)
        self.path = self._beside.new
        self.scratch = self._beside.scratch

    def __enter__(self) -> BundleWriter:
        try:
            self._beside.__enter__()
            self.path.mkdir()
        except OSError as error:
            self._beside.__exit__(None, None, None)
            raise UsageError(
                f"-o {self._asked}: cannot write in {self.output.parent} ({error.strerror})"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._beside.__exit__(kind, error, traceback)

    def commit(self, described: Described) -> Bundle:
        """Write the manifest with size and SHA-256 of every file, and move the folder into place.

        Args:
            described: all of the manifest but what is set here: ``format``, ``format_version`` and ``files``.

        Returns:
            The bundle under its final name.

        Raises:
            UsageError: what cannot be read back, the disk is full, or someone else wrote to ``output`` meanwhile (what
                they wrote stays).
        """
        names = sorted(f.relative_to(self.path).as_posix() for f in self.path.rglob("*") if f.is_file())
        files = {name: plain(entry_of(self.path / name)) for name in names if name != MANIFEST}
        whole = {
            **to_dict(described), "format": FORMAT, "format_version": FORMAT_VERSION, "files": files,
        }  # fmt: skip
        manifest_of(whole, self.output / MANIFEST)  # what cannot be read back is not written
        try:
            text = json.dumps(whole, indent=2, allow_nan=False) + "\n"
            (self.path / MANIFEST).write_text(text, encoding="utf-8")
            fsync_tree(self.path)
            self._beside.put(self._seen)
            fsync_tree(self.output.parent, recurse=False)
        except ChangedError as error:
            raise UsageError(f"-o {self._asked}: {_came(error, self.output)}; no bundle is written") from None
        except OSError as error:
            raise UsageError(f"-o {self._asked}: cannot be written ({error.strerror})") from error
        return Bundle.open(self.output, verify=False)


def _came(error: ChangedError, path: Path) -> str:
    """What came to stand under a bundle's name while it was made."""
    if error.kept is not None:
        return f"was made by someone else meanwhile; theirs is kept in {error.kept}"
    if is_bundle(path):
        return "a bundle was made or changed there by someone else meanwhile, and stays"
    return f"a {error.seen.kind} that is not a bundle was put there by someone else meanwhile, and stays"
