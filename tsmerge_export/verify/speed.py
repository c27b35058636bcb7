"""Speed of two artefacts against each other, in one interleaved run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tsmerge_export.bundle.verdicts import Speed
from tsmerge_export.console.figures import pays
from tsmerge_export.typed import plain

_WARM_UP = 2
_LEAST_RUNS = 5
_RESAMPLES = 1000
_LEVEL = 0.9


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
        return pays(self.ratio, f"at batch {self.batch}, length {self.length}")

    def entry(self) -> Speed:
        """As a bundle has it."""
        return Speed(**vars(self), ratio=self.ratio)

    def to_dict(self) -> dict[str, Any]:
        """:meth:`entry`, JSON-ready."""
        content: dict[str, Any] = plain(self.entry())
        return content


@dataclass(frozen=True)
class Speedup:
    """How many times as fast the second of two calls is, from one interleaved run; above 1 is faster.

    Attributes:
        value: ratio of the medians. low, high: between which it lies with 90 % confidence. runs: timed calls of each.
    """

    value: float
    low: float
    high: float
    runs: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return dict(vars(self))


def speedup_of(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Speedup:
    """Ratio of the medians of two calls' times, with a bootstrap over the turns; the same for the same times.

    Args:
        first, second: times of turn after turn, as :func:`in_turns` gives them. seed: of the bootstrap.
    """
    times = np.array([first, second])
    draws = np.random.default_rng(seed).integers(times.shape[1], size=(_RESAMPLES, times.shape[1]))
    before, after = np.median(times[:, draws], axis=-1)
    low, high = np.quantile(before / after, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    value = float(np.median(times[0]) / np.median(times[1]))
    return Speedup(value, min(float(low), value), max(float(high), value), times.shape[1])


def in_turns(
    first: Callable[[], object], second: Callable[[], object], *, runs: int = 20, seconds: float = 8.0
) -> tuple[list[float], list[float]]:
    """Time two calls in turns, so that what else the machine does hits both; who goes first alternates.

    Args:
        runs: calls of each. seconds: stop earlier after that long, yet not before 5 calls of each.

    Returns:
        Seconds of every call, turn by turn: as many of the first as of the second.
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
    return times


def interleaved(
    first: Callable[[], object], second: Callable[[], object], *, runs: int = 20, seconds: float = 8.0
) -> tuple[int, float, float]:
    """:func:`in_turns`, summed up: the number of calls of each that were timed, and the medians in milliseconds."""
    times = in_turns(first, second, runs=runs, seconds=seconds)
    return len(times[0]), float(np.median(times[0])) * 1e3, float(np.median(times[1])) * 1e3
