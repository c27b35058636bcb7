"""Files by content: what the manifest lists against what is there."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

from tsmerge_export.bundle.manifest import MANIFEST, FileEntry
from tsmerge_export.errors import UsageError
from tsmerge_export.files.paths import beside, is_inner_name


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_file(folder: Path, name: str, entry: FileEntry, verify: bool) -> None:
    """Raise UsageError where a listed file leaves the folder, is missing, or with ``verify`` is another one."""
    if not is_inner_name(name) or str(PurePosixPath(name)) == MANIFEST:
        raise UsageError(f"{folder / MANIFEST}: file name {name!r} leaves the bundle's folder")
    file = folder / name
    if beside(folder / MANIFEST, name) is None:
        raise UsageError(f"{file}: is a link that leaves the bundle's folder")
    if not file.is_file():
        raise UsageError(f"{file}: is missing from the bundle; export it again")
    try:
        if verify and (file.stat().st_size != entry.size or sha256(file) != entry.sha256):
            raise UsageError(
                f"{file}: was changed after the export (size or SHA-256 differs); export the bundle again"
            )
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})") from None


def entry_of(file: Path) -> FileEntry:
    """What the manifest says of a file."""
    return FileEntry(file.stat().st_size, sha256(file))
