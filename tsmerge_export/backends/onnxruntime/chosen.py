"""Files whose ratio is chosen at run time, in ONNX Runtime: it is an argument of a run, and has a default.

In the file it is an input like the others. An initializer of its name would make it optional, but onnxruntime-web takes
no value for such an input, and OpenVINO makes a constant of it; so the default stands in the file's metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.settings.run_time import INPUT, METADATA, parse_default

if TYPE_CHECKING:
    import onnxruntime


def value_of(ratio: Fraction) -> NDArray[np.float32]:
    """A ratio as the graph's input: a float32 scalar."""
    return np.array(float(ratio), np.float32)


class ChosenRatio:
    """An ``InferenceSession`` whose input for the ratio is optional, and not among its inputs.

    Attributes:
        default_ratio: where a run is given none.
    """

    def __init__(self, session: onnxruntime.InferenceSession, default_ratio: Fraction) -> None:
        self._session, self.default_ratio = session, default_ratio
        self._value = value_of(default_ratio)

    def run(self, output_names: Any, input_feed: Mapping[str, Any], run_options: Any = None) -> Any:
        """As of ``InferenceSession``."""
        feed = input_feed if INPUT in input_feed else {**input_feed, INPUT: self._value}
        return self._session.run(output_names, feed, run_options)

    def get_inputs(self) -> list[Any]:
        """As of ``InferenceSession``, without the ratio."""
        return [value for value in self._session.get_inputs() if value.name != INPUT]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def with_default(session: onnxruntime.InferenceSession) -> onnxruntime.InferenceSession:
    """The session itself, or, of a file whose ratio is chosen at run time, one that has the file's default.

    Raises:
        UnsupportedError: the file's default cannot be read.
    """
    noted = session.get_modelmeta().custom_metadata_map.get(METADATA)
    inputs = {value.name: value for value in session.get_inputs()}
    if noted is None or INPUT not in inputs:
        return session
    if inputs[INPUT].type != "tensor(float)" or inputs[INPUT].shape:
        raise UnsupportedError(f"the input {INPUT} is no float32 scalar; export the file again")
    try:
        chosen = parse_default(f"runtime:{noted}")
    except UsageError:
        chosen = None
    if chosen is None or chosen.default is None:
        raise UnsupportedError(f"the metadata {METADATA} {noted[:40]!r} is no ratio; export the file again")
    return cast("onnxruntime.InferenceSession", ChosenRatio(session, chosen.default))


def default_of(session: object) -> Fraction | None:
    """The default of a session of a file whose ratio is chosen at run time; None for any other."""
    return session.default_ratio if isinstance(session, ChosenRatio) else None
