"""Bundles of graphs from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tsmerge_export as tsm
from tsmerge_export import api
from tsmerge_export.graphs.model import GraphOptions
from tsmerge_export.settings.config import MergeConfig


def bundle_of(file: Path, merge: MergeConfig | None = None, **options: Any) -> tsm.Bundle:
    """Beside the file; ``options`` are those of the graph."""
    graph = GraphOptions(**options)
    merge = merge or MergeConfig(ratio="1/4", min_tokens=2)
    return api.export(file, merge, output=file.with_suffix(""), graph=graph, threads=1, force=True)
