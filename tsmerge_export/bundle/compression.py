"""What ``tsmerge compress`` did to a model, as ``report.json`` has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PRUNE, CLUSTER, QUANTISE = "prune", "cluster", "quantise"
STEPS = (PRUNE, CLUSTER, QUANTISE)
#: The row of the model as it was given.
ORIGINAL = "original"


@dataclass(frozen=True)
class StepEntry:
    """The model behind one step, against the original, both merged alike; per cent, above 0 is worse.

    Attributes:
        degree: how far the step went, in words; None of the original, and of a step that was left out.
        bytes, gzip_bytes: of its ONNX files, and what gzip makes of them.
        speedup: over the original's files, timed in turns, between ``speedup_low`` and ``speedup_high``.
        increase_percent, upper_percent: of the error on validation, and what it stays below with 90 % confidence.
        test_percent: on the test part, between ``test_low_percent`` and ``test_high_percent``; the worst column beside
            it.
    """

    step: str
    degree: str | None = None
    bytes: int | None = None
    gzip_bytes: int | None = None
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    increase_percent: float | None = None
    upper_percent: float | None = None
    test_percent: float | None = None
    test_low_percent: float | None = None
    test_high_percent: float | None = None
    worst_column: str | None = None
    worst_percent: float | None = None

    @property
    def left_out(self) -> bool:
        """Whether not even its mildest degree was within the budget."""
        return self.degree is None and self.step != ORIGINAL


@dataclass(frozen=True)
class TriedDegree:
    """A degree that was looked at, and the bound of its error on validation."""

    step: str
    degree: str
    upper_percent: float | None = None


@dataclass(frozen=True)
class Compression:
    """A compression.

    Attributes:
        source: the model, as it was named. merge: how it was merged throughout. data: the table; None is the sample.
        table: flags that say how it is read. metric: ``mse`` or ``wql``. max_increase_percent: the budget.
        asked: the steps. kinds: precisions to choose from. steps: the original, then every step in turn.
        checkpoint: name of the folder with the weights. checkpoint_bytes, checkpoint_gzip_bytes: of its weights.
        original_bytes, original_gzip_bytes: the same of the original's.
    """

    source: str
    merge: dict[str, Any]
    metric: str
    max_increase_percent: float
    asked: tuple[str, ...]
    steps: tuple[StepEntry, ...]
    kinds: tuple[str, ...] = ()
    tried: tuple[TriedDegree, ...] = ()
    data: str | None = None
    table: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    windows: int | None = None
    context: int | None = None
    batch: int | None = None
    threads: int | None = None
    seed: int = 0
    checkpoint: str | None = None
    output: str | None = None
    checkpoint_bytes: int | None = None
    checkpoint_gzip_bytes: int | None = None
    original_bytes: int | None = None
    original_gzip_bytes: int | None = None
