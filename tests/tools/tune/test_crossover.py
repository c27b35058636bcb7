"""Timings in, one verdict out: what is said of a speed-up, at which lengths merging pays, and that all agree."""

from __future__ import annotations

import numpy as np
import pytest

from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.tune import verdict
from tsmerge_export.tools.tune.crossover import FASTER, NOISE, SLOWER, Crossover, crossover, judged
from tsmerge_export.tools.tune.search import NONE, Tried
from tsmerge_export.tools.tune.verdict import Final, fastest_of, next_to_measure, probe_of, reasons, settled
from tsmerge_export.verify.quality import Increase
from tsmerge_export.verify.speed import Speedup, speedup_of

LENGTHS = [16, 32, 64, 128, 256, 512]


def times(ratio: float, scatter: float, seed: int = 0, turns: int = 30) -> Speedup:
    """From made-up timings: the second call is ``ratio`` times as fast, both scatter."""
    rng = np.random.default_rng(seed)
    return speedup_of(*(base * rng.lognormal(0, scatter, turns) for base in (1.0, 1 / ratio)))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    inside = 0
    for seed in range(300):
        found = times(1.3, 0.1, seed)
        inside += found.low <= 1.3 <= found.high
        assert found.low <= found.value <= found.high
    assert 0.82 <= inside / 300 <= 0.97
    assert times(1.3, 0.1, 5) == times(1.3, 0.1, 5)
    assert times(2.0, 0.0) == Speedup(2.0, 2.0, 2.0, 30)


@pytest.mark.parametrize(
    ("ratio", "scatter", "kind"),
    [(1.3, 0.02, FASTER), (1.06, 0.2, NOISE), (1.05, 0.4, NOISE), (1.0, 0.01, SLOWER), (0.8, 0.05, SLOWER)],
)
def test_a_sharp_claim_needs_timings_that_bear_it(ratio: float, scatter: float, kind: str) -> None:
    assert judged(times(ratio, scatter)) == kind


def at(lengths: list[int], ratios: list[float], scatter: float = 0.01) -> Crossover:
    speeds = {length: times(ratio, scatter) for length, ratio in zip(lengths, ratios, strict=True)}
    return crossover("m", MergeConfig(), lengths, {}, speeds.__getitem__)


def test_words_of_a_crossover() -> None:
    found = at(LENGTHS, [0.5, 0.6, 0.8, 1.05, 1.2, 1.5], 0.02)
    assert found.length == 256
    assert found.words() == (
        "faster than unmerged by 5 % or more at 256 to 512 steps; within noise at 128 steps; not at 64 and fewer steps"
    )
    assert at(LENGTHS, [2.0] * 6).words() == "faster than unmerged by 5 % or more at 16 to 512 steps"
    assert at(LENGTHS, [2.0] * 6).length == 16
    noisy = at(LENGTHS, [1.05] * 6, 0.1)
    assert noisy.length is None
    assert (
        noisy.words()
        == "faster than unmerged by 5 % or more at no length for certain; within noise at 16 to 512 steps"
    )
    never = at(LENGTHS, [0.9] * 6)
    assert (never.length, never.speeds[0][0]) == (None, 512)
    assert never.words().endswith("at no length for certain; not at 512 and fewer steps")


def test_what_has_been_timed_is_not_timed_again() -> None:
    known = times(1.5, 0.01)

    def time(length: int) -> Speedup:
        assert length != 256
        return times(0.7, 0.01)

    found = crossover("m", MergeConfig(), LENGTHS, {256: known}, time)
    assert dict(found.speeds)[256] is known
    # It pays at the length of the search, and not at the longest: both are said, and no length from which on it pays.
    assert found.length is None
    assert found.words() == (
        "faster than unmerged by 5 % or more at 256 steps; not at 128 and fewer, 512 steps"
    )


def one(upper: float, speedup: float, merge: MergeConfig = NONE, error: str | None = None) -> Tried:
    return Tried("m", merge, upper - 1, upper, speedup, error)


SETTINGS = [MergeConfig(r=n) for n in range(1, 12)]
BASE = Final(one(0, 1), Increase(0, 0), Speedup(1.0, 1.0, 1.0, 0))


def measured(tried: list[Tried], truth: dict[MergeConfig, Speedup], most: float = 3.0) -> list[Final]:
    """What ``answer`` does, with timings that are given."""
    finals = [BASE]
    while (found := next_to_measure([BASE.tried, *tried], finals, most)) is not None:
        finals.append(Final(found, Increase(1, 2), truth[found.merge]))
    return finals


