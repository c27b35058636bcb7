"""A graph that may hang, or crash what runs it, is opened and run in a process of its own first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from tsmerge_export.untrusted import isolated
from tsmerge_export.untrusted.onnx_risk import risk


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
