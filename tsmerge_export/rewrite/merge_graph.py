"""The rewriter as one step: shapes, points, plan, insertion. It knows graphs, not model families."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from tsmerge_export.errors import UnsupportedError
from tsmerge_export.merge.plan import make_plan
from tsmerge_export.rewrite.between import insert_between_blocks
from tsmerge_export.rewrite.blocks import find_blocks
from tsmerge_export.rewrite.infer import infer_shapes
from tsmerge_export.rewrite.insert import RewriteReport, insert_merges
from tsmerge_export.rewrite.points import Point, find_points
from tsmerge_export.rewrite.transposes import unfold_transposes
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.run_time import METADATA


def merge_graph(
    model: ir.Model,
    merge: MergeConfig,
    *,
    token_mask: str | None = None,
    token_log_size: str | None = None,
    apart: str | None = None,
    stay: Mapping[str, int] | None = None,
    scope: str | None = None,
    protect_first: int = 0,
    protect_last: int = 0,
) -> tuple[ir.Model, RewriteReport]:
    """Insert merging into a plain ONNX graph.

    Args:
        model: plain ONNX with or without value_info; it may be edited or copied.
        merge: the settings; layers count the points found, in order of execution.
        token_mask, token_log_size, apart, stay: see :func:`~tsmerge_export.rewrite.insert.insert_merges`.
        scope: regular expression on exporter scopes, see :func:`~tsmerge_export.rewrite.points.find_points`.
        protect_first, protect_last: tokens at either end that take no part.

    Returns:
        The model with abstract nodes of domain ``tsmerge`` (no function bodies yet) and what was done.

    Raises:
        UnsupportedError: no safe merge point. UsageError: a layer that the graph does not have.
    """
    model = infer_shapes(model)
    unfold_transposes(model)
    points, rejected = find_points(model.graph, scope)
    blocks = [] if points else find_blocks(model.graph)
    if blocks:
        report = _between(model, blocks, merge, token_mask, stay, protect_first, protect_last)
        return model, _noted(model, merge, report)
    if not points:
        reasons = "; ".join(f"{item.node}: {item.reason}" for item in rejected[:3])
        raise UnsupportedError(
            "no safe merge point: looked for Softmax over equal query and key lengths -> product with values -> "
            "projection -> residual Add, and for depthwise Conv -> residual Add (state-space models); "
            f"found {len(rejected)} candidates" + (f" ({reasons})" if reasons else "")
        )
    plan = make_plan(merge, len(points), protect_first=protect_first, protect_last=protect_last)
    report = insert_merges(
        model,
        points,
        plan,
        token_mask=token_mask,
        token_log_size=token_log_size,
        apart=apart,
        stay=stay,
        positions=merge.positions,
        metric=merge.metric,
        prop_attn=merge.prop_attn,
    )
    return model, _noted(model, merge, report)


def _noted(model: ir.Model, merge: MergeConfig, report: RewriteReport) -> RewriteReport:
    """Write down in the file what a ratio is that is chosen at run time, where nobody chooses."""
    if report.merges and merge.default_ratio is not None:
        report.ratio = merge.default_ratio
        model.metadata_props[METADATA] = str(report.ratio)
    return report


def _between(
    model: ir.Model,
    blocks: list[Point],
    merge: MergeConfig,
    token_mask: str | None,
    stay: Mapping[str, int] | None,
    protect_first: int,
    protect_last: int,
) -> RewriteReport:
    """Merging between the blocks of a state-space model, which has no attention, and here no padding."""
    for given, flag in ((merge.metric == "key", "--metric key"), (merge.prop_attn, "--prop-attn")):
        if given:
            raise UnsupportedError(
                f"{flag} needs attention, and this state-space model has none; leave it out"
            )
    if token_mask is not None:
        raise UnsupportedError("merging between the blocks of a state-space model does not support padding")
    plan = make_plan(merge, len(blocks), protect_first=protect_first, protect_last=protect_last)
    if any(step.pads for step in plan.values()):
        raise UnsupportedError("--per-series: a state-space model has no mask for padding; leave it out")
    return insert_between_blocks(model, blocks, plan, stay=stay, metric=merge.metric)
