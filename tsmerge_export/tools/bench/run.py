"""Interleaved runs: all candidates of one size take turns, each in a process of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tsmerge_export.backends.onnxruntime.place import HERE, Place
from tsmerge_export.errors import UsageError
from tsmerge_export.tools.bench.candidate import Candidate
from tsmerge_export.untrusted.isolated import Ended, LineProcess

_WARM_UP = 2
_PATIENCE = 600.0  # seconds for one answer: torch.compile may take minutes


@dataclass
class Timing:
    """Of one candidate at one size: seconds of every run, peak memory in bytes, or what went wrong."""

    candidate: Candidate
    seconds: list[float] = field(default_factory=list)
    peak: int | None = None
    error: str | None = None


class Worker:
    """The process of one candidate; see :mod:`~tsmerge_export.tools.bench.worker` for the protocol."""

    def __init__(
        self, candidate: Candidate, component: str, inputs: Path, threads: int, place: Place = HERE
    ) -> None:
        self.timing = Timing(candidate)
        self._process = LineProcess("from tsmerge_export.tools.bench import worker; worker.main()")
        order = {
            "candidate": candidate.to_dict(), "component": component, "inputs": str(inputs), "threads": threads,
            "place": place.to_dict(),
        }  # fmt: skip
        self.ask(json.dumps(order))

    @property
    def alive(self) -> bool:
        """Whether it still answers."""
        return self.timing.error is None

    def ask(self, line: str) -> dict[str, Any]:
        """One line of the protocol and its answer; after a failure ``alive`` is False and the answer empty."""
        try:
            answer = self._process.ask(line, _PATIENCE)
        except Ended as error:
            self.timing.error = str(error)
            return {}
        if "error" in answer:
            self.timing.error = answer["error"]
        return answer

    def kill(self) -> None:
        """End the process whatever it does."""
        self._process.kill()


def interleave(
    candidates: Sequence[Candidate],
    component: str,
    inputs: Path,
    threads: int,
    *,
    runs: int = 20,
    seconds: float = 60.0,
    place: Place = HERE,
    progress: Callable[[int, int], None] | None = None,
) -> list[Timing]:
    """Time all candidates at one size.

    Args:
        candidates: in the order of the table; the order within a turn alternates.
        component: name of the model's component that eager candidates run.
        inputs: ``.npz`` of the component's inputs.
        threads: of every candidate.
        runs: timed turns. seconds: no new turn after that long, yet at least 5.
        place: of the candidates in ONNX Runtime.
        progress: called with (turns done, turns in all).

    Returns:
        One timing per candidate; one that fails keeps its error and the others go on.
    """
    if runs < 1:
        raise UsageError(f"--runs {runs} is not a whole number of at least 1")
    workers: list[Worker] = []
    total = runs + _WARM_UP
    try:
        for candidate in candidates:
            workers.append(Worker(candidate, component, inputs, threads, place))
            if progress is not None:
                progress(0, total)
        begin = time.monotonic()
        for turn in range(total):
            for worker in workers if turn % 2 == 0 else workers[::-1]:
                if worker.alive:
                    answer = worker.ask("run")
                    if turn >= _WARM_UP and "seconds" in answer:
                        worker.timing.seconds.append(answer["seconds"])
                if progress is not None:
                    progress(turn, total)
            if turn - _WARM_UP >= 4 and time.monotonic() - begin > seconds:
                break
        for worker in workers:
            if worker.alive:
                worker.timing.peak = worker.ask("stop").get("peak")
    finally:
        for worker in workers:
            worker.kill()
    return [worker.timing for worker in workers]
