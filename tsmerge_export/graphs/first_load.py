"""A graph that may hang, or crash what runs it, is read and measured in a process of its own first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from tsmerge_export.untrusted.trial import check


def first_load(
    model: onnx.ModelProto, source: str, options: Any, opset: int | None, ends: Sequence[Sequence[str]] | None
) -> None:
    """Let :func:`.model.load_graph_model` run apart first. Raises what it raises."""
    request = {
        "source": source,
        "options": {**options.to_dict(), "inputs": None if options.inputs is None else str(options.inputs)},
        "opset": opset,
        "ends": None if ends is None else [list(names) for names in ends],
    }
    check(model, "tsmerge_export.graphs.first_load:load", source, request)


def load(request: dict[str, Any]) -> dict[str, Any]:
    """The task of :func:`first_load`."""
    from tsmerge_export.graphs.model import GraphOptions, load_graph_model

    load_graph_model(
        request["source"], GraphOptions(**request["options"]), opset=request["opset"], ends=request["ends"]
    )
    return {}
