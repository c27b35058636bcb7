"""Bundles that were changed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tsmerge_export.bundle import MANIFEST, sha256


def save_again(folder: Path, **entries: Any) -> None:
    """List the files of a bundle as they are now, as someone would who changed them; set other entries as well."""
    manifest = json.loads((folder / MANIFEST).read_text())
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != MANIFEST]
    manifest["files"] = {
        str(file.relative_to(folder)): {"size": file.stat().st_size, "sha256": sha256(file)} for file in files
    }
    (folder / MANIFEST).write_text(json.dumps(manifest | entries))
