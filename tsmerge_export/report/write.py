"""Writes what people read of a bundle, and of a distilled checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tsmerge_export.bundle.report import report_dict
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.inspection.inspect import inspect_file
from tsmerge_export.report.html import report_page
from tsmerge_export.report.html.distillation import distillation_page
from tsmerge_export.report.model_card import model_card
from tsmerge_export.report.text import json_text


def write_texts(folder: Path, manifest: dict[str, Any], sizes: Mapping[str, int] | None = None) -> None:
    """Write ``report.json``, ``report.html`` and the model card of a bundle.

    Args:
        sizes: batch and lengths at which a graph from a file is known to run.
    """
    size: dict[str, int] = {}
    if sizes is not None:
        lengths = [size for dim, size in sizes.items() if dim != "batch"]
        size = {"batch": sizes.get("batch", 1), "length": max(lengths, default=1)}
    try:
        tokens = [inspect_file(folder / part["file"], **size) for part in manifest["components"]]
    except UnsupportedError:
        if sizes is None:
            raise
        tokens = []  # one number is not enough to describe its inputs
    report = report_dict({**manifest, "tokens": tokens})
    texts = {
        "report.json": json_text(report),
        "report.html": report_page(report),
        "README.md": model_card(manifest, tokens),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def write_distillation(content: Mapping[str, Any], folder: Path) -> None:
    """Write ``report.json`` and ``report.html`` of a distilled checkpoint."""
    texts = {"report.json": json_text(content), "report.html": distillation_page(content)}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
