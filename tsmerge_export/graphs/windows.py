"""Windows that no length tried so far has filled: up to them a dim is as long as the input, and would be named like it.

Cuts and paddings at a number say that number in the graph. One run beyond it shows which dims stop growing there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from tsmerge_export.families.base import Arrays
from tsmerge_export.graphs.sizes import MOST_NUMBERS, Found, Trial
from tsmerge_export.rewrite.dims import dims

# Further away is no window, but a number that stands for the end.
_FARTHEST = 2**15
# Numbers in all values of a graph together: what a run that keeps them may take, as far as can be foretold.
_MOST_KEPT = 2**28
_LIMITS = {"Clip", "Max", "Min"}


def windows(measured: ir.Model, longest: int) -> list[int]:
    """Numbers beyond ``longest`` at which the graph cuts or fills a dim that varies; the greatest first."""
    found = {int(abs(number)) for node in measured.graph for number in _numbers(node)}
    return sorted((number for number in found if longest <= number <= _FARTHEST), reverse=True)


def _constant(value: ir.Value | None) -> np.ndarray | None:
    """The value of a constant, however it is written; None where it is computed."""
    found = None if value is None else ir.convenience.get_const_tensor(value)
    return None if found is None else np.asarray(found.numpy())


def _numbers(node: ir.Node) -> Iterator[int]:
    if node.domain in ("", "ai.onnx") and node.op_type in _LIMITS:
        for value in node.inputs:
            array = _constant(value)
            if array is not None and array.size == 1 and array.dtype.kind in "iu":
                yield int(array.reshape(()))
    if node.op_type != "Slice" or len(node.inputs) < 3 or node.inputs[0] is None:
        return
    known = dims(node.inputs[0])
    starts, ends = (_constant(value) for value in node.inputs[1:3])
    axes = _constant(node.inputs[3]) if len(node.inputs) > 3 else None
    if known is None or (len(node.inputs) > 3 and node.inputs[3] is not None and axes is None):
        return
    for limits in (starts, ends):
        if limits is None:
            continue
        over = range(limits.size) if axes is None else [int(axis) % len(known) for axis in axes.reshape(-1)]
        for axis, number in zip(over, limits.reshape(-1), strict=False):
            if isinstance(known[axis], str):
                yield int(number)


def beyond(run: Callable[[Arrays], object], measured: ir.Model, found: Found) -> Found:
    """``found`` with sizes beyond the windows of the graph, where it runs there; as it is where it has none.

    Args:
        run: runs the graph; raises where it does not run. measured: at the sizes of ``found``.
    """
    lengths = [dim for dim in found.sizes[0] if dim != "batch"]
    longest = max((own[dim] for own in found.sizes for dim in lengths), default=0)
    trial = Trial(run)
    for number in windows(measured, longest) if lengths else ():
        if _kept(measured, number) > _MOST_KEPT:
            continue
        for length in (number + 5, (number // 32 + 1) * 32):
            sizes = {dim: length if dim in lengths else 2 for dim in found.sizes[0]}
            if math.prod(sizes.values()) <= MOST_NUMBERS and not trial.fails(found.inputs, sizes):
                return replace(found, short=(*found.short, sizes))
    return found


def _kept(measured: ir.Model, length: int) -> int:
    """How many numbers the values of the graph hold at a length, for two rows, about."""
    total = 0
    for node in measured.graph:
        for value in node.outputs:
            known = dims(value) or []
            total += math.prod(
                dim if isinstance(dim, int) else 2 if dim == "batch" else length
                for dim in known
                if dim is not None
            )
    return total
