"""Where the time of a merged file goes: in merging, or in the model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import inliner

from tsmerge_export.ops import DOMAIN
from tsmerge_export.validate.sessions import open_session

_RUNS = 5


def merge_share(path: Path, inputs: Mapping[str, NDArray[Any]], threads: int | None) -> float | None:
    """Share of node time in what merging adds: the ``tsmerge`` operators and whatever lets other values follow.

    The functions are inlined first and every node is renamed, so that the profiler's events can be told apart.

    Args:
        path: a merged file with its functions. inputs: of one run.
        threads: of ONNX Runtime; None is its choice.

    Returns:
        A number from 0 to 1, or None for a file without merge nodes (also one whose functions are inlined).
    """
    before = onnx.load(path)
    if not any(node.domain == DOMAIN for node in before.graph.node):
        return None
    plain = {node.name for node in before.graph.node if not _added(node)}
    proto = inliner.inline_local_functions(before)
    with tempfile.TemporaryDirectory(prefix="tsmerge-") as folder:
        for index, node in enumerate(proto.graph.node):
            node.name = f"{'plain' if node.name in plain else 'merge'}#{index}"
            for attribute in node.attribute:
                for number, inner in enumerate(attribute.g.node):
                    inner.name = f"branch#{index}.{number}"
        session = open_session(proto, threads, timed=True, profile=Path(folder) / "profile")
        for _ in range(_RUNS):
            session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text())
    spent = {"merge": 0, "plain": 0}
    for event in events:
        # Fused nodes get names of their own; fusions leave the merge operators alone. The time of an If contains
        # that of its branches.
        if (
            event.get("cat") == "Node"
            and event["name"].endswith("_kernel_time")
            and not event["name"].startswith("branch#")
        ):
            spent["merge" if event["name"].startswith("merge#") else "plain"] += event["dur"]
    return spent["merge"] / max(1, sum(spent.values()))


def _added(node: onnx.NodeProto) -> bool:
    return node.domain == DOMAIN or any(output.startswith(f"{DOMAIN}/") for output in node.output)
