"""Builds the files of one component: plain, merged, lowered. Shared by export and validate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import nn

from tsmerge_export.backends.onnxruntime.portable import to_portable
from tsmerge_export.compile.onnx_export import export_component, prove_dynamic
from tsmerge_export.console.progress import NoProgress, Progress
from tsmerge_export.families.base import Component
from tsmerge_export.onnx_model.weights import write_model
from tsmerge_export.rewrite.insert import RewriteReport
from tsmerge_export.rewrite.merge_graph import merge_graph
from tsmerge_export.settings.config import MergeConfig


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

    def to_dict(self) -> dict[str, Any]:
        """The component's entry in the manifest."""
        return {
            "name": self.component.name,
            "file": self.merged.name,
            "inputs": [spec.to_dict() for spec in self.component.inputs],
            "outputs": [spec.to_dict() for spec in self.component.outputs],
            "merges": [merge.to_dict() for merge in self.report.merges],
            "barriers": [barrier.to_dict() for barrier in self.report.barriers],
        }


def stay_merged(component: Component) -> dict[str, int]:
    """Outputs that may stay merged, with their token axis: those with a dynamic dim that no input has."""
    given = {dim for spec in component.inputs for dim in spec.dims}
    return {
        spec.name: axis
        for spec in component.outputs
        for axis, dim in enumerate(spec.dims)
        if isinstance(dim, str) and dim not in given
    }


def build(
    component: Component,
    model: nn.Module,
    merge: MergeConfig,
    *,
    opset: int,
    inline: bool,
    folder: Path,
    scratch: Path,
    progress: Progress,
) -> Built:
    """Export, prove, rewrite and lower one component.

    Args:
        folder: where ``<component>.onnx`` is written. scratch: for files that are not part of the result.

    Raises:
        UnsupportedError, UsageError, VerdictError: see the steps.
    """
    progress.step("export")
    plain = export_component(component, model, opset=opset, folder=scratch)
    prove_dynamic(component, model, plain)
    return merge_and_lower(
        component, plain, merge, inline=inline, folder=folder, scratch=scratch, progress=progress
    )


def merge_and_lower(
    component: Component,
    plain: ir.Model,
    merge: MergeConfig,
    *,
    inline: bool,
    folder: Path,
    scratch: Path,
    progress: Progress | None = None,
    stay: Mapping[str, int] | None = None,
) -> Built:
    """Rewrite and lower a component that is exported already; ``plain`` is not changed. Otherwise as :func:`build`.

    ``stay``: outputs that may stay merged, instead of :func:`stay_merged`.
    """
    progress = progress or NoProgress()
    progress.step("rewrite")
    unmerged = scratch / f"{component.name}.unmerged.onnx"
    write_model(to_portable(_finished(plain.clone(), component)), unmerged)
    artefact = folder / f"{component.name}.onnx"
    if not (merge.active and component.mergeable):
        write_model(to_portable(_finished(plain.clone(), component)), artefact)
        return Built(component, unmerged, artefact, None, RewriteReport())
    hints = component.hints
    merged, report = merge_graph(
        plain.clone(),
        merge,
        token_mask=hints.token_mask,
        token_log_size=hints.token_log_size,
        stay=stay_merged(component) if stay is None else stay,
        scope=hints.scope,
        protect_first=hints.protect_first,
        protect_last=hints.protect_last,
    )
    _finished(merged, component)
    progress.step("lower")
    decisions = None
    if inline:
        decisions = scratch / f"{component.name}.decisions.onnx"
        write_model(to_portable(merged), decisions)
    write_model(to_portable(merged, inline=inline), artefact)
    return Built(component, unmerged, artefact, decisions, report)


def _finished(model: ir.Model, component: Component) -> ir.Model:
    """Drop outputs that only the rewriter needed, and name the dims of the others after the component's specs."""
    by_name = {value.name: value for value in model.graph.outputs}
    model.graph.outputs[:] = [by_name[spec.name] for spec in component.outputs]
    for spec in component.outputs:
        by_name[spec.name].shape = ir.Shape(list(spec.dims))
    RemoveUnusedNodesPass()(model)
    return model
