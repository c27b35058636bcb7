"""From everything that was tried to an answer: finalists, test split, and whether to merge at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tsmerge_export.config import MergeConfig
from tsmerge_export.errors import UsageError
from tsmerge_export.tune.quality import Increase, increase
from tsmerge_export.tune.search import NONE, Tried, pareto, time_against
from tsmerge_export.tune.subject import Subject
from tsmerge_export.validate.speed import interleaved

#: A speed-up below this is within what timings scatter: nobody should merge for it.
WORTH = 1.05
_FINALISTS = 3
_RUNS = 30
_SECONDS = 12.0


@dataclass(frozen=True)
class Final:
    """A setting that was measured again, on the test windows that the search never saw.

    Attributes:
        tried: what the search found. test: increase of the metric over the reference on the test windows.
        speedup: over the reference, from a longer interleaved run than the search's.
        over_eager: over the reference in eager PyTorch (sdpa), in an interleaved run of its own; None: eager failed.
    """

    tried: Tried
    test: Increase
    speedup: float
    over_eager: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        test = {
            "increase_percent": self.test.mean,
            "upper_percent": self.test.upper,
            "speedup": self.speedup,
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
        pays_from: (source, setting, shortest length in steps at which it is faster by :data:`WORTH`, or None).
        reasons: plain sentences.
    """

    reference: Final
    fastest: Final | None
    best: Final
    finals: tuple[Final, ...]
    pays_from: tuple[str, MergeConfig, int | None] | None = None
    reasons: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        pays = None
        if self.pays_from is not None:
            source, merge, length = self.pays_from
            pays = {"source": source, "merge": merge.to_dict(), "length": length}
        return {
            "reference": self.reference.to_dict(),
            "fastest": None if self.fastest is None else self.fastest.to_dict(),
            "best": self.best.to_dict(),
            "finals": [final.to_dict() for final in self.finals],
            "pays_from": pays,
            "reasons": list(self.reasons),
        }


def finalists(tried: Sequence[Tried], most: float) -> list[Tried]:
    """The fastest few within ``most`` per cent, and the one of lowest error, in that order and without repeats."""
    good = [one for one in tried if one.error is None]
    within = sorted((t for t in good if t.upper <= most), key=lambda t: (-t.speedup, t.upper))
    best = min(good, key=lambda t: (t.increase, -t.speedup))
    chosen: list[Tried] = []
    for one in (*within[:_FINALISTS], best):
        if all((one.source, one.merge) != (other.source, other.merge) for other in chosen):
            chosen.append(one)
    return chosen


def answer(
    subjects: Sequence[Subject],
    reference: int,
    tried: Sequence[Tried],
    metric: str,
    most: float,
    told: Callable[[int, int], None],
) -> Answer:
    """Measure the finalists on the test split, and say what to do.

    Args:
        subjects, reference, tried: of the search. metric: ``mse`` or ``wql``.
        most: allowed increase on the validation windows, per cent, held against the upper bound. The choice is made
            there, never on the test windows.
        told: called with (finals done, finals in all).

    Raises:
        UsageError: nothing could be measured.
    """
    by_source = {subject.source: subject for subject in subjects}
    base = subjects[reference]
    base_errors = base.errors(NONE, base.test)[metric]
    base_tried = next((t for t in tried if t.source == base.source and not t.merge.active), None)
    if base_tried is None:
        raise UsageError(f"{base.source}: could not be measured")
    whole = Final(base_tried, Increase(0.0, 0.0), 1.0, over_eager(base, base, NONE))
    chosen = [t for t in finalists(tried, most) if t is not base_tried]
    finals = [whole]
    for number, one in enumerate(chosen):
        told(number, len(chosen))
        subject = by_source[one.source]
        worse = increase(subject.errors(one.merge, subject.test)[metric], base_errors)
        speedup = time_against(base, subject, one.merge, runs=_RUNS, seconds=_SECONDS)
        finals.append(Final(one, worse, speedup, over_eager(base, subject, one.merge)))
    within = [f for f in finals if f.tried.upper <= most and f is not whole and f.speedup >= WORTH]
    fastest = max(within, key=lambda f: f.speedup, default=None)
    best = min(finals, key=lambda f: (f.tried.increase, -f.speedup))
    reasons = _reasons(tried, finals, fastest, most)
    merged = [t for t in tried if t.merge.active and t.error is None]
    pays = None
    if merged:
        probe = fastest.tried if fastest is not None and fastest.tried.merge.active else pareto(merged)[0]
        pays = (probe.source, probe.merge, pays_from(by_source[probe.source], probe.merge))
    return Answer(whole, fastest, best, tuple(finals), pays, tuple(reasons))


def over_eager(reference: Subject, subject: Subject, merge: MergeConfig) -> float | None:
    """How many times as fast as the unmerged reference in eager PyTorch; None where that does not run."""
    try:
        with reference.eager() as call:
            _, eager, found = interleaved(call, subject.call(merge), runs=_RUNS, seconds=_SECONDS)
    except Exception:  # a rival that fails leaves a gap, not an end
        return None
    return eager / found


def _reasons(
    tried: Sequence[Tried], finals: Sequence[Final], fastest: Final | None, most: float
) -> list[str]:
    merged = [t for t in tried if t.merge.active and t.error is None]
    if fastest is not None:
        change = (
            f"{fastest.test.mean:+.1f} % on the test split ({fastest.tried.increase:+.1f} % on validation)"
        )
        said = [f"{fastest.speedup:.2f} times as fast as {finals[0].tried.source} unmerged, error {change}"]
        if fastest.test.mean > most:
            said.append(
                f"on the test split the error rises by more than the {most:g} % that validation promised: "
                "give more windows or a smaller --max-increase"
            )
        return said
    if not merged:
        return ["do not merge: no merged setting could be measured"]
    quick = max(merged, key=lambda t: t.speedup)
    if quick.speedup < WORTH:
        return [
            f"do not merge: no setting is faster than the unmerged model by {100 * WORTH - 100:.0f} % or more "
            f"(the best reached {quick.speedup:.2f} times its speed)"
        ]
    mild = min(merged, key=lambda t: t.upper)
    if mild.upper > most:
        return [
            f"do not merge: no setting keeps the error within {most:g} % with 90 % confidence "
            f"(the mildest: {mild.increase:+.1f} %, at most {mild.upper:+.1f} %)"
        ]
    return [f"do not merge: what stays within {most:g} % is not faster by {100 * WORTH - 100:.0f} % or more"]


def pays_from(subject: Subject, merge: MergeConfig) -> int | None:
    """Shortest of the lengths 16, 32, ... up to the model's own from which on the setting is faster by :data:`WORTH`.

    Timed at the batch of the search, every length in an interleaved run of its own. None: at no length.
    """
    context = subject.validation.context.shape[-1]
    pool = subject.validation.context.reshape(-1, context)
    batch = next(iter(subject.feed.values())).shape[0]
    longest = subject.family.context(subject.loaded.model)
    powers = [2**n for n in range(4, 20)]
    lengths = sorted({*(length for length in powers if length < longest), context, longest})
    found: int | None = None
    for length in reversed(lengths):
        # Longer than the windows: a window over and over.
        repeated = np.tile(pool, -(-length // context))[:, -length:]
        feed = subject.component.from_series(subject.loaded.model, np.resize(repeated, (batch, length)))
        shorter = subject.with_feed(feed)
        if time_against(shorter, shorter, merge, runs=10, seconds=3.0) < WORTH:
            break
        found = length
    return found
