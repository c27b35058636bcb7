"""From figures to advice: the score by which data sets are ordered, and the rule that says whether to merge.

Nothing here is fitted to measured errors. The score is the plain mean of three figures from 0 to 1, of which each has
a reason to foretell a small cost:

- spectral entropy, and total harmonic distortion t as t / (1 + t): arXiv 2405.17951 reports that data sets high in
  both lose least by local merging, or gain, since it filters out noise;
- redundancy, the mean cosine of neighbouring tokens at the merge points: alike tokens lose little in their mean (the
  premise of ToMe, arXiv 2210.09461).

``benchmarks/advise.py`` holds the order that it foretells against the measured one; docs/advise.md has the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from tsmerge_export.console.figures import change
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.trained import Trained
from tsmerge_export.tools.advise.redundancy import ALIKE, Redundancy
from tsmerge_export.tools.tune.crossover import WORTH

#: Amounts that are looked at, per layer; local merging of neighbours, the cheapest method.
RATIOS = ("1/10", "1/4", "1/2")
#: Spectral entropy from which a series counts as noisy: more than half of what all frequencies alike would have.
NOISY = 0.5


def candidates(trained: Trained | None) -> Mapping[str, MergeConfig]:
    """The settings that are looked at, by name: :data:`RATIOS`, and what the weights were trained for."""
    found = {ratio: MergeConfig(ratio=ratio) for ratio in RATIOS}
    for merge in () if trained is None else trained.settings():
        found[f"trained {merge.ratio}" if trained and trained.elastic else "trained"] = merge
    return found


MERGE, PROBABLY, DO_NOT = "merge", "probably", "do not merge"


@dataclass(frozen=True)
class Column:
    """Figures of one series; see :class:`~tsmerge_export.tools.advise.spectrum.Spectrum` for the first two.

    Attributes:
        redundancy: mean cosine of neighbouring tokens, over the merge points. score: see :func:`score`.
    """

    name: str
    entropy: float
    distortion: float
    redundancy: float
    score: float


@dataclass(frozen=True)
class Speed:
    """Foretold for one amount at one length: ``ideal`` by FLOPs, ``expected`` by the cost model; 1 is no gain.

    ``ratio`` is a name of :func:`candidates`; ``left`` None where the data decide how many tokens that is."""

    ratio: str
    length: int
    tokens: int
    left: int | None
    ideal: float
    expected: float


@dataclass(frozen=True)
class Figures:
    """All that the advice rests on.

    Attributes:
        length: the context asked about, in steps. batch: series per call.
        columns: of the data. layers: redundancy at every merge point. speeds: for every amount and length.
        shrinking: share of the first component's FLOPs that merging makes smaller.
        first_share: share of the FLOPs of one whole forecast that is in the first component (1: all of them).
        trained: what the weights were trained for.
    """

    length: int
    batch: int
    columns: tuple[Column, ...]
    layers: tuple[Redundancy, ...]
    speeds: tuple[Speed, ...]
    shrinking: float
    first_share: float = 1.0
    trained: Trained | None = None

    @property
    def entropy(self) -> float:
        """Median over the columns."""
        return float(np.median([column.entropy for column in self.columns]))

    @property
    def score(self) -> float:
        """Median over the columns."""
        return float(np.median([column.score for column in self.columns]))

    @property
    def alike(self) -> float:
        """Share of the tokens that could merge with a neighbour alike, the least over the layers."""
        return min((layer.alike for layer in self.layers), default=0.0)

    def expected(self, ratio: str, length: int | None = None) -> float:
        """Foretold speed-up of an amount at a length (the one asked about for None)."""
        wanted = length or self.length
        return next(s.expected for s in self.speeds if (s.ratio, s.length) == (ratio, wanted))

    def pays_from(self, ratio: str) -> int | None:
        """Shortest length from which on the amount is expected to be faster by :data:`WORTH`; None: at none."""
        found = None
        for speed in sorted((s for s in self.speeds if s.ratio == ratio), key=lambda s: -s.length):
            if speed.expected < WORTH:
                break
            found = speed.length
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(replace(self, trained=None)) | {
            "trained": None if self.trained is None else self.trained.to_dict(),
            "entropy": self.entropy,
            "score": self.score,
            "alike_share": self.alike,
            "pays_from": {name: self.pays_from(name) for name in candidates(self.trained)},
        }


@dataclass(frozen=True)
class Advice:
    """``verdict`` is one of :data:`MERGE`, :data:`PROBABLY`, :data:`DO_NOT`; ``ratio`` is where to begin, if at all;
    ``pays_from`` the shortest length from which on that, or what comes nearest to being advised, is expected to be 5 %
    faster (None: at no length, or speed is not what speaks against it); ``reasons`` are sentences; ``own`` is what the
    weights were trained for, where that is what to begin with."""

    verdict: str
    ratio: str | None
    pays_from: int | None
    reasons: tuple[str, ...]
    own: MergeConfig | None = None

    @property
    def merge(self) -> MergeConfig | None:
        """The setting to begin with."""
        if self.own is not None:
            return self.own
        return None if self.ratio is None else MergeConfig(method="local", k=1, ratio=self.ratio)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        merge = None if self.merge is None else self.merge.to_dict()
        return asdict(replace(self, own=None)) | {"merge": merge, "own": self.own is not None}


def score(entropy: float, distortion: float, redundancy: float) -> float:
    """The higher, the less merging is expected to cost; 0 to 1. Orders data sets for one model, see the module."""
    return (entropy + distortion / (1 + distortion) + min(max(redundancy, 0.0), 1.0)) / 3


def judge(figures: Figures) -> Advice:
    """The rule.

    1. *Covered* is an amount that the share of tokens alike reaches in every merging layer: what goes has a near
       duplicate. Where the series is *noisy* (spectral entropy of at least 0.5), so that merging filters, the next
       larger amount may be tried too. If that leaves no amount: do not merge, it would cost accuracy.
    2. Of these, those that are expected to be 5 % faster at this length. None: do not merge, and from which length on.
    3. Begin with the largest covered one: merge if the series is noisy too, else probably. Only the one that goes
       beyond what is covered: probably.

    Weights that were trained for a setting are another matter, see :func:`_judge_trained`.
    """
    if figures.trained is not None:
        return _judge_trained(figures, figures.trained)
    noisy = figures.entropy >= NOISY
    covered = [ratio for ratio in RATIOS if Fraction(ratio) <= figures.alike + 1e-9]
    allowed = [*covered, *RATIOS[len(covered) : len(covered) + 1]] if noisy else covered
    spectrum = f"spectral entropy {figures.entropy:.2f}: " + (
        "a noisy series, merging filters and costs little"
        if noisy
        else "a regular series, where detail is signal and merging takes it away"
    )
    tokens = (
        f"{100 * figures.alike:.0f} % of the tokens have a neighbour at least {ALIKE:g} alike in every layer: "
        + (f"that covers removing {covered[-1]} of them" if covered else f"less than {RATIOS[0]}")
    )
    if not allowed:
        why = "merging may be faster, but at the price of accuracy: neither tokens nor series are redundant"
        return Advice(DO_NOT, None, None, (tokens, spectrum, why))
    fast = [ratio for ratio in allowed if figures.expected(ratio) >= WORTH]
    if not fast:
        return _too_short(figures, allowed[-1], (tokens, spectrum))
    begin = next((ratio for ratio in reversed(covered) if ratio in fast), fast[-1])
    speed = (
        f"at {figures.length} steps removing {begin} per layer is expected to run at {figures.expected(begin):.2f} "
        "times the speed of the unmerged file"
    )
    verdict = MERGE if begin in covered and noisy else PROBABLY
    return Advice(verdict, begin, figures.pays_from(begin), (speed, tokens, spectrum))


def _judge_trained(figures: Figures, trained: Trained) -> Advice:
    """Merge as they were trained, where that is expected to be faster: training has already paid for the accuracy."""
    name = next(name for name, merge in candidates(trained).items() if merge is trained.merge)
    why = f"these weights were trained for {trained.describe()}: how alike the tokens are does not decide"
    if figures.expected(name) < WORTH:
        advice = _too_short(figures, name, (why,))
        if not trained.needs_merging:
            return advice
        cost = "" if trained.unmerged is None else f" ({change(100 * trained.unmerged)})"
        instead = f"unmerged these weights are worse{cost}: take the model that they were distilled from"
        return replace(advice, reasons=(*advice.reasons, instead))
    speed = (
        f"at {figures.length} steps merging like that is expected to run at {figures.expected(name):.2f} times the "
        "speed of the unmerged file"
    )
    return Advice(MERGE, None, figures.pays_from(name), (speed, why), trained.merge)


def _too_short(figures: Figures, ratio: str, others: tuple[str, ...]) -> Advice:
    """Do not merge: not even ``ratio``, the most that may be removed, is expected to pay at this length."""
    speed = next(s for s in figures.speeds if (s.ratio, s.length) == (ratio, figures.length))
    pays = figures.pays_from(ratio)
    what = f"removing {ratio} per layer, the most that may go"
    if ratio not in RATIOS:
        what = "merging as these weights were trained to"
    here = (
        f"at {figures.length} steps ({speed.tokens} tokens) {what}, is "
        f"expected to run at {speed.expected:.2f} times the speed of the unmerged file ({speed.ideal:.2f} by FLOPs)"
    )
    below = (
        "at no length up to the model's context is it expected to be 5 % faster"
        if pays is None
        else f"below {pays} steps it is not expected to be 5 % faster"
    )
    return Advice(DO_NOT, None, pays, (here, below, *others))
