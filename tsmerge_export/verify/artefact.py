"""What parity runs: an exported file, and a copy of it that also shows its decisions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from tsmerge_export.backends.onnxruntime.apart import first_open
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.settings.run_time import INPUT
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.decisions import Tap, tap

Outputs = dict[str, npt.NDArray[Any]]


class Artefact(Protocol):
    """What was exported, ready to run: one file, or several in a row."""

    taps: Sequence[Tap]

    def run(self, inputs: Outputs) -> Outputs:
        """The outputs of the files as they are."""

    def tapped(self, inputs: Outputs) -> Outputs:
        """The outputs of a copy that also outputs the decisions at ``taps``."""


class OnnxArtefact:
    """One file, and its copy with decisions.

    Args:
        file: .onnx. names: its outputs that are compared. checks: how it is run.
        with_decisions: for a file whose functions are inlined, the same model with its merge nodes.
        values_from: runs what was made from the file (an engine) instead of the file itself. It is told the ratio as
            ``ratio`` where that is chosen at run time.
    """

    def __init__(
        self,
        file: Path,
        names: Sequence[str],
        checks: Checks,
        with_decisions: Path | None,
        values_from: Callable[..., Outputs] | None = None,
    ) -> None:
        self._names = list(names)
        self._values_from = values_from
        first_open(file)
        self._session = checks.open(file)
        proto = onnx_weights.read(with_decisions or file)
        self.taps: Sequence[Tap] = tap(proto)
        self._tapped = checks.open(proto) if self.taps else None

    def run(self, inputs: Outputs) -> Outputs:
        """See :class:`Artefact`."""
        if self._values_from is not None and INPUT in inputs:
            rest = {name: value for name, value in inputs.items() if name != INPUT}
            return self._values_from(rest, ratio=float(inputs[INPUT]))
        if self._values_from is not None:
            return self._values_from(inputs)
        return _run(self._session, self._names, inputs)

    def tapped(self, inputs: Outputs) -> Outputs:
        """See :class:`Artefact`. A graph without merges has no such copy: it is :meth:`run`."""
        if self._tapped is None:
            return self.run(inputs)
        extra = [name for t in self.taps for name in (t.kept, t.target)]
        return _run(self._tapped, [*self._names, *extra], inputs)


def _run(session: Any, names: Sequence[str], inputs: Outputs) -> Outputs:
    return dict(zip(names, session.run(list(names), inputs), strict=True))
