"""What is timed: a candidate is a way to run one component of a model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from importlib.util import find_spec
from typing import Any

from numpy.typing import NDArray

from tsmerge_export.backends.ratio import value_of
from tsmerge_export.errors import UsageError
from tsmerge_export.settings.run_time import INPUT

Arrays = dict[str, NDArray[Any]]

#: Rivals of merged ONNX Runtime by the name that ``--against`` takes, and the module that each needs.
RIVALS = {
    "onnxruntime": "onnxruntime",
    "eager": "torch",
    "compile": "torch",
    "openvino": "openvino",
}


#: The rows that every merged one is compared with, and that of the exported model.
UNMERGED = "onnxruntime"
MERGED = "onnxruntime, merged"


@dataclass(frozen=True)
class Candidate:
    """One row of the table at every size.

    Attributes:
        name: as shown.
        kind: a name of :data:`RIVALS`.
        group: the model that it belongs to; ratios are taken within a group.
        source: the ONNX file, or for ``eager`` and ``compile`` the model as the user named it.
        options: for loading an eager model: ``family``, ``config``, ``trust_remote_code``.
        merged: whether the file holds merge nodes or functions made from them.
        ratio: of a file whose ratio is chosen at run time, as ``1/4``.
        shape: of a file of one shape, its batch and length: it runs at no other.
    """

    name: str
    kind: str
    group: str
    source: str
    options: dict[str, Any]
    merged: bool = False
    ratio: str | None = None
    shape: tuple[int, int] | None = None

    def fed(self, inputs: Arrays) -> Arrays:
        """The inputs of the group, and the ratio where this file takes one."""
        return inputs if self.ratio is None else {**inputs, INPUT: value_of(Fraction(self.ratio))}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def parse_rivals(text: str) -> tuple[list[str], list[str]]:
    """Read ``--against``: the rivals that can run here, and a sentence for each that is not installed.

    Raises:
        UsageError: an unknown name.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    for name in names:
        if name not in RIVALS:
            raise UsageError(f"--against {name}: not a rival; choose from {', '.join(RIVALS)}")
    here = [name for name in dict.fromkeys(names) if find_spec(RIVALS[name]) is not None]
    return here, [f"{name} is not installed: left out" for name in names if name not in here]
