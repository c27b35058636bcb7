"""Forecasts of a family of several components, by its exported files alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort
from torch import nn

from tsmerge_export.backends.onnxruntime.session import GraphSession
from tsmerge_export.compile.build import Built
from tsmerge_export.families.base import Family, Forecast
from tsmerge_export.forecast import DEFAULT_MEMORY


def decoded_by(
    family: Family,
    model: nn.Module,
    built: Sequence[Built],
    threads: int | None = None,
    memory: int = DEFAULT_MEMORY,
) -> Forecast | None:
    """A forecast by a model's files behind the first component, which do not depend on how that one merged.

    Args:
        built: those files; the first component's may be among them. threads: of ONNX Runtime.
        memory: bytes for what one part of a batch takes while it is decoded, about.

    Returns:
        None for a family whose first component forecasts alone.
    """
    generation = family.generation(model)
    if generation is None:
        return None
    first = family.components(model)[0].name
    sessions = {
        item.component.name: _quiet_session(item.merged, threads)
        for item in built
        if item.component.name != first
    }
    return generation.forecaster(sessions, memory)


def _quiet_session(path: Path, threads: int | None) -> GraphSession:
    options = ort.SessionOptions()
    # Idle threads that spin would take the cores from what is timed or run beside it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return GraphSession(path, threads=threads, options=options)
