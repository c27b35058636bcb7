"""What back ends share that a bundle is made for beside ONNX Runtime."""

from __future__ import annotations

from typing import Any

from tsmerge_export.bundle import Manifest
from tsmerge_export.bundle.target import TargetEntry
from tsmerge_export.errors import UsageError


def refuse_options(name: str, **given: Any) -> None:
    """Raise UsageError for arguments of :func:`tsmerge_export.load` that a runtime does not have."""
    if any(value is not None for value in given.values()):
        raise UsageError(f"{' and '.join(given)} have no effect with runtime {name}; leave them out")


def entry_of(manifest: Manifest, runtime: str) -> TargetEntry:
    """The manifest's account of a target. Raises UsageError when the bundle was made for another runtime."""
    target = manifest.target
    if target is None or target.runtime != runtime:
        made = "onnxruntime" if target is None else target.runtime
        raise UsageError(f"the bundle was made for {made}; export it with --runtime {runtime}")
    return target
