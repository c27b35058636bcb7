"""From the plain graph of a component to its files: merged, lowered, written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from tsmerge_export.backends.onnxruntime.portable import to_portable
from tsmerge_export.console.progress import NoProgress, Progress
from tsmerge_export.families.base import Component
from tsmerge_export.onnx_model.weights import write_model
from tsmerge_export.rewrite.insert import RewriteReport
from tsmerge_export.rewrite.merge_graph import merge_graph
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify.built import Built


def stay_merged(component: Component) -> dict[str, int]:
    """Outputs that may stay merged, with their token axis: those with a dynamic dim that no input has."""
    given = {dim for spec in component.inputs for dim in spec.dims}
    return {
        spec.name: axis
        for spec in component.outputs
        for axis, dim in enumerate(spec.dims)
        if isinstance(dim, str) and dim not in given
    }


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
    """Rewrite and lower a component that is exported already.

    Args:
        plain: its graph without merging, which is not changed.
        folder: where ``<component>.onnx`` is written. scratch: for files that are not part of the result.
        stay: outputs that may stay merged, instead of :func:`stay_merged`.

    Raises:
        UnsupportedError, UsageError: see the steps.
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
        apart=hints.apart,
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
