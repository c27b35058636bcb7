"""Export and validation of a model that comes as a graph: ``.onnx`` or ``.pt2``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx_ir as ir

from tsmerge_export.backends.onnxruntime import native
from tsmerge_export.bundle import Bundle, BundleWriter
from tsmerge_export.compile.build import Built, merge_and_lower
from tsmerge_export.console.progress import Progress, Stopwatch
from tsmerge_export.errors import UnsupportedError, UsageError, VerdictError
from tsmerge_export.graphs import verdicts
from tsmerge_export.graphs.model import (
    FAMILY,
    GraphModel,
    GraphOptions,
    drop_mask,
    load_graph_model,
)
from tsmerge_export.merge.default import FILES, Settled, settle_layers
from tsmerge_export.report.text import REPORT_ONLY
from tsmerge_export.rewrite.blocks import find_blocks
from tsmerge_export.rewrite.points import Point, find_points
from tsmerge_export.rewrite.subgraphs import nodes_inside
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import remarks
from tsmerge_export.verify.checks import Checks
from tsmerge_export.version import versions

_QUANTISED = {"DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearMatMul", "QuantizeLinear"}


def export_graph(
    source: str | Path,
    merge: MergeConfig | None,
    options: GraphOptions,
    *,
    output: str | Path | Callable[[str], str | Path],
    opset: int | None,
    inline: bool,
    checks: Checks,
    force: bool,
    progress: Progress,
) -> Bundle:
    """:func:`tsmerge_export.api.export` for a graph."""
    progress = watch = Stopwatch(progress)
    model, settled = _load(source, merge, options, opset, progress)
    merge = settled.merge
    output = output(merge.method) if callable(output) else output
    with BundleWriter(output, force) as writer:
        built = _build(model, merge, inline, writer.path, writer.scratch, progress)
        manifest: dict[str, Any] = {
            "source": model.source,
            "family": FAMILY,
            "merge": merge.to_dict(),
            "notes": [] if settled.note is None else [settled.note],
            "graph": options.to_dict() | {"token_mask": model.token_mask},
            "opset": model.opset,
            "inline": inline,
            "components": [built.to_dict()],
            "pipeline": {},
            "verdicts": _verdicts(model, merge, built, checks, progress),
            "versions": versions(),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "run": {
                "output": Path(output).name,
                "opset": opset,
                "token_mask": options.token_mask,
                "inputs": None if options.inputs is None else str(options.inputs),
                "atol": checks.atol,
                "rtol": checks.rtol,
                "threads": checks.threads,
                "seed": checks.seed,
                **native.run_entry(),
            },
        }
        if not manifest["verdicts"]["parity"]["passed"]:
            first = next(iter(manifest["verdicts"]["parity"]["failures"]), "no row was compared")
            raise VerdictError(f"{source}: parity failed, no bundle is written: {first}", manifest)
        progress.step("bundle")
        from tsmerge_export.api import write_texts

        watch.stop()
        write_texts(writer.path, manifest | {"seconds": watch.seconds}, model.sizes[0])
        return writer.commit({key: value for key, value in manifest.items() if key not in REPORT_ONLY})


def built_graph(
    source: str | Path, merge: MergeConfig, options: GraphOptions, folder: Path, progress: Progress
) -> tuple[GraphModel, Settled, Built]:
    """A graph, and its unmerged and merged files in ``folder``, without verdicts. Raises as :func:`export_graph`."""
    model, settled = _load(source, merge, options, None, progress)
    return model, settled, _build(model, settled.merge, False, folder, folder, progress)


def validate_graph(
    bundle: Bundle,
    source: str | Path,
    *,
    inputs: str | Path | None,
    checks: Checks,
    progress: Progress,
) -> dict[str, Any]:
    """:func:`tsmerge_export.api.validate` for a graph."""
    if bundle.manifest.get("family") != FAMILY:
        raise UsageError(
            f"{bundle.path}: was made from a {bundle.manifest.get('family')}, not from a file such as {source}"
        )
    merge = MergeConfig.from_dict(bundle.manifest["merge"])
    kept = bundle.manifest.get("graph") or {}
    options = GraphOptions(
        kept.get("token_mask") or "none", kept.get("protect_first", 0), kept.get("protect_last", 0), inputs
    )
    inlined = bool(bundle.manifest.get("inline")) and merge.active
    if inlined:
        native.refuse("an inlined bundle")
    with TemporaryDirectory(prefix="tsmerge-") as name:
        folder = Path(name)
        made = bundle.components[0]
        ends = [[item.name for item in each] for each in (made.inputs, made.outputs)]
        model, _ = _load(source, merge, options, bundle.manifest.get("opset"), progress, ends)
        fresh = _build(model, merge, False, folder, folder, progress)
        file = bundle.component(fresh.component.name).file
        built = Built(fresh.component, fresh.unmerged, file, fresh.merged if inlined else None, fresh.report)
        return _verdicts(model, merge, built, checks, progress)


def _load(
    source: str | Path,
    merge: MergeConfig | None,
    options: GraphOptions,
    opset: int | None,
    progress: Progress,
    ends: Sequence[Sequence[str]] | None = None,
) -> tuple[GraphModel, Settled]:
    if merge is not None and merge.active and merge.positions == "compact":
        raise UnsupportedError(
            f"{source}: --positions compact cannot be proved without an eager model; use gather"
        )
    progress.step("load")
    model = load_graph_model(source, options, opset=opset, ends=ends)
    settled = Settled(MergeConfig("none"))
    if merge is None or merge.active:
        points = _points(model)
        other = next((p.value.dtype for p in points if p.value.dtype != ir.DataType.FLOAT), None)
        if other is not None:
            raise UnsupportedError(f"{source}: its tokens are {other.name.lower()}; give a float32 export")
        settled = settle_layers(merge, FILES, len(points), "files")
        settled.merge.check_turns(len(settled.merge.select_layers(len(points))))
        _check_mask(model, options, points)
    return model, settled


def _points(model: GraphModel) -> list[Point]:
    """Where tokens can be merged. Raises UnsupportedError, with what was looked for, where that is nowhere."""
    graph = model.measured.graph
    points, rejected = find_points(graph)
    reasons = "; ".join(
        f"{n} x {reason}" for reason, n in Counter(item.reason for item in rejected).most_common(4)
    )
    if points:
        if rejected:
            model.notes.append(
                f"{len(rejected)} of {len(points) + len(rejected)} attentions are no place to merge: {reasons}"
            )
        return points
    if find_blocks(graph):
        raise UnsupportedError(
            f"{model.source}: a state-space model, whose merging cannot be proved from the file alone; give the "
            "checkpoint (see `tsmerge families`), or --merge none"
        )
    softmaxes = sum(node.op_type == "Softmax" for node in graph)
    inside = sum(node.op_type == "Softmax" for outer in graph for node in nodes_inside(outer))
    present = {node.op_type for node in graph}
    fused = sorted(present & {"Attention", "Einsum", "RotaryEmbedding"})
    raise UnsupportedError(
        f"{model.source}: no safe merge point. Looked for Softmax over [.., tokens, tokens] -> product with values -> "
        f"projection -> residual Add. Found {softmaxes} Softmax, {len(rejected)} of them over the last of three or "
        "more axes" + (f", refused: {reasons}" if reasons else "")
        + (f"; not written out: {', '.join(fused)}" if fused else "")
        + (f"; {inside} more inside the body of a loop or a branch, which is left as it is" if inside else "")
        + (". It is quantised: merge the float32 model, and quantise what comes out" if present & _QUANTISED else "")
        + ". Export it with --merge none to have it as it is"
    )  # fmt: skip


def _check_mask(model: GraphModel, options: GraphOptions, points: list[Point]) -> None:
    """The token mask must have one entry for each token of the first merge."""
    if model.token_mask is None:
        return
    found = next(item.spec.dims for item in model.inputs if item.spec.name == model.token_mask)
    tokens = [point.rows for point in points]
    if list(found) in tokens:
        return
    if options.token_mask is None:
        model.notes.append(
            f"{model.token_mask} {list(found)} does not have one entry per token, so that padding merges like the rest"
        )
        drop_mask(model)
        return
    raise UsageError(
        f"--token-mask {model.token_mask}: is {list(found)}, but the tokens that merge are {tokens[0]}; it needs one "
        "entry for each"
    )


def _build(
    model: GraphModel, merge: MergeConfig, inline: bool, folder: Path, scratch: Path, progress: Progress
) -> Built:
    return merge_and_lower(
        model.component, model.measured, merge, inline=inline, folder=folder, scratch=scratch, progress=progress,
        stay={},
    )  # fmt: skip


def _verdicts(
    model: GraphModel,
    merge: MergeConfig,
    built: Built,
    checks: Checks,
    progress: Progress,
) -> dict[str, Any]:
    progress.step("parity")
    out = {"parity": verdicts.parity(model, merge, built, checks, progress=progress.update)}
    if merge.active and out["parity"]["passed"]:
        progress.step("cost")
        out["cost"] = verdicts.cost(model, built, checks)
        told = remarks.beyond(merge, built.decisions or built.merged, out["cost"]["speed"]["length"])
        out["cost"]["notes"] += [] if told is None else [told]
    return out
