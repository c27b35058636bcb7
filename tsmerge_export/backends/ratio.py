"""The ratio of files that take it at run time, in every runtime: as the graph's input, and its default in the file.

In the file it is an input like the others. An initializer of its name would make it optional, but onnxruntime-web takes
no value for such an input, and OpenVINO makes a constant of it; so the default stands in the file's metadata.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.settings.run_time import INPUT, METADATA, parse_default

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tsmerge_export.untrusted import onnx_wire


def value_of(ratio: Fraction) -> NDArray[np.float32]:
    """A ratio as the graph's input: a float32 scalar."""
    import numpy as np  # reading flags needs the standard library alone

    return np.array(float(ratio), np.float32)


def noted_default(noted: str) -> Fraction:
    """The default that a file notes. Raises UnsupportedError: it is none."""
    try:
        chosen = parse_default(f"runtime:{noted}")
    except UsageError:
        chosen = None
    if chosen is None or chosen.default is None:
        raise UnsupportedError(f"the metadata {METADATA} {noted[:40]!r} is no ratio; export the file again")
    return chosen.default


def default_in(model: onnx_wire.Model) -> Fraction | None:
    """The default of a file whose ratio is chosen at run time; None for any other.

    Raises:
        UnsupportedError: what it notes is no ratio.
    """
    noted = model.metadata.get(METADATA)
    if noted is None or all(value.name != INPUT for value in model.graph.input):
        return None
    return noted_default(noted)
