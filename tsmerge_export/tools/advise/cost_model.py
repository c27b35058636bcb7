"""How long a file takes, foretold from its graph alone; the constants come from timing the unmerged file.

``seconds = a * nodes + b * flops + c * values``: what every node costs to start, the matrix products, and the values
that nodes write (softmax, sums, copies are bound by memory). The constants are not negative; they are fitted to the
unmerged file's own times at several lengths, so they hold for this model on this machine. A merged graph has more
nodes, and fewer products and values; the same constants foretell its time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tsmerge_export.inspection.flops import count

# Nodes that write nothing: ONNX Runtime folds them, or hands the buffer on.
_FREE = ("Constant", "Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class Work:
    """What one run of a graph does at one input size: nodes run, FLOPs of matrix products, values written."""

    nodes: int
    flops: int
    values: int

    @property
    def row(self) -> NDArray[np.float64]:
        """``[3]``."""
        return np.array([self.nodes, self.flops, self.values], np.float64)


def work_of(flat: onnx.ModelProto, inputs: Mapping[str, NDArray[Any]]) -> Work:
    """Count by one run of a graph without functions (``onnx.inliner.inline_local_functions``)."""
    nodes = [node for node in flat.graph.node if node.op_type != "Constant"]
    written = [name for node in nodes if node.op_type not in _FREE for name in node.output if name]
    found = count(flat, inputs, written)
    return Work(len(nodes), found.total, sum(math.prod(found.shapes[name]) for name in written))


@dataclass(frozen=True)
class CostModel:
    """Seconds per node, per FLOP and per value."""

    constants: tuple[float, float, float]

    def seconds(self, work: Work) -> float:
        """Foretold time of one run."""
        return float(work.row @ np.asarray(self.constants))


def fit(works: Sequence[Work], seconds: Sequence[float]) -> CostModel:
    """Constants with the least relative error on measured times, by non-negative least squares (Lawson-Hanson)."""
    from scipy.optimize import nnls

    rows = np.stack([work.row for work in works]) / np.asarray(seconds)[:, None]
    scale = rows.max(0)
    scale[scale == 0] = 1.0
    found, _ = nnls(rows / scale, np.ones(len(rows)))
    a, b, c = (float(value) for value in found / scale)
    return CostModel((a, b, c))


def time_of(call: Callable[[], object], runs: int = 30, seconds: float = 1.0) -> float:
    """Seconds of the fastest of up to ``runs`` calls (what else the machine does only adds), after two to warm up."""
    for _ in range(2):
        call()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 3 or (len(times) < runs and time.perf_counter() - begin < seconds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
