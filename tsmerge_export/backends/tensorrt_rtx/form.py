"""The form of a file for TensorRT-RTX, which has no plugins and no functions."""

from __future__ import annotations

import onnx
from onnx import inliner

from tsmerge_export import ops


def standard_form(model: onnx.ModelProto) -> onnx.ModelProto:
    """Standard operators alone, all shapes static.

    Args:
        model: from :func:`~tsmerge_export.backends.static_functions.static_functions` with ``merge=True``.
    """
    out = inliner.inline_local_functions(model)
    entries = [entry for entry in out.opset_import if entry.domain != ops.DOMAIN]
    del out.opset_import[:]
    out.opset_import.extend(entries)
    return out
