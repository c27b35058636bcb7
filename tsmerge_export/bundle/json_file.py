"""Reading the JSON files of a bundle. They come from elsewhere: size, text and nesting are bounded, numbers finite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from tsmerge_export.bundle.manifest import FORMAT, MANIFEST
from tsmerge_export.errors import UsageError

_MAX_BYTES = 64 * 2**20


def read_json(file: Path) -> Any:
    """The content of a file.

    Raises:
        UsageError: it is too large, cannot be read, or is no JSON. FileNotFoundError: there is none.
    """
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise UsageError(f"{file}: too large for a {file.stem}")
        return json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{file}: not valid JSON; export the bundle again") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def manifest_content(path: Path) -> dict[str, Any]:
    """The manifest of the bundle in ``path`` as it is written; only the format's name is checked.

    Raises:
        UsageError: not a bundle, or unreadable.
    """
    if not path.is_dir():
        raise UsageError(
            f"{path}: {'not a folder' if path.exists() else 'no such folder'}; give a bundle's folder"
        )
    try:
        content = read_json(path / MANIFEST)
    except FileNotFoundError:
        raise UsageError(f"{path}: not a bundle (no {MANIFEST})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UsageError(f"{path}: not a bundle of tsmerge-export ({MANIFEST} has another format)")
    return content


def any_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest in a folder, of any format version; None where there is none of ours."""
    try:
        return manifest_content(path)
    except (OSError, UsageError):
        return None


def is_bundle(path: Path) -> bool:
    """Whether ``path`` is a folder with a manifest of ours, of any format version."""
    return any_manifest(path) is not None
