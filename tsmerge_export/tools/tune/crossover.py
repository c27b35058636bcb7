"""From which length on a setting pays: what one set of timings says, and where it says nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.precision import FP32
from tsmerge_export.verify.speed import Speedup

#: A speed-up below this is within what timings scatter: nobody should merge for it.
WORTH = 1.05
_SHORTEST = 4  # the power of two of the shortest length
FASTER, NOISE, SLOWER = "faster", "within noise", "not faster"


def judged(speed: Speedup) -> str:
    """:data:`FASTER` where all of the interval is worth merging for, :data:`SLOWER` where none of it is."""
    return FASTER if speed.low >= WORTH else SLOWER if speed.high < WORTH else NOISE


def interval(speed: Speedup) -> str:
    """``1.67 (1.61 to 1.72)``."""
    return f"{speed.value:.2f} ({speed.low:.2f} to {speed.high:.2f})"


@dataclass(frozen=True)
class Crossover:
    """One setting at several lengths.

    Attributes:
        source: the model. merge, precision: the setting.
        speeds: (length in steps, speed-up over the same model unmerged), ascending.
        shortest: whether nothing shorter than the first of them makes sense; else all below it was left out because
            merging does not pay there either.
    """

    source: str
    merge: MergeConfig
    speeds: tuple[tuple[int, Speedup], ...]
    shortest: bool = True
    precision: str = FP32

    @property
    def length(self) -> int | None:
        """Shortest length from which on the setting is :data:`FASTER` at all that were timed; None: there is none."""
        found = None
        for length, speed in reversed(self.speeds):
            if judged(speed) != FASTER:
                break
            found = length
        return found

    def words(self) -> str:
        """Where it is faster, where that is within noise, where it is not, and below which length not to merge."""
        parts = {kind: ", ".join(self._ranges(kind)) for kind in (FASTER, NOISE, SLOWER)}
        rival = "unmerged" if self.precision == FP32 else f"unmerged {FP32}"
        said = f"faster than {rival} by {100 * WORTH - 100:.0f} % or more "
        said += f"at {parts[FASTER]} steps" if parts[FASTER] else "at no length for certain"
        if parts[NOISE]:
            said += f"; within noise at {parts[NOISE]} steps"
        if parts[SLOWER]:
            said += f"; not at {parts[SLOWER]} steps"
        return said

    def _ranges(self, kind: str) -> Iterator[str]:
        for found, group in groupby(self.speeds, key=lambda one: judged(one[1])):
            lengths = [length for length, _ in group]
            if found == kind:
                first, last = lengths[0], lengths[-1]
                if not self.shortest and first == self.speeds[0][0]:
                    yield f"{last} and fewer"
                else:
                    yield str(last) if first == last else f"{first} to {last}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        lengths = [
            {"length": length, **speed.to_dict(), "judged": judged(speed)} for length, speed in self.speeds
        ]
        return {
            "source": self.source, "merge": self.merge.to_dict(), "precision": self.precision,
            "length": self.length, "lengths": lengths, "words": self.words(),
        }  # fmt: skip


def lengths_to_time(context: int, longest: int) -> list[int]:
    """16, 32, ... up to the model's own longest, which is one of them, and the context of the search."""
    powers = [2**n for n in range(_SHORTEST, 30)]
    return sorted({*(length for length in powers if length < longest), context, longest})


def crossover(
    source: str,
    merge: MergeConfig,
    lengths: Sequence[int],
    known: dict[int, Speedup],
    time: Callable[[int], Speedup],
    precision: str = FP32,
) -> Crossover:
    """Time a setting from the longest length down, until it no longer pays.

    Args:
        lengths: ascending. known: what has been timed already is not timed again: there is one figure for each length.
        time: length -> speed-up over the same model unmerged, in float32. precision: of the setting's files.
    """
    speeds: list[tuple[int, Speedup]] = []
    least = min(known, default=lengths[-1])
    for length in reversed(lengths):
        speed = known.get(length) or time(length)
        speeds.insert(0, (length, speed))
        if judged(speed) == SLOWER and length <= least:
            break
    return Crossover(source, merge, tuple(speeds), speeds[0][0] == lengths[0], precision)
