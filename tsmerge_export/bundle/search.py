"""What ``tsmerge tune`` tried before it came to a setting, as ``report.json`` has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.precision import FP32


def setting_words(merge: MergeConfig, precision: str, meant: bool) -> str:
    """What a setting is called: ``local k=1 ratio=1/4, int8``.

    Args:
        precision: of the files. meant: whether unmerged weights are meant to run like that.
    """
    unmerged = "unmerged" if meant else "unmerged (not what these weights are for)"
    words = merge.brief() if merge.active else unmerged
    return words if precision == FP32 else f"{words}, {precision}"


@dataclass(frozen=True)
class Tested:
    """Figures of a finalist on the test split."""

    increase_percent: float | None
    speedup: float


@dataclass(frozen=True)
class Tried:
    """A setting and its figures on the validation split; none of these where it failed.

    Attributes:
        increase_percent, upper_percent: of the error, and its bound. test: of a finalist.
        meant: False of weights that were trained to merge, and run unmerged. precision: of the files.
    """

    source: str
    merge: dict[str, Any]
    increase_percent: float | None = None
    upper_percent: float | None = None
    speedup: float | None = None
    error: str | None = None
    meant: bool = True
    precision: str = FP32
    test: Tested | None = None

    @property
    def place(self) -> tuple[float, float]:
        """Speed-up and bound of the error, those of the unmerged model where there are none."""
        return (
            1.0 if self.speedup is None else self.speedup,
            0.0 if self.upper_percent is None else self.upper_percent,
        )


@dataclass(frozen=True)
class Answer:
    """What came out; ``fastest`` is None where nothing is faster within the budget."""

    fastest: Tried | None = None
    finals: tuple[Tried, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Identity:
    """What the figures of a search depend on, besides the machine."""

    models: tuple[str, ...]
    metric: str
    columns: tuple[str, ...] | None = None
    batch: int | None = None
    length: int | None = None
    windows: int | None = None


@dataclass(frozen=True)
class SearchRun:
    """The arguments of the search that its figures do not depend on."""

    data: str | None = None
    table: tuple[str, ...] = ()
    budget_seconds: float | None = None
    distill_seconds: float | None = None
    precision: tuple[str, ...] | None = None
    threads: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Search:
    """``front``: which of those tried no other beats, fastest first."""

    identity: Identity
    max_increase_percent: float
    tried: tuple[Tried, ...] = ()
    front: tuple[int, ...] = ()
    answer: Answer = Answer()
    run: SearchRun = SearchRun()
