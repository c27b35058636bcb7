"""A graph that may hang, or crash what runs it, is opened and run in a process of its own first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from tsmerge_export.untrusted import isolated
from tsmerge_export.untrusted.onnx_risk import risk
from tsmerge_export.untrusted.onnx_wire import read_model


def check(model: onnx.ModelProto, task: str, source: str, request: dict[str, Any]) -> dict[str, Any] | None:
    """Have ``task`` done apart where nothing says that it is harmless.

    Args:
        model: what the file holds. task: as of :class:`~tsmerge_export.untrusted.isolated.Child`. source: the file.

    Returns:
        The task's answer; None where it can be done here.

    Raises:
        UnsupportedError: it did not come to an end there, or as the task itself.
    """
    if isolated.inside or risk(model) is None:
        return None
    limits = isolated.Limits.for_file(Path(source).stat().st_size)
    with isolated.Child(task, source, limits) as child:
        return child.ask(request)


def first_open(path: Path) -> None:
    """Let ONNX Runtime open a graph apart first; bundles of others are validated, too.

    Raises:
        UnsupportedError: it did not open there.
    """
    if isolated.inside or risk(read_model(path)) is None:
        return
    from tsmerge_export.backends.onnxruntime.apart import GraphApart

    GraphApart(path, {"threads": 1})


def first_load(
    model: onnx.ModelProto, source: str, options: Any, opset: int | None, ends: Sequence[Sequence[str]] | None
) -> None:
    """Let :func:`.generic.model.load_graph_model` run apart first. Raises what it raises."""
    request = {
        "source": source,
        "options": {**options.to_dict(), "inputs": None if options.inputs is None else str(options.inputs)},
        "opset": opset,
        "ends": None if ends is None else [list(names) for names in ends],
    }
    check(model, "tsmerge_export.untrusted.trial:load", source, request)


def load(request: dict[str, Any]) -> dict[str, Any]:
    """The task of :func:`first_load`."""
    from tsmerge_export.graphs.model import GraphOptions, load_graph_model

    load_graph_model(
        request["source"], GraphOptions(**request["options"]), opset=request["opset"], ends=request["ends"]
    )
    return {}
