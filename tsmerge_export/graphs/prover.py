"""What back ends prove of a graph from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tsmerge_export.backends.base import Run
from tsmerge_export.backends.components import StepSession
from tsmerge_export.compile.hand_over import FORM_FAILED, passed, usual_tolerances
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.graphs import verdicts
from tsmerge_export.graphs.model import GraphModel
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.one_shape import OneShape
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks


@dataclass(frozen=True)
class GraphProver:
    """Parity with the original graph, run operator by operator; see :class:`~tsmerge_export.backends.base.Prover`."""

    runtime: str
    model: GraphModel
    merge: MergeConfig
    item: Built
    checks: Checks

    def file(self, path: Path) -> dict[str, Any]:
        """A form of the file with merge nodes."""
        return self._verdict(replace(self.item, merged=path), None, FORM_FAILED)

    def values(
        self, run: Run, dtype: str, low: Sequence[int] | None = None, high: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """What the back end computes. Raises UnsupportedError for another precision than float32, or for limits."""
        if dtype != "fp32" or low is not None or high is not None:
            raise UnsupportedError(
                f"{self.model.source}: a graph from a file is proved in float32 at sizes of its own; --runtime "
                f"{self.runtime} asks for others"
            )
        return self._verdict(self.item, run, f"parity in {self.runtime} failed")

    def at(self, path: Path, shape: OneShape) -> dict[str, Any]:
        """A form of the file for one shape."""
        item, only = replace(self.item, merged=path), self.model.sizes_at(shape)
        found = verdicts.parity(self.model, self.merge, item, usual_tolerances(self.checks), only=only)
        return passed(found, f"{item.component.name}: parity at {shape} failed")

    def in_a_row(self, sessions: Mapping[str, StepSession]) -> dict[str, Any]:
        """There is one component."""
        return self.values(sessions[self.item.component.name].run, "fp32")

    def _verdict(self, item: Built, run: Run | None, failed: str) -> dict[str, Any]:
        found = verdicts.parity(self.model, self.merge, item, usual_tolerances(self.checks), values_from=run)
        return passed(found, f"{item.component.name}: {failed}")
