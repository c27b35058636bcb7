"""Speed of two artefacts against each other, in one interleaved run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

_WARM_UP = 2
_LEAST_RUNS = 5


@dataclass(frozen=True)
class SpeedReport:
    """Medians of one interleaved run.

    Attributes:
        batch, length: series per call and steps per series. threads: of the runtime; None is its own choice.
        runs: timed calls of each. unmerged_ms, merged_ms: medians.
    """

    batch: int
    length: int
    threads: int | None
    runs: int
    unmerged_ms: float
    merged_ms: float

    @property
    def ratio(self) -> float:
        """How many times faster the merged artefact is; below 1 it is slower."""
        return self.unmerged_ms / self.merged_ms

    @property
    def note(self) -> str | None:
        """A plain statement where merging does not pay."""
        where = f"at batch {self.batch}, length {self.length}"
        if self.ratio < 1:
            return (
                f"merging does not pay {where}: the merged model takes {100 / self.ratio - 100:.0f} % longer"
            )
        if self.ratio < 1.05:
            return (
                f"merging hardly pays {where}: a speed-up of {self.ratio:.2f} is within what timings scatter"
            )
        return None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**vars(self), "ratio": self.ratio}


def interleaved(
    first: Callable[[], object], second: Callable[[], object], *, runs: int = 20, seconds: float = 8.0
) -> tuple[int, float, float]:
    """Time two calls in turns, so that what else the machine does hits both; who goes first alternates.

    Args:
        runs: calls of each. seconds: stop earlier after that long, yet not before 5 calls of each.

    Returns:
        The number of calls of each that were timed, and the medians in milliseconds.
    """
    for _ in range(_WARM_UP):
        first()
        second()
    times: tuple[list[float], list[float]] = ([], [])
    begin = time.perf_counter()
    while len(times[0]) < runs and (len(times[0]) < _LEAST_RUNS or time.perf_counter() - begin < seconds):
        order = (0, 1) if len(times[0]) % 2 == 0 else (1, 0)
        for which in order:
            start = time.perf_counter()
            (first, second)[which]()
            times[which].append(time.perf_counter() - start)
    return len(times[0]), float(np.median(times[0])) * 1e3, float(np.median(times[1])) * 1e3