def test_measured_again_are_the_best_and_the_fastest_within_the_budget() -> None:
    figures = [(2, 3.0), (4, 9.0), (1, 2.0), (0, 1.5), (-5, 1.1)]
    tried = [one(u, s, m) for (u, s), m in zip(figures, SETTINGS, strict=False)]
    finals = measured(tried, {t.merge: times(t.speedup, 0.0) for t in tried})
    assert [(f.tried.upper, f.tried.speedup) for f in finals[1:]] == [(-5, 1.1), (2, 3), (1, 2), (0, 1.5)]
    fastest = fastest_of(finals, 3.0)
    assert fastest is not None
    assert fastest.tried.merge == SETTINGS[0]


@pytest.mark.parametrize("seed", range(40))
def test_front_finals_reasons_and_lengths_say_the_same(seed: int) -> None:
    """Random searches whose timings were off, measured again: nothing in the answer contradicts another part of it."""
    rng = np.random.default_rng(seed)
    tried = [one(float(rng.uniform(-2, 6)), 0.0, merge) for merge in SETTINGS]
    scale = rng.choice([0.95, 1.05, 1.3])
    truth = {t.merge: times(float(scale * rng.uniform(0.9, 1.1)), 0.05, seed) for t in tried}
    tried = [
        one(t.upper, truth[t.merge].value * float(rng.lognormal(0, 0.1)), t.merge) for t in tried
    ]  # the search's own timings
    finals = measured(tried, truth)
    fastest, told = fastest_of(finals, 3.0), reasons([BASE.tried, *tried], finals, 3.0)[0]
    assert (fastest is None) == told.startswith("do not merge")
    front = settled([BASE.tried, *tried], finals)
    for final in finals:
        assert next(t for t in front if t.merge == final.tried.merge).speedup == final.speed.value
    probe = probe_of(tried, finals, fastest)
    assert probe is not None
    said = crossover("m", probe.tried.merge, [128, 256], {256: probe.speed}, lambda _: times(0.7, 0.0))
    if fastest is not None:
        assert f"{probe.speed.value:.2f}" in told
        assert "at 256 steps" in said.words().split(";")[0]
        # Nothing that was left in the front within the budget claims to be faster.
        if len(finals) < verdict._MOST:
            assert max(t.speedup for t in front if t.upper <= 3) == fastest.speed.value
    else:
        within = [f for f in finals[1:] if f.tried.upper <= 3]
        assert all(judged(f.speed) != FASTER for f in within)
        if "within noise" in told:
            assert judged(probe.speed) == NOISE
            assert "within noise at 256 steps" in said.words()
        elif "no setting is for certain faster" in told:
            assert judged(probe.speed) == SLOWER
            assert "not at 256" in said.words()


@pytest.mark.parametrize(
    ("tried", "words"),
    [
        (
            [one(9, 1.02, SETTINGS[0])],
            "no setting is for certain faster than the unmerged model by 5 % or more",
        ),
        ([one(9, 1.06, SETTINGS[0])], "the best reached 1.06 (0.96 to 1.16) times its speed, within noise)"),
        ([one(9, 3, SETTINGS[0])], "no setting keeps the error within 3 % with 90 % confidence"),
        ([one(9, 3, SETTINGS[0]), one(1, 1, SETTINGS[1])], "what stays within 3 % is not for certain faster"),
        ([one(0, 0, SETTINGS[0], "boom")], "no merged setting could be measured"),
    ],
)
def test_reasons_not_to_merge(tried: list[Tried], words: str) -> None:
    truth = {t.merge: Speedup(t.speedup, t.speedup - 0.1, t.speedup + 0.1, 9) for t in tried}
    truth[SETTINGS[0]] = truth[SETTINGS[0]] if tried[0].speedup != 1.02 else Speedup(1.02, 1.0, 1.04, 9)
    (reason,) = reasons([BASE.tried, *tried], measured(tried, truth), 3.0)
    assert reason.startswith("do not merge: ")
    assert words in reason


def test_reasons_name_the_worst_column_and_where_the_test_split_disagrees() -> None:
    tried = one(2, 3, SETTINGS[0])
    good = Final(tried, Increase(2.5, 4, 0, 7.5), Speedup(2.8, 2.7, 2.9, 30), None, "load")
    assert reasons([tried], [BASE, good], 3.0) == [
        "2.80 (2.70 to 2.90) times as fast as m unmerged, error +2.5 % on the test split, +7.5 % in its worst column "
        "'load' (+1.0 % on validation)"
    ]
    bad = Final(tried, Increase(6.5, 9), good.speed)
    assert "rises by more than the 3 %" in reasons([tried], [BASE, bad], 3.0)[1]
