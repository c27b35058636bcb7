"""The score and the rule, on figures made by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import pytest

from tests import artefacts
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.families.base import MergePoints
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.trained import Trained
from tsmerge_export.tools.advise import show, study
from tsmerge_export.tools.advise.advice import (
    DO_NOT,
    MERGE,
    PROBABLY,
    RATIOS,
    Column,
    Figures,
    Speed,
    candidates,
    judge,
    score,
)
from tsmerge_export.tools.advise.redundancy import Redundancy

LENGTHS = (32, 64, 128)


def figures(
    entropy: float, alike: float, speeds: dict[str, tuple[float, float, float]], length: int = 128
) -> Figures:
    column = Column("a", entropy, 0.5, 0.6, 0.5)
    layers = (Redundancy(0, 17, 0.6, 0.9, 0.5), Redundancy(1, 17, 0.6, 0.9, alike))
    rows = [
        Speed(ratio, steps, steps // 8, steps // 16, 2.0, value)
        for ratio in RATIOS
        for steps, value in zip(LENGTHS, speeds[ratio], strict=True)
    ]
    return Figures(length, 8, (column,), layers, tuple(rows), 0.8)


FAST = {"1/10": (0.9, 1.0, 1.1), "1/4": (1.0, 1.1, 1.3), "1/2": (1.1, 1.4, 1.8)}
SLOW = {"1/10": (0.8, 0.9, 1.0), "1/4": (0.9, 1.0, 1.04), "1/2": (0.9, 1.0, 1.04)}


def test_score_is_the_mean_of_three_figures() -> None:
    assert score(0.6, 1.0, 0.9) == pytest.approx((0.6 + 0.5 + 0.9) / 3)
    assert score(0.0, 0.0, -0.4) == 0
    assert score(1.0, 1e9, 1.0) == pytest.approx(1)


@pytest.mark.parametrize(
    ("entropy", "alike", "verdict", "ratio"),
    [
        (0.7, 0.30, MERGE, "1/4"),
        (0.7, 0.50, MERGE, "1/2"),
        (0.7, 0.12, MERGE, "1/10"),
        (0.3, 0.30, PROBABLY, "1/4"),  # redundant tokens of a regular series
        (0.7, 0.02, PROBABLY, "1/10"),  # a noisy series of differing tokens
        (0.3, 0.02, DO_NOT, None),
    ],
)
def test_the_rule_at_a_length_that_pays(entropy: float, alike: float, verdict: str, ratio: str) -> None:
    advice = judge(figures(entropy, alike, FAST))
    assert (advice.verdict, advice.ratio) == (verdict, ratio)
    if ratio is not None:
        assert advice.merge is not None
        assert str(advice.merge.ratio) == ratio
        assert advice.pays_from == {"1/10": 128, "1/4": 64, "1/2": 32}[ratio]
    else:
        assert "at the price of accuracy" in advice.reasons[-1]


def test_an_amount_that_is_not_faster_is_not_advised() -> None:
    # At 64 steps 1/10 does not pay: the one step that a noisy series allows beyond what is covered does.
    advice = judge(figures(0.7, 0.12, FAST, length=64))
    assert (advice.verdict, advice.ratio) == (PROBABLY, "1/4")
    # Not noisy: only what is covered may go.
    advice = judge(figures(0.3, 0.12, FAST, length=64))
    assert (advice.verdict, advice.pays_from) == (DO_NOT, 128)
    assert "below 128 steps it is not expected to be 5 % faster" in advice.reasons


def test_a_short_context_names_the_length_below_which_not_to_merge() -> None:
    advice = judge(figures(0.7, 0.30, FAST, length=32))
    # 1/4 is covered and 1/2 may be tried: of these 1/2 is faster at 32 steps.
    assert (advice.verdict, advice.ratio) == (PROBABLY, "1/2")
    advice = judge(figures(0.7, 0.02, FAST, length=32))
    assert (advice.verdict, advice.ratio, advice.pays_from) == (DO_NOT, None, 128)
    assert "at 32 steps (4 tokens)" in advice.reasons[0]
    assert "below 128 steps" in advice.reasons[1]


def test_where_no_length_pays() -> None:
    advice = judge(figures(0.7, 0.5, SLOW))
    assert (advice.verdict, advice.pays_from) == (DO_NOT, None)
    assert "at no length up to the model's context" in advice.reasons[1]
    assert advice.to_dict()["merge"] is None


def test_a_length_pays_only_with_all_longer_ones() -> None:
    bumpy = {**FAST, "1/2": (1.3, 1.0, 1.3)}
    assert figures(0.7, 0.5, bumpy).pays_from("1/2") == 128


def test_the_encoders_share_counts_every_step_of_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    flops = {"cross": 10, "decoder": 1}
    monkeypatch.setattr(study.Compilation, "plain", lambda self, component, folder: component.name)
    monkeypatch.setattr(study.ir, "to_proto", lambda name: name)
    monkeypatch.setattr(study, "feeds", lambda *args: {})
    monkeypatch.setattr(study, "count", lambda name, _: SimpleNamespace(total=flops[name]))
    t5, bolt = (CheckpointSource.load(artefacts.model(name)) for name in ("t5-tiny", "bolt-tiny"))
    assert study._first_share(t5, 100, 1, 64) == pytest.approx(100 / (100 + 10 + 16))
    assert study._first_share(bolt, 100, 1, 64) == 1


def test_lengths_end_at_the_context_and_hold_the_one_asked_about() -> None:
    assert study.lengths_of(256, 100) == [16, 32, 64, 100, 128, 256]
    assert study.lengths_of(300, 300) == [16, 32, 64, 128, 256, 300]


def trained_for(speeds: tuple[float, float, float], length: int, unmerged: float | None) -> Figures:
    """Weights that halve their tokens, of a regular series of tokens that differ."""
    made = figures(0.3, 0.02, FAST, length)
    trained = Trained(MergeConfig(ratio="1/2"), unmerged=unmerged)
    own = [
        Speed("trained", steps, steps // 8, 2, 2.0, value)
        for steps, value in zip(LENGTHS, speeds, strict=True)
    ]
    return replace(made, speeds=(*made.speeds, *own), trained=trained)


def test_weights_that_were_trained_for_it_merge_whatever_the_series() -> None:
    found = trained_for((0.9, 1.2, 1.7), 128, 1.04)
    advice = judge(found)
    assert (advice.verdict, advice.merge, advice.pays_from) == (MERGE, MergeConfig(ratio="1/2"), 64)
    assert "expected to run at 1.70 times the speed" in advice.reasons[0]
    assert show.command_of("distilled", advice) == "tsmerge-export distilled"
    content = json.loads(json.dumps({"advice": advice.to_dict(), "figures": found.to_dict()}))
    assert content["advice"]["merge"] == MergeConfig(ratio="1/2").to_dict()
    assert content["figures"]["pays_from"]["trained"] == 64
    assert Trained.from_dict(content["figures"]["trained"]) == found.trained


def test_trained_weights_at_a_length_that_does_not_pay() -> None:
    advice = judge(trained_for((0.9, 1.2, 1.7), 32, 1.04))
    assert (advice.verdict, advice.merge, advice.pays_from) == (DO_NOT, None, 64)
    assert "merging as these weights were trained to, is expected to run at 0.90" in advice.reasons[0]
    assert "unmerged these weights are worse (+104.0 %): take the model that they were" in advice.reasons[-1]
    assert "unmerged these weights" not in " ".join(judge(trained_for((0.9, 1.2, 1.7), 32, 0.0)).reasons)


def test_what_is_looked_at() -> None:
    half, tenth = MergeConfig(ratio="1/2", layers=(1,)), MergeConfig(ratio="1/10", layers=(1,))
    assert list(candidates(None)) == ["1/10", "1/4", "1/2"]
    assert dict(list(candidates(Trained(half)).items())[3:]) == {"trained": half}
    elastic = Trained(half, (Fraction(0), Fraction(1, 10), Fraction(1, 2)))
    assert dict(list(candidates(elastic).items())[3:]) == {"trained 1/2": half, "trained 1/10": tenth}
    # By hand: of 17 tokens, the last one protected, one layer of two removes 8, or one.
    points = MergePoints(2, protect_last=1)
    assert [study._left(merge, 17, points) for merge in (half, tenth)] == [9, 16]
    # With the eight newest beside it, of nine others four.
    assert study._left(MergeConfig(ratio="1/2", layers=(1,), protect_newest=8), 17, points) == 13
    assert study._left(MergeConfig("dynamic"), 17, points) is None
