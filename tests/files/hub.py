"""Files as the hub's cache holds them."""

from __future__ import annotations

from pathlib import Path


def hub_cache(files: dict[str, Path], root: Path) -> Path:
    """Move files to where huggingface_hub keeps them; the folder in ``snapshots/`` with links of the old names."""
    blobs, snapshot = root / "blobs", root / "snapshots" / "0a1b"
    blobs.mkdir(parents=True)
    for index, (name, file) in enumerate(files.items()):
        file.rename(blobs / f"{index:040x}")
        link = snapshot / name
        link.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * (len(link.relative_to(root).parts) - 1)
        link.symlink_to(f"{up}blobs/{index:040x}")
    return snapshot
