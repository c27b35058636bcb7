"""The oldest ONNX Runtime that runs files of one shape."""

from __future__ import annotations

import onnxruntime

from tsmerge_export.errors import MissingDependencyError
from tsmerge_export.settings.one_shape import FLAG

#: In these files every call of a merge function has a body of its own lengths. 1.20 to 1.26 take one body for several.
OLDEST = (1, 30)


def check_version() -> None:
    """Raises MissingDependencyError where ONNX Runtime is older."""
    found = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    if found < OLDEST:
        raise MissingDependencyError(
            f"files of {FLAG} need onnxruntime {'.'.join(map(str, OLDEST))} or newer, this is "
            f"{onnxruntime.__version__}; pip install --upgrade onnxruntime"
        )
