"""What a person looks at: forecasts of both artefacts over the same history, and which of its tokens were merged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from torch import nn

from tsmerge_export.backends.onnxruntime.profile import merge_share
from tsmerge_export.families.base import Arrays, Component, Family, Forecasts
from tsmerge_export.inspection import flops
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.ops import DOMAIN, merge_op_types
from tsmerge_export.verify.checks import USUAL, Checks
from tsmerge_export.verify.cost import CostReport
from tsmerge_export.verify.data import Table, rolling_windows
from tsmerge_export.verify.decisions import tap
from tsmerge_export.verify.threads import torch_threads
from tsmerge_export.verify.window_errors import run_named, stream

_SIZE_SLOT = 1
_DIGITS = 6


def make(
    family: Family,
    component: Component,
    model: nn.Module,
    unmerged: Path,
    merged: Path,
    table: Table,
    cost: CostReport,
    checks: Checks = USUAL,
    *,
    forecasts: Forecasts,
    rival: Forecasts | None = None,
    with_decisions: Path | None = None,
) -> dict[str, Any]:
    """Forecast the last window of up to three columns with both artefacts, and read the merge decisions of the first.

    These are the windows of the cost, drawn with its numbers: ``predict_quantiles(history, seed=seed,
    first_series=first_series)`` of the bundle's forecaster gives the same again.

    Args:
        family, component, model, unmerged, merged, checks, with_decisions: as for
            :func:`~tsmerge_export.verify.cost.measure`.
        table, cost: the same data, and what merging cost on it: the columns are those where the MSE changed
            typically, least and most (see :func:`choose_columns`).
        forecasts: by the exported files, see :func:`~tsmerge_export.verify.decoded.forecasts_by`.
        rival: the same of the model that ``unmerged`` is of, where that is another.

    Returns:
        JSON-ready: ``levels`` (the quantile levels below, of the middle and above), ``seed``, ``first_series`` (the
        number of the window in the seed's streams) and ``series``, one dict for each column: ``column``, ``role``,
        ``first_row`` (of the table, where the forecast starts), ``history`` ``[L]``, ``target`` ``[H]``, and for
        ``unmerged`` and ``merged`` ``low``, ``median`` and ``high``, each ``[H]``. ``tokens`` is what
        :func:`read_tokens` gives for the history of the first, ``merge_share`` the share of run time that goes into
        merging at the size of the cost's speed. Numbers have six digits.
    """
    cut = rolling_windows(table, cost.context, cost.horizon, limit=cost.windows)
    first = stream(cost.windows - 1)
    chosen = choose_columns(cost)
    history = np.stack([cut.context[index, -1] for index, _ in chosen])
    names = [spec.name for spec in component.outputs]
    runs = {
        name: (partial(run_named, checks.open(path), names), drawing)
        for name, path, drawing in (("unmerged", unmerged, rival or forecasts), ("merged", merged, forecasts))
    }
    levels = forecasts.levels
    with torch_threads(checks.threads):
        # One series a call: a method that decides over the batch then decides by what is shown.
        drawn = {
            name: [drawing.draw(run, row[None], checks.seed, first)[0] for row in history]
            for name, (run, drawing) in runs.items()
        }
    low, high = int(np.argmin(levels)), int(np.argmax(levels))
    middle = _middle(levels)
    series = [
        {
            "column": cut.columns[index],
            "role": role,
            "first_row": len(table.values) - cost.horizon,
            "history": _short(history[number]),
            "target": _short(cut.target[index, -1]),
            **{
                name: {
                    "low": _short(quantiles[number][low]),
                    "median": _short(quantiles[number][middle].mean(axis=0)),
                    "high": _short(quantiles[number][high]),
                }
                for name, quantiles in drawn.items()
            },
        }
        for number, (index, role) in enumerate(chosen)
    ]
    points = family.merge_points(model)
    feed = component.from_series(model, history[:1])
    batch = np.resize(cut.context.reshape(-1, cost.context), (cost.speed.batch, cost.context))
    tokens = read_tokens(
        with_decisions or merged,
        feed,
        steps=history.shape[1],
        special=(points.protect_first, points.protect_last),
        checks=checks,
    )
    return {
        "levels": [levels[low], float(np.mean([levels[i] for i in middle])), levels[high]],
        "seed": checks.seed,
        "first_series": first,
        "series": series,
        "tokens": tokens,
        "merge_share": merge_share(
            with_decisions or merged, component.from_series(model, batch), checks.threads, checks.place
        ),
    }


def choose_columns(cost: CostReport) -> list[tuple[int, str]]:
    """Up to three columns (index, role): where merging changed the MSE typically, least and most.

    Columns where the MSE has no relative change (nothing observed, or a perfect unmerged forecast) are not among them.
    """
    changes = []
    for index, change in enumerate(cost.changes_percent("mse")):
        changes.append((math.isnan(change), change if not math.isnan(change) else 0.0, index))
    order = [index for missing, _, index in sorted(changes) if not missing]
    if not order:
        return [(0, "the first column")]
    if len(order) == 1:
        return [(order[0], "the only column" if len(changes) == 1 else "the only column with a score")]
    roles = {order[0]: "the column whose MSE rose least", order[-1]: "the column whose MSE rose most"}
    if len(order) > 2:
        roles = {order[(len(order) - 1) // 2]: "the column in the middle by the change of its MSE"} | roles
    return list(roles.items())


def read_tokens(
    artefact: Path, feed: Arrays, *, steps: int, special: tuple[int, int], checks: Checks = USUAL
) -> dict[str, Any] | None:
    """The merge decisions of a file on one series.

    Args:
        artefact: .onnx file that holds merge nodes. feed: its inputs, batch 1.
        steps: L, time steps of the series. special: tokens at either end that a model protects anyway.

    Returns:
        JSON-ready: ``count`` (N, tokens before the first merge), ``protected`` (tokens at either end that take part in
        no merge), ``steps``, ``steps_per_token`` and ``special`` (both None where they do not follow from the counts,
        see :func:`steps_per_token`), ``size`` ``[N]`` before the first merge (0 is padding), and ``layers``: for each
        merge ``layer``, ``kept [M]``, ``target`` (one entry per input token) and ``size [M]``, as the operator gives
        them; and ``flops`` over the same series (see :func:`tsmerge_export.inspection.flops.savings`). None where the
        file has no merge nodes.
    """
    proto = onnx_weights.read(artefact)
    nodes = [n for n in proto.graph.node if n.domain == DOMAIN and n.op_type in merge_op_types()]
    if not nodes:
        return None
    products, _ = flops.savings(proto, feed)  # before the graph gets further outputs
    taps = tap(proto)
    outputs = {value.name for value in proto.graph.output}
    sizes = [nodes[0].input[2]]
    for number, node in enumerate(nodes):
        node.output[_SIZE_SLOT] = node.output[_SIZE_SLOT] or f"__tsmerge_{number}_size"
        sizes.append(node.output[_SIZE_SLOT])
    proto.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in sizes
        if name not in outputs
    )
    names = [*sizes, *(place.kept for place in taps), *(place.target for place in taps)]
    run = run_named(checks.open(proto), names, feed)
    layers = [
        {
            "layer": _layer_of(node, number),
            "kept": run[place.kept][0].tolist(),
            "target": run[place.target][0].tolist(),
            "size": _short(run[size][0]),
        }
        for number, (node, place, size) in enumerate(zip(nodes, taps, sizes[1:], strict=True))
    ]
    count = len(layers[0]["target"])
    # The first row, like the layers: a model may have several in each series (channels).
    first_size = np.broadcast_to(run[sizes[0]][:1], (1, count))[0]
    per_token, ends = steps_per_token(steps, count, special)
    return {
        "count": count,
        "protected": [min(count, _least(nodes, name)) for name in ("protect_first", "protect_last")],
        "steps": steps,
        "steps_per_token": per_token,
        "special": None if ends is None else list(ends),
        "size": _short(first_size),
        "layers": layers,
        "flops": products,
    }


def steps_per_token(
    steps: int, count: int, protected: tuple[int, int]
) -> tuple[int | None, tuple[int, int] | None]:
    """How many time steps a token stands for, and how many tokens at either end are special, from the counts alone.

    Every token is taken to stand for as many steps p as any other, but the first, which may be padded:
    ``ceil(steps / p)`` tokens. Those that are protected are special, in front of or behind these, or are among them.

    Returns:
        p and the special tokens at either end; (None, None) where no p fits, or more than one does.
    """
    fits = []
    for special in {protected, (0, 0)}:
        tokens = count - sum(special)
        if not 1 <= tokens <= steps:
            continue
        least = -(-steps // tokens)
        fits += [(p, special) for p in (least, least + 1) if -(-steps // p) == tokens]
    return fits[0] if len(fits) == 1 else (None, None)


def _least(nodes: Sequence[onnx.NodeProto], name: str) -> int:
    """The least value of an attribute of whole numbers; 0 where a node has none."""
    return min(next((a.i for a in node.attribute if a.name == name), 0) for node in nodes)


def _layer_of(node: onnx.NodeProto, number: int) -> int:
    notes = {prop.key: prop.value for prop in node.metadata_props}
    text = notes.get(f"{DOMAIN}.layer", "")
    return int(text) if text.isdecimal() else number


def _middle(levels: Sequence[float]) -> list[int]:
    off = np.abs(np.asarray(levels) - 0.5)
    return [int(i) for i in np.flatnonzero(np.isclose(off, off.min()))]


def _short(values: npt.NDArray[Any]) -> list[float | None]:
    """Six digits are more than a screen shows; a value that is not finite is None."""
    return [
        float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
        for value in np.asarray(values, np.float64)
    ]
