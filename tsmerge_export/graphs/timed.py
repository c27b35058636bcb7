"""The call that a graph from a file is timed by: sizes that it runs at, and what is to be seen in its outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tsmerge_export.families.base import Arrays
from tsmerge_export.graphs.model import GraphModel
from tsmerge_export.inspection.feeds import KINDS, Sizes, make
from tsmerge_export.rewrite.dims import dims
from tsmerge_export.rewrite.points import find_points
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.window_errors import run_named

#: On what costs are measured.
DATA = "generated inputs"
_TIMED_LENGTHS = (512, 256, 128)
_SHORT_LENGTHS = (40,)  # where speed is not looked at
_TIMED_BATCHES = (8, 4, 2, 1)
_MOST_WORK = 2**24  # several lengths in one input (time and variates) multiply


def does_run(session: Any, feeds: Arrays) -> bool:
    """Whether a session takes inputs of these sizes."""
    try:
        session.run(None, feeds)
    except Exception:  # ONNX Runtime raises its own types, one per status code
        return False
    return True


def batch_of(model: GraphModel, feeds: Arrays) -> int:
    """Rows of the batch: of the axis called so, else the first axis of the first input that has one.

    Where the batch does not come first, all is compared as one row.
    """
    if not model.batch_first:
        return 1
    shapes = [(item.spec.dims, feeds[item.spec.name].shape) for item in model.inputs]
    named = [shape[0] for dims, shape in shapes if dims and dims[0] == "batch"]
    return int((named or [shape[0] for _, shape in shapes if shape] or [1])[0])


def usual_feeds(model: GraphModel, session: Any, checks: Checks) -> tuple[Sizes, list[Arrays]]:
    """A usual size that a session of the graph runs at, and inputs of that size.

    They are those of the user, or values of several kinds, random ones first; of a file of one shape, of that.
    """
    if checks.shape is not None:
        sizes = model.sizes_at(checks.shape)
    else:
        sizes = _usual_sizes(model, session, _TIMED_LENGTHS if checks.times else _SHORT_LENGTHS)
    if model.given is not None and checks.shape is None:
        return sizes, [model.given]
    return sizes, [make(model.inputs, sizes, kind, checks.seed) for kind in (KINDS[0], KINDS[1], KINDS[4])]


def outputs_moved(
    names: Sequence[str], before: Any, after: Any, feeds: Sequence[Arrays]
) -> dict[str, float | None]:
    """How far the outputs of a session are from those of another: the mean over the inputs, see :func:`_moved`."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for feed in feeds:
        want, got = run_named(before, names, feed), run_named(after, names, feed)
        for name in names:
            found[name].append(_moved(want[name], got[name]))
    return {name: float(np.mean(values)) for name, values in found.items()}


def data_of(model: GraphModel, checks: Checks) -> str:
    """What the inputs of :func:`usual_feeds` are, in words."""
    return DATA if model.given is None or checks.shape is not None else "the example of --inputs"


def _usual_sizes(model: GraphModel, session: Any, longest: Sequence[int]) -> Sizes:
    """A usual size that the graph runs at."""
    if model.given is not None or not model.sizes[0]:
        return model.sizes[0]
    lengths = [dim for dim in model.sizes[0] if dim != "batch"]
    for length in longest if lengths else (0,):
        if lengths and length < max(model.sizes[0][dim] for dim in lengths):
            break  # samples or pixels, of which it needs more
        for batch in _TIMED_BATCHES if "batch" in model.sizes[0] else (1,):
            sizes = {dim: batch if dim == "batch" else length for dim in model.sizes[0]}
            if _work(model, sizes) <= _MOST_WORK and does_run(session, make(model.inputs, sizes)):
                return sizes
    return max(model.sizes, key=lambda sizes: int(np.prod(list(sizes.values()))))


def length_of(model: GraphModel, timed: Sizes, feeds: Arrays) -> int:
    """What is long about a timed call: tokens, where their number is known."""
    lengths = (n for dim, n in timed.items() if dim != "batch")
    return _tokens(model, timed) or max(lengths, default=_longest(feeds))


def _tokens(model: GraphModel, sizes: Sizes) -> int | None:
    """Tokens before the first merge; None where their number is computed."""
    shape = next((dims(point.value) for point in find_points(model.measured.graph)[0]), None)
    found = shape[1] if shape else None
    return sizes.get(found) if isinstance(found, str) else found


def _longest(feeds: Mapping[str, Any]) -> int:
    return max((int(size) for value in feeds.values() for size in value.shape[1:]), default=1)


def _moved(want: np.ndarray[Any, Any], got: np.ndarray[Any, Any]) -> float:
    """Root mean square of the difference, over that of the output; 0 where the output is 0."""
    finite = np.isfinite(want.astype(np.float64)) & np.isfinite(got.astype(np.float64))
    w, g = want[finite].astype(np.float64), got[finite].astype(np.float64)
    scale = float(np.sqrt(np.mean(w**2))) if w.size else 0.0
    return float(np.sqrt(np.mean((g - w) ** 2))) / scale if scale else 0.0


def _work(model: GraphModel, sizes: Sizes) -> int:
    """Entries of the largest input times the longest length: about those of one head's attention scores."""
    shapes = [[sizes[dim] for dim in item.spec.dims if isinstance(dim, str)] for item in model.inputs]
    return max((math.prod(shape) * max(shape, default=1) for shape in shapes), default=1)
