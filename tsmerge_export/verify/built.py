"""The files of one component: what the verdicts compare."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsmerge_export.families.base import Component
from tsmerge_export.rewrite.insert import RewriteReport
from tsmerge_export.settings.run_time import INPUT


@dataclass(frozen=True)
class Built:
    """Files of one component.

    Attributes:
        unmerged: the plain export. merged: the artefact; the same file where nothing is merged.
        decisions: the artefact with its merge nodes, where ``merged`` has its functions inlined; else None.
        report: what the rewriter did.
    """

    component: Component
    unmerged: Path
    merged: Path
    decisions: Path | None
    report: RewriteReport

    @property
    def with_nodes(self) -> Path:
        """The artefact, in the form that shows its merges."""
        return self.decisions or self.merged

    def to_dict(self) -> dict[str, Any]:
        """The component's entry in the manifest."""
        ratio = self.report.ratio
        return {
            "name": self.component.name,
            "file": self.merged.name,
            "inputs": [spec.to_dict() for spec in self.component.inputs],
            "outputs": [spec.to_dict() for spec in self.component.outputs],
            "merges": [merge.to_dict() for merge in self.report.merges],
            "barriers": [barrier.to_dict() for barrier in self.report.barriers],
            **({} if ratio is None else {"ratio": {"input": INPUT, "default": str(ratio)}}),
        }
