"""From everything that was tried to an answer: finalists, test split, and whether to merge at all.

Every figure of speed in the answer is from one set of timings: what is measured again replaces what the search
measured, in the front too, and where merging pays is told with the same figure at the length of the search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tsmerge_export.console.figures import change
from tsmerge_export.errors import UsageError
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.precision import FP32
from tsmerge_export.tools.tune.contender import Contender
from tsmerge_export.tools.tune.crossover import (
    FASTER,
    NOISE,
    WORTH,
    Crossover,
    crossover,
    interval,
    judged,
    lengths_to_time,
)
from tsmerge_export.tools.tune.search import NONE, Tried, time_against
from tsmerge_export.typed import finite
from tsmerge_export.verify.quality import Increase, increase
from tsmerge_export.verify.speed import Speedup, interleaved

_FINALISTS = 3
_MOST = 8
_RUNS = 30
_SECONDS = 12.0
_SECONDS_A_LENGTH = 4.0


@dataclass(frozen=True)
class Final:
    """A setting that was measured again, on the test windows that the search never saw.

    Attributes:
        tried: what the search found. test: increase of the metric over the reference on the test windows.
        speed: over the reference, from a longer interleaved run than the search's.
        over_eager: over the reference in eager PyTorch (sdpa), in an interleaved run of its own; None: eager failed, or
            was not timed.
        worst: name of the column with the largest increase on the test windows.
    """

    tried: Tried
    test: Increase
    speed: Speedup
    over_eager: float | None = None
    worst: str | None = None

    @property
    def pays(self) -> bool:
        """Whether it is faster by :data:`WORTH` for certain."""
        return judged(self.speed) == FASTER

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        figures = {
            "increase_percent": self.test.median,
            "upper_percent": self.test.upper,
            "worst_percent": self.test.worst_percent,
        }
        known = {name: finite(value) for name, value in figures.items()}
        test = known | {
            "worst_column": self.worst,
            "speedup": self.speed.value,
            "speedup_low": self.speed.low,
            "speedup_high": self.speed.high,
            "speedup_over_eager": self.over_eager,
        }
        return {**self.tried.to_dict(), "test": test}


@dataclass(frozen=True)
class Answer:
    """The outcome of a search.

    Attributes:
        reference: the unmerged model that all figures are relative to.
        fastest: the fastest setting within the budget; None: do not merge.
        best: the setting with the lowest validation error.
        finals: all that were measured again.
        pays_from: at which lengths the fastest setting pays, or what comes nearest to it.
        reasons: plain sentences.
    """

    reference: Final
    fastest: Final | None
    best: Final
    finals: tuple[Final, ...]
    pays_from: Crossover | None = None
    reasons: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "reference": self.reference.to_dict(),
            "fastest": None if self.fastest is None else self.fastest.to_dict(),
            "best": self.best.to_dict(),
            "finals": [final.to_dict() for final in self.finals],
            "pays_from": None if self.pays_from is None else self.pays_from.to_dict(),
            "reasons": list(self.reasons),
        }


def settled(tried: Sequence[Tried], finals: Sequence[Final]) -> list[Tried]:
    """``tried`` with the speed-up that was measured last: of a setting there is one figure."""
    again = {final.tried.key: final.speed.value for final in finals}
    return [replace(one, speedup=again.get(one.key, one.speedup)) for one in tried]


def next_to_measure(tried: Sequence[Tried], finals: Sequence[Final], most: float) -> Tried | None:
    """What to measure again next; None where the figures there are bear an answer.

    First the setting of lowest error and the fastest few within ``most`` per cent. Then whatever the search holds for
    faster within the budget than the fastest of these, so that nothing in the front beats the answer. Where nothing
    within the budget pays, the fastest of all: it says how far merging is from paying.
    """
    good = [one for one in tried if one.error is None]
    known = {final.tried.key for final in finals}

    def fresh(among: list[Tried]) -> list[Tried]:
        return [one for one in among if one.key not in known]

    best = sorted(good, key=lambda one: (one.increase, -one.speedup))[:1]
    if fresh(best):
        return best[0]
    within = sorted((one for one in good if one.upper <= most), key=lambda one: (-one.speedup, one.upper))
    left = fresh(within[:_FINALISTS])
    if left:
        return left[0]
    paying = [final.speed.value for final in finals if final.tried.upper <= most and final.pays]
    bar = max(paying, default=WORTH)
    left = [one for one in fresh(within) if one.speedup > bar]
    if not left and not paying:
        merged = [one for one in settled(good, finals) if one.changed]
        left = fresh([max(merged, key=lambda one: one.speedup)] if merged else [])
    return left[0] if left and len(finals) < _MOST else None


def answer(
    contenders: Sequence[Contender],
    reference: int,
    tried: Sequence[Tried],
    metric: str,
    most: float,
    told: Callable[[int, int], None],
    also: Sequence[Tried] = (),
    kinds: Sequence[str] = (FP32,),
) -> Answer:
    """Measure the finalists on the test split, and say what to do.

    Args:
        kinds: precisions that the answer may have. The reference is in float32 in any case.
        contenders, reference, tried: of the search. metric: ``mse`` or ``wql``.
        most: allowed increase on the validation windows, per cent, held against the upper bound. The choice is made
            there, never on the test windows.
        told: called with (finals done, finals in all, as far as is known).
        also: measured again whatever the others say.

    Raises:
        UsageError: nothing could be measured.
    """
    by_source = {contender.name: contender for contender in contenders}
    base = contenders[reference]
    base_errors = base.errors(NONE, base.test)[metric]
    base_tried = next((t for t in tried if t.source == base.name and not t.changed), None)
    if base_tried is None:
        raise UsageError(f"{base.name}: could not be measured")
    still = Speedup(1.0, 1.0, 1.0, 0)
    finals = [Final(base_tried, Increase(0.0, 0.0), still, over_eager(base, base, NONE))]
    tried = [one for one in tried if one.precision in kinds]
    wanted = [one for one in also if one.error is None and one in tried]
    while (one := wanted.pop() if wanted else next_to_measure(tried, finals, most)) is not None:
        told(len(finals) - 1, max(len(finals), _FINALISTS))
        contender = by_source[one.source]
        errors = contender.errors(one.merge, contender.test, one.precision)[metric]
        worse = increase(errors, base_errors, base.least(metric, base.test))
        speed = time_against(
            base, contender, one.merge, runs=_RUNS, seconds=_SECONDS, precision=one.precision
        )
        worst = None if worse.worst is None else base.test.columns[worse.worst]
        eager = over_eager(base, contender, one.merge, one.precision)
        finals.append(Final(one, worse, speed, eager, worst))
    fastest = fastest_of(finals, most)
    probe = probe_of(tried, finals, fastest)
    pays = None
    if probe is not None:
        one, contender = probe.tried, by_source[probe.tried.source]
        known = probe.speed if contender is base else None
        pays = pays_from(contender, one.merge, known, one.precision)
    best = min(finals, key=lambda final: (final.tried.increase, -final.speed.value))
    return Answer(finals[0], fastest, best, tuple(finals), pays, tuple(reasons(tried, finals, most)))


def fastest_of(finals: Sequence[Final], most: float) -> Final | None:
    """The fastest final within ``most`` per cent that pays; ``finals[0]`` is the reference itself."""
    within = [final for final in finals[1:] if final.tried.upper <= most and final.pays]
    return max(within, key=lambda final: final.speed.value, default=None)


def probe_of(tried: Sequence[Tried], finals: Sequence[Final], fastest: Final | None) -> Final | None:
    """The setting whose lengths are looked at: the answer, else the fastest that was measured again; it merges or is
    below float32."""
    if fastest is not None and fastest.tried.changed:
        return fastest
    merged = [final for final in finals if final.tried.changed]
    return max(merged, key=lambda final: final.speed.value, default=None)


def over_eager(
    reference: Contender, contender: Contender, merge: MergeConfig, precision: str = FP32
) -> float | None:
    """How many times as fast as the unmerged reference in eager PyTorch; None where that does not run."""
    try:
        with reference.eager() as call:
            _, eager, found = interleaved(
                call, contender.call(merge, precision), runs=_RUNS, seconds=_SECONDS
            )
    except Exception:  # a rival that fails leaves a gap, not an end
        return None
    return eager / found


def reasons(tried: Sequence[Tried], finals: Sequence[Final], most: float) -> list[str]:
    """Why to merge like that, or why not, in plain sentences; from the same figures as everything else.

    Args:
        tried: of the search. finals: what was measured again, the reference first. most: see :func:`answer`.
    """
    worth = f"{100 * WORTH - 100:.0f} %"
    fastest = fastest_of(finals, most)
    if fastest is not None:
        moved = f"{change(fastest.test.median)} on the test split"
        if fastest.worst is not None and fastest.test.worst_percent != fastest.test.median:
            moved += f", {change(fastest.test.worst_percent)} in its worst column {fastest.worst!r}"
        said = [
            f"{interval(fastest.speed)} times as fast as {finals[0].tried.source} unmerged, error {moved} "
            f"({change(fastest.tried.increase)} on validation)"
        ]
        if fastest.tried.changed and not fastest.tried.merge.active:
            said[0] = f"do not merge, and take {fastest.tried.precision}: {said[0]}"
        if fastest.test.median > most:
            said.append(
                f"on the test split the error rises by more than the {most:g} % that validation promised: "
                "give more windows or a smaller --max-increase"
            )
        return said
    merged = [one for one in settled(tried, finals) if one.changed and one.error is None]
    if not merged:
        return ["do not merge: no merged setting could be measured"]
    again = {final.tried.key: final for final in finals}
    quick = max(merged, key=lambda one: one.speedup)
    speed = again[quick.key].speed if quick.key in again else None
    reached = f"{quick.speedup:.2f}" if speed is None else interval(speed)
    if quick.speedup < WORTH or (speed is not None and judged(speed) == NOISE):
        noise = ", within noise" if speed is not None and judged(speed) == NOISE else ""
        return [
            f"do not merge: no setting is for certain faster than the unmerged model by {worth} or more (the best "
            f"reached {reached} times its speed{noise})"
        ]
    mild = min(merged, key=lambda one: one.upper)
    if mild.upper > most:
        return [
            f"do not merge: no setting keeps the error within {most:g} % with 90 % confidence "
            f"(the mildest: {change(mild.increase)}, at most {change(mild.upper)})"
        ]
    return [f"do not merge: what stays within {most:g} % is not for certain faster by {worth} or more"]


def pays_from(
    contender: Contender, merge: MergeConfig, known: Speedup | None, precision: str = FP32
) -> Crossover:
    """The setting at the lengths 16, 32, ... up to the model's own, at the batch of the search.

    Args:
        known: its speed-up at the length of the search, over the same model unmerged; None: timed here.
    """
    context = contender.validation.context.shape[-1]
    lengths = lengths_to_time(context, contender.source.longest)

    def time(length: int) -> Speedup:
        other = contender.at_length(length)
        return time_against(other, other, merge, runs=_RUNS, seconds=_SECONDS_A_LENGTH, precision=precision)

    return crossover(contender.name, merge, lengths, {context: known or time(context)}, time, precision)
