"""Where a bundle may be written: checked before any work."""

from __future__ import annotations

from pathlib import Path

from tsmerge_export.bundle.json_file import any_manifest, is_bundle
from tsmerge_export.bundle.manifest import MANIFEST
from tsmerge_export.errors import UsageError
from tsmerge_export.files.beside import entries, sweep
from tsmerge_export.files.paths import real_path, room_for


def check_output(output: str | Path, force: bool = False) -> Path:
    """Check, before any work, that a bundle can be written to ``output``. Makes missing parent folders.

    Args:
        force: allow replacing an existing bundle, or an empty folder; never anything else.

    Returns:
        The absolute path, links followed.

    Raises:
        UsageError: exists already, is no bundle or holds other files too, or cannot be written.
    """
    path = real_path(output)
    if not path.name:
        raise UsageError(f"-o {output}: is not a folder name")
    recover(path)
    if path.is_dir():
        other = _foreign(path)
        if not force:
            hint = "add --force to replace it" if other is None else "it is not a bundle; choose another name"
            raise UsageError(f"-o {output}: exists already; {hint}")
        if other is not None and is_bundle(path):
            raise UsageError(
                f"-o {output}: holds {other}, which is not part of the bundle and would be lost with --force; "
                "move it away, or choose another name"
            )
        if other is not None:
            raise UsageError(
                f"-o {output}: exists and is not a bundle, --force does not replace it; choose another name"
            )
    return room_for(path, output)


def _foreign(path: Path) -> str | None:
    """The first file in a folder that no export has put there; None in an empty folder and in a plain bundle.

    An engine that the bundle's own script builds beside a model counts as the bundle's.
    """
    manifest = any_manifest(path)
    if manifest is None:
        return next((name for name, _ in entries(path)), None)
    files = manifest.get("files")
    known = {MANIFEST, *(files if isinstance(files, dict) else ())}
    found = (name for name, entry in entries(path) if not entry.is_dir() or entry.is_symlink())
    return next(
        (n for n in found if n not in known and n.removesuffix(".engine") + ".onnx" not in known), None
    )


def recover(path: Path) -> None:
    """Put an old bundle back that a killed run had moved aside.

    Only systems without an atomic exchange of two folders have such a moment; see :mod:`~tsmerge_export.files.beside`.
    """
    if path.name and not path.exists():
        sweep(path.parent, path.name)
