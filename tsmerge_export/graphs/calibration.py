"""Inputs that no verdict is taken on: what a choice of low precision does to the outputs of a graph from a file, to
choose by, and the values inside it, to find scales by."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from tsmerge_export.graphs.model import GraphModel
from tsmerge_export.graphs.timed import data_of, outputs_moved, usual_feeds
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.calibration import Shown
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.window_errors import run_named


class OutputCalibration:
    """Inputs as those of the verdict, of another seed; the example of ``--inputs`` where there is one.

    Args:
        twin: its float32 file.
    """

    windows: None = None
    columns: None = None

    def __init__(self, model: GraphModel, twin: Built, checks: Checks) -> None:
        self._checks, self._names = checks, [spec.name for spec in model.component.outputs]
        self._float32 = checks.open(twin.merged, timed=True)
        _, self._feeds = usual_feeds(model, self._float32, replace(checks, seed=checks.seed + 1))
        self.data = data_of(model, checks)

    @property
    def digest(self) -> str:
        """See :class:`~tsmerge_export.verify.calibration.Calibration`."""
        found = hashlib.sha256()
        for feed in self._feeds:
            for name, value in sorted(feed.items()):
                found.update(f"{name} {value.dtype} {value.shape}".encode() + value.tobytes())
        return found.hexdigest()

    def observe(self, watched: Sequence[Built], shown: Shown) -> None:
        """See :class:`~tsmerge_export.verify.calibration.Calibration`."""
        (only,) = watched
        session = self._checks.open(only.merged, timed=True)
        names = [value.name for value in session.get_outputs()]
        for feed in self._feeds:
            shown(only.component.name, {**feed, **run_named(session, names, feed)})

    def moved(self, low: Sequence[Built]) -> float:
        """Of the output that moves most."""
        session = self._checks.open(low[0].merged, timed=True)
        moved = outputs_moved(self._names, self._float32, session, self._feeds).values()
        return max((value for value in moved if value is not None), default=0.0)

    def bound(self, low: Sequence[Built]) -> float:
        """The same per cent: nobody knows what an output means."""
        return 100 * self.moved(low)
