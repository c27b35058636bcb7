"""Lengths that tell a plan from the settings beside it: marks against the reference, the choice against brute force."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from tsmerge_export import ops
from tsmerge_export.merge.plan import make_plan
from tsmerge_export.settings.config import MergeConfig, tokens_removed
from tsmerge_export.verify import corpus, lengths

SETTINGS = [
    MergeConfig(ratio="1/4"),
    MergeConfig(ratio="3/10", k=3, min_tokens=7),
    MergeConfig(r=5, k="global", min_tokens=2),
    MergeConfig(method="pitome", ratio="1/3"),
    MergeConfig(method="ssm", ratio="2/7", prune_share="2/5"),
]


@pytest.mark.parametrize("merge", SETTINGS, ids=lambda merge: merge.describe())
def test_tokens_removed_are_those_of_the_reference(merge: MergeConfig) -> None:
    plan = make_plan(merge, 3, protect_first=1, protect_last=2)
    x = torch.randn(1, 70, 4, generator=torch.Generator().manual_seed(0))
    for tokens in (1, 2, 3, 6, 7, 8, 20, 69, 70):
        assert lengths.chain(plan, tokens)[0] == tokens
        for layer, before in enumerate(lengths.chain(plan, tokens)):
            gone = before - plan[layer](x[:, :before], None).y.shape[1]
            assert gone == plan[layer].method.removed(plan[layer].attributes, before)
            assert gone == tokens_removed(
                before, r=int(merge.r or 0), ratio=Fraction(merge.ratio) if merge.ratio else None,
                min_tokens=merge.min_tokens, protected=3,
            )  # fmt: skip


@pytest.mark.parametrize("merge", SETTINGS, ids=lambda merge: merge.describe())
def test_settings_of_one_mark_merge_alike(merge: MergeConfig) -> None:
    """Where two settings have the same mark the reference decides the same, whatever the tokens."""
    plan = make_plan(merge, 1, protect_first=1)
    step, compared = plan[0], 0
    for one, moved in lengths.neighbours(plan).items():
        other = type(step)(0, step.method, moved)
        for tokens in range(1, 24):
            if step.method.mark(step.attributes, tokens) != step.method.mark(moved, tokens):
                continue
            x = torch.randn(3, tokens, 5, generator=torch.Generator().manual_seed(tokens))
            a, b = step(x, None), other(x, None)
            assert torch.equal(a.kept, b.kept) and torch.equal(a.target, b.target), one
            assert torch.equal(a.y, b.y)
            compared += 1
    assert compared > 50


@pytest.mark.parametrize("merge", SETTINGS, ids=lambda merge: merge.describe())
def test_what_can_be_told_apart_is(merge: MergeConfig) -> None:
    plan = make_plan(merge, 3, protect_last=1)
    chosen = lengths.more_tokens(plan, [], 300)
    assert 1 <= len(chosen) <= lengths.MOST
    left = lengths.alike(plan, [lengths.chain(plan, tokens) for tokens in chosen])
    possible = lengths.alike(plan, [lengths.chain(plan, tokens) for tokens in range(1, 301)])
    # Looking at every number of tokens finds hardly more.
    assert set(possible) <= set(left)
    assert len(left) - len(possible) <= 2
    # The share beside an r is 0 over whatever; a bound below half of the tokens never binds.
    assert {one.attribute for one in possible} <= ({"ratio_den", "min_tokens"} if merge.r else set())
    assert lengths.more_tokens(plan, [lengths.chain(plan, tokens) for tokens in range(1, 301)], 300) == []


def test_a_quarter_and_a_fifth_in_the_last_of_four_layers() -> None:
    """Patches of 16 and one special token, context 512: the corpus alone sees no difference at the last merge."""
    plan = make_plan(MergeConfig(ratio="1/4"), 4, protect_last=1)
    usual = {length: -(-length // 16) + 1 for length in corpus.lengths(512) if length <= 512}
    seen = [lengths.chain(plan, tokens) for tokens in usual.values()]
    fifth = lengths.Neighbour(3, "ratio_den", 5)
    assert fifth in lengths.alike(plan, seen)
    more = lengths.more_tokens(plan, seen, max(usual.values()))
    assert fifth not in lengths.alike(plan, [*seen, *(lengths.chain(plan, tokens) for tokens in more)])
    for tokens in more:
        length = lengths.steps_for(tokens, usual)
        assert length is not None and -(-length // 16) + 1 == tokens


def test_data_dependent_merges_have_no_neighbours() -> None:
    plan = make_plan(MergeConfig(method="dynamic", threshold=0.5), 2)
    assert lengths.neighbours(plan) == {}
    assert lengths.more_tokens(plan, [], 50) == []


def test_neighbours_are_settings_that_the_operator_takes() -> None:
    plan = make_plan(MergeConfig(ratio="1/2", min_tokens=0), 1)
    found = lengths.neighbours(plan)
    for moved in found.values():
        ops.schema("LocalMerge").check(moved)
    assert lengths.Neighbour(0, "ratio_num", 2) not in found  # more than a half
    assert lengths.Neighbour(0, "r", 1) not in found  # beside a ratio
    assert lengths.Neighbour(0, "min_tokens", -1) not in found
    assert {one.value for one in found if one.attribute == "k"} == {0, 2}


@pytest.mark.parametrize(("steps", "special"), [(1, 0), (1, 1), (8, 1), (32, 0), (16, 5)])
def test_length_for_a_number_of_tokens(steps: int, special: int) -> None:
    seen = {length: -(-length // steps) + special for length in corpus.lengths(512) if length <= 512}
    for tokens in range(1 + special, max(seen.values()) + 1):
        length = lengths.steps_for(tokens, seen)
        assert length is not None and -(-length // steps) + special == tokens
    assert lengths.steps_for(special, seen) is None
    assert lengths.steps_for(4, dict.fromkeys(seen, 9)) is None  # the length is fixed
    least = {length: max(count, 3 + special) for length, count in seen.items()}  # short series are padded
    most = max(seen.values())
    assert lengths.steps_for(most, least) == lengths.steps_for(most, seen)


def test_marks_differ_where_decisions_can() -> None:
    """The other way round: with random tokens, another mark is another decision nearly always."""
    plan = make_plan(MergeConfig(ratio="1/4", k=2), 1, protect_first=1)
    step, told = plan[0], []
    for moved in lengths.neighbours(plan).values():
        other = type(step)(0, step.method, moved)
        for tokens in range(8, 40):
            if step.method.mark(step.attributes, tokens) != step.method.mark(moved, tokens):
                x = torch.randn(5, tokens, 3, generator=torch.Generator().manual_seed(tokens))
                told.append(not torch.equal(step(x, None).target, other(x, None).target))
    assert len(told) > 100
    assert np.mean(told) > 0.8
