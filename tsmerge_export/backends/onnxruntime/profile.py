"""Where the time of a merged file goes, in merging or in the model, and how large the values are that merging makes."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import inliner

from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.backends.onnxruntime.place import HERE, Place
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.ops import DOMAIN

_RUNS = 5


def merge_share(
    path: Path, inputs: Mapping[str, NDArray[Any]], threads: int | None, place: Place = HERE
) -> float | None:
    """Share of node time in what merging adds: the ``tsmerge`` operators and whatever lets other values follow.

    The functions are inlined first and every node is renamed, so that the profiler's events can be told apart.

    Args:
        path: a merged file with its functions. inputs: of one run.
        threads: of ONNX Runtime; None is its choice. place: where it runs.

    Returns:
        A number from 0 to 1, or None for a file without merge nodes (also one whose functions are inlined), and off the
        CPU, where the profiler's times are those of launching a kernel, not of running it.
    """
    if not place.on_cpu:
        return None
    events = _events(path, inputs, threads, _RUNS, place)
    if events is None:
        return None
    spent = {"merge": 0, "plain": 0}
    for event in events:
        # Fused nodes get names of their own; fusions leave the merge operators alone. The time of an If contains
        # that of its branches.
        if not event["name"].startswith("branch"):
            spent["merge" if event["name"].startswith("merge#") else "plain"] += event["dur"]
    return spent["merge"] / max(1, sum(spent.values()))


def largest_merge_value(
    path: Path, inputs: Mapping[str, NDArray[Any]], threads: int = 1
) -> tuple[str, list[int]]:
    """The largest value that any node of merging made in a run, branches and what follows the merge included.

    Args:
        path: a merged file with its functions. inputs: of the run.

    Returns:
        The operator type that made it, and its shape; ``("", [])`` for a file without merge nodes.
    """
    largest: tuple[str, list[int]] = ("", [])
    for event in _events(path, inputs, threads, 1) or ():
        if event["name"].startswith(("merge#", "branch_merge#")):
            for output in event["args"].get("output_type_shape", ()):
                for shape in output.values():
                    if not largest[0] or math.prod(shape) > math.prod(largest[1]):
                        largest = (event["args"]["op_name"], list(shape))
    return largest


def _events(
    path: Path, inputs: Mapping[str, NDArray[Any]], threads: int | None, runs: int, place: Place = HERE
) -> list[dict[str, Any]] | None:
    """ONNX Runtime's profile of so many runs: one event per executed node, named ``merge#``, ``plain#``, or in a
    subgraph ``branch_merge#``, ``branch_plain#``; None for a file without merge nodes."""
    before = onnx_weights.read(path)
    if not any(node.domain == DOMAIN for node in before.graph.node):
        return None
    plain = {node.name for node in before.graph.node if not _added(node)}
    native = place.native_operators()
    kept = [function for function in before.functions if function.name not in native]
    del before.functions[:]  # the inliner leaves what has no function
    before.functions.extend(kept)
    proto = inliner.inline_local_functions(before)
    with tempfile.TemporaryDirectory(prefix="tsmerge-") as folder:
        for index, node in enumerate(proto.graph.node):
            part = "plain" if node.name in plain else "merge"
            node.name = f"{part}#{index}"
            for attribute in node.attribute:
                for number, inner in enumerate(attribute.g.node):
                    inner.name = f"branch_{part}#{index}.{number}"
        session = open_session(proto, threads, timed=True, profile=Path(folder) / "profile", place=place)
        for _ in range(runs):
            session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text())
    return [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]


def _added(node: onnx.NodeProto) -> bool:
    return node.domain == DOMAIN or any(output.startswith(f"{DOMAIN}/") for output in node.output)
