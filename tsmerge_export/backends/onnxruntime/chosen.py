"""Files whose ratio is chosen at run time, in ONNX Runtime: it is an argument of a run, and has a default."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

from tsmerge_export.backends.ratio import noted_default, value_of
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.settings.run_time import INPUT, METADATA

if TYPE_CHECKING:
    import onnxruntime


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
    return cast("onnxruntime.InferenceSession", ChosenRatio(session, noted_default(noted)))


def default_of(session: object) -> Fraction | None:
    """The default of a session of a file whose ratio is chosen at run time; None for any other."""
    return session.default_ratio if isinstance(session, ChosenRatio) else None
