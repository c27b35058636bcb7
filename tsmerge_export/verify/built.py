"""The files of one component: what the verdicts compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tsmerge_export.bundle.manifest import BarrierEntry, ComponentEntry, MergeEntry, RatioEntry, TensorInfo
from tsmerge_export.families.base import Component, TensorSpec
from tsmerge_export.rewrite.insert import RewriteReport
from tsmerge_export.settings.run_time import INPUT


@dataclass(frozen=True)
class Built:
    """Files of one component.

    Attributes:
        unmerged: the plain export. merged: the artefact; the same file where nothing is merged.
        decisions: the artefact with its merge nodes, where ``merged`` has its functions inlined; else None.
        report: what the rewriter did.
        original: the plain export of the model that the weights were trained from, where merging is compared with that.
    """

    component: Component
    unmerged: Path
    merged: Path
    decisions: Path | None
    report: RewriteReport
    original: Path | None = None

    @property
    def rival(self) -> Path:
        """The file that merging is compared with."""
        return self.original or self.unmerged

    @property
    def with_nodes(self) -> Path:
        """The artefact, in the form that shows its merges."""
        return self.decisions or self.merged

    def entry(self) -> ComponentEntry:
        """What the manifest says of the component."""
        ratio = self.report.ratio
        return ComponentEntry(
            self.component.name,
            self.merged.name,
            _infos(self.component.inputs),
            _infos(self.component.outputs),
            tuple(MergeEntry(**vars(merge)) for merge in self.report.merges),
            tuple(BarrierEntry(**vars(barrier)) for barrier in self.report.barriers),
            None if ratio is None else RatioEntry(INPUT, str(ratio)),
        )


def _infos(specs: Sequence[TensorSpec]) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(**vars(spec)) for spec in specs)
