"""PiToMe's reference against its naive oracle, the invariants, and the evidence behind decisions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given

import tsmerge_export as tsm
from tests.cases import Case
from tests.methods.pitome.cases import PitomeCase
from tests.models import tiny
from tests.strategies import cases, properties
from tsmerge_export.errors import UsageError
from tsmerge_export.merge import pitome_merge
from tsmerge_export.merge.plan import make_plan
from tsmerge_export.methods.method import Evidence
from tsmerge_export.methods.pitome.energy import Kernel, compare, rank_of
from tsmerge_export.methods.pitome.reference import PitomeMethod
from tsmerge_export.settings.config import MergeConfig

METHOD = PitomeMethod()
NOISE = 1.2e-2  # of these tests


@properties
@given(cases(tokens=60, of=PitomeCase))
def test_at_most_2r_tokens_merge_and_padding_first(case: Case) -> None:
    _, _, size = case.tensors()
    merged = case.reference()
    batch, tokens = size.shape
    left = merged.kept.shape[1]
    setting = case.settings
    first, last = setting["protect_first"], setting["protect_last"]
    # At most 2r tokens have anything to do with merging; all others are there bit for bit.
    members = torch.zeros_like(merged.kept).scatter_add(1, merged.target, torch.ones_like(merged.target))
    alone = members.gather(1, merged.target) == 1
    assert ((~alone).sum(1) <= 2 * (tokens - left)).all()
    # Real tokens go into real tokens, and padding is dropped before a real token is.
    into = merged.kept.gather(1, merged.target)
    moved = into != torch.arange(tokens)
    real = size > 0
    assert real.gather(1, into)[moved & real].all()
    for row in range(batch):
        padding = sum(not real[row, t] for t in range(first, tokens - last))
        assert (moved & ~real)[row].sum() == min(tokens - left, (padding + 1) // 2)


@pytest.mark.parametrize("tokens", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "amount", [{"r": 0}, {"r": 9, "min_tokens": 9}, {"ratio": "1/10"}, {"r": 9, "protect_first": 9}]
)
def test_nothing_to_merge_is_the_identity(tokens: int, amount: dict[str, Any]) -> None:
    x = torch.randn(2, tokens, 3)
    x[0, 0, 0] = torch.nan
    size = torch.arange(2.0 * tokens).view(2, tokens)
    merged = pitome_merge(x, size=size, **amount)
    assert merged.y.numpy().tobytes() == x.numpy().tobytes()
    assert torch.equal(merged.size, size)
    assert torch.equal(merged.kept, torch.arange(tokens).expand(2, tokens))
    assert torch.equal(merged.target, merged.kept)


@pytest.mark.parametrize("energy", ["elu", "gaussian"])
def test_shortest_rows(energy: str) -> None:
    assert pitome_merge(torch.ones(1, 1, 2), r=5, energy=energy).kept.tolist() == [[0]]
    two = pitome_merge(torch.tensor([[[2.0], [4.0]]]), r=5, energy=energy)
    assert two.target.tolist() == [[0, 0]]
    assert two.y.tolist() == [[[3.0]]]
    # Token 0 is unlike the others, so it is protected; of the others the first goes into the second.
    three = pitome_merge(torch.tensor([[[-1.0], [1.0], [1.0]]]), r=5, energy=energy)
    assert three.kept.tolist() == [[0, 2]]
    assert three.size.tolist() == [[1.0, 2.0]]


def test_energies_by_hand() -> None:
    """Equation 4 on three directions at 60 degrees: cosines 0.5 (0, 1), 0.5 (1, 2), -0.5 (0, 2)."""
    height = math.sqrt(3) / 2
    v = torch.tensor([[[1.0, 0.0], [0.5, height], [-0.5, height]]])
    tokens = compare(v, torch.ones(1, 3), 0, 0)

    def energies(margin: float, alpha: float, energy: str) -> Any:
        kernel = Kernel(margin, alpha, energy)
        return pytest.approx((rank_of(tokens, kernel(tokens.scores)) / 2**20)[0].tolist(), abs=2e-6)

    below = 2 * (math.exp(-0.5 - 0.4) - 1)
    assert [(0.5 + below) / 2, 0.5, (0.5 + below) / 2] == energies(0.4, 2.0, "elu")
    near, far = (3 * (math.exp(c - 0.6) - 1) for c in (0.5, -0.5))
    assert [(near + far) / 2, near, (near + far) / 2] == energies(0.6, 3.0, "elu")
    near, far = (math.exp(-(((1 - c) / 0.75) ** 2) / 2) for c in (0.5, -0.5))
    assert [(near + far) / 2, near, (near + far) / 2] == energies(0.25, 1.0, "gaussian")


def test_the_margin_itself_is_alike() -> None:
    score = torch.tensor([0.5 - 2**-20, 0.5, 0.5 + 2**-20])
    # Just below, alpha * (exp(-2^-20) - 1) is minus one step.
    assert Kernel(0.5, 1.0, "elu")(score).tolist() == [-1, 2**19, 2**19 + 1]


def test_equal_tokens_alternate_by_index_and_go_into_the_first_b() -> None:
    merged = pitome_merge(torch.ones(1, 9, 3), r=3)
    assert merged.kept.tolist() == [[1, 3, 5, 6, 7, 8]]
    assert merged.size.tolist() == [[4, 1, 1, 1, 1, 1]]
    assert merged.target[0, [0, 2, 4]].tolist() == [0, 0, 0]


def test_lone_tokens_are_protected() -> None:
    """A cluster of six among tokens that are unlike all: only the cluster merges."""
    generator = torch.Generator().manual_seed(0)
    x = 0.01 * torch.randn(1, 10, 8, generator=generator)
    cluster, lone = [0, 2, 3, 5, 8, 9], [1, 4, 6, 7]
    x[0, cluster, 0] += 1
    for axis, token in enumerate(lone):
        x[0, token, 1 + axis] += 1
    merged = pitome_merge(x, r=3)
    into = merged.kept.gather(1, merged.target)[0]
    moved = [t for t in range(10) if into[t] != t]
    assert len(moved) == 3
    assert {*moved, *into[moved].tolist()} <= set(cluster)


def test_padding_goes_first_and_counts_in_no_energy() -> None:
    x = torch.tensor([[[1.0, 0], [9, 9], [0, 1], [torch.nan, 1], [0.1, 1], [0.2, 1]]])
    merged = pitome_merge(x, size=torch.tensor([[1.0, 0, 1, 0, 1, 1]]), r=2, margin=0.5)
    # Order: padding 1 and 3; then 5, which is least unlike token 0, and 4.
    assert merged.kept.tolist() == [[0, 2, 3, 4]]
    assert merged.target.tolist() == [[0, 2, 1, 2, 3, 3]]
    assert merged.size.tolist() == [[1, 1, 0, 2]]
    assert torch.isnan(merged.y[0, 2, 0])  # not touched
    other = x.clone()
    other[0, [1, 3]] = torch.tensor([1.0, 0])
    again = pitome_merge(other, size=torch.tensor([[1.0, 0, 1, 0, 1, 1]]), r=2, margin=0.5)
    assert torch.equal(again.target, merged.target)


def test_nan_tokens_rank_last_and_leave_the_others_alone() -> None:
    x = torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(2))
    x[0, 3] = torch.nan
    clean = torch.cat([x[:, :3], x[:, 4:]], 1)
    merged, without = pitome_merge(x, r=3), pitome_merge(clean, r=3)
    assert 3 in merged.kept[0].tolist()
    assert torch.equal(merged.y[:, merged.kept[0] != 3], without.y)
    # When it must take part, it does.
    assert pitome_merge(x, r=4).kept.shape == (1, 4)


def test_protected_tokens_count_in_no_energy() -> None:
    x = torch.randn(1, 12, 4, generator=torch.Generator().manual_seed(3))
    merged = pitome_merge(x, r=3, protect_first=2, protect_last=1)
    inner = pitome_merge(x[:, 2:-1], r=3)
    assert torch.equal(merged.kept[:, 2:-1] - 2, inner.kept)
    assert torch.equal(merged.y[:, 2:-1], inner.y)


def test_gradients_flow() -> None:
    x = torch.randn(1, 10, 4, generator=torch.Generator().manual_seed(4)).requires_grad_()
    merged = pitome_merge(x, r=4)
    merged.y.square().sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()
    assert (x.grad.abs().sum(-1) > 0).all()
    model: Any = tiny("chronos-bolt").train()
    with tsm.merging(model, MergeConfig("pitome", ratio="1/4")):
        model(torch.sin(torch.arange(250.0))[None], target=torch.zeros(1, 16)).loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.encoder.block.parameters())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "either r or ratio"),
        ({"r": 1, "ratio": "1/4"}, "either r or ratio"),
        ({"r": -1}, "not be negative"),
        ({"r": 1, "margin": 1.5}, "margin 1.5 is out of range"),
        ({"r": 1, "margin": math.nan}, "margin nan is out of range"),
        ({"r": 1, "alpha": -1}, "alpha -1 is out of range"),
        ({"r": 1, "energy": "cosine"}, "elu, gaussian"),
        ({"ratio": 0}, "out of range"),
        ({"r": 1, "size": torch.ones(2, 4)}, "size must be"),
        ({"r": 1, "metric": torch.ones(1, 5, 2)}, "metric must be"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        pitome_merge(torch.ones(2, 5, 3), **arguments)
    assert "\n" not in str(error.value)


def test_margins_fall_with_depth_or_are_given() -> None:
    def margins(points: int, **options: Any) -> list[float]:
        return [
            float(step.attributes["margin"])
            for step in make_plan(MergeConfig("pitome", **options), points).values()
        ]

    assert margins(3) == pytest.approx([0.9, 0.6, 0.3])
    # The depth of a merge point is that in the model, not among those that merge.
    assert margins(6, layers=(2, 5)) == pytest.approx([0.6, 0.15])
    assert margins(3, margin="0.5") == [0.5] * 3
    assert margins(3, margin=(0.5, -1, 1)) == [0.5, -1, 1]
    assert margins(3, r=(3, 0, 2), margin="0.5,0.6,0.7") == [0.5, 0.7]
    with pytest.raises(UsageError, match="--margin lists 2 values, but 3 layers merge"):
        margins(3, margin="0.5,0.6")
    (step,) = make_plan(MergeConfig("pitome", alpha=2, energy=None), 1).values()
    assert (step.attributes["alpha"], step.attributes["energy"]) == (2.0, 0)
    (step,) = make_plan(MergeConfig("pitome", energy="gaussian"), 1).values()
    assert (step.attributes["alpha"], step.attributes["energy"]) == (1.0, 1)


def test_settings_survive_json() -> None:
    merge = MergeConfig("pitome", r=3, margin="0.5,0.25", alpha="0.5", energy="elu")
    assert MergeConfig.from_dict(merge.to_dict()) == merge
    assert merge.describe() == (
        "pitome r=3 margin=0.5,0.25 alpha=0.5 energy=elu min-tokens=4 positions=gather"
    )


def evidence(x: torch.Tensor, size: torch.Tensor | None = None, **options: Any) -> Evidence:
    attributes = {
        "r": 0, "ratio_num": 0, "ratio_den": 1, "min_tokens": 0, "protect_first": 0, "protect_last": 0, "margin": 0.5,
        "alpha": 1.0, "energy": 0, **options,
    }  # fmt: skip
    return METHOD.evidence(x, x, size, attributes)


def allowed(found: Evidence, merged: Any, row: int = 0, noise: float = NOISE) -> bool:
    assert found.allows is not None
    return found.allows(row, merged.kept[row].numpy(), merged.target[row].numpy(), noise)


@pytest.mark.parametrize("energy", ["elu", "gaussian"])
def test_shaken_scores_decide_only_what_the_evidence_allows(energy: str) -> None:
    """Tokens moved by a little: where the decision changes, the margin is small and the change is allowed."""
    generator = torch.Generator().manual_seed(0)
    changed = near = 0
    for trial in range(60):
        x = torch.randn(3, 60, 4, generator=generator)
        shaken = x + 2e-4 * torch.randn(3, 60, 4, generator=generator)
        options = {"margin": (0.0, 0.5, -0.3)[trial % 3], "protect_first": trial % 2, "protect_last": 1}
        size = (torch.rand(3, 60, generator=generator) > 0.1).float()
        want, got = (pitome_merge(v, size=size, r=20, energy=energy, **options) for v in (x, shaken))
        found = evidence(x, size, r=20, energy=("elu", "gaussian").index(energy), **options)
        assert found.margin is not None
        for row in range(3):
            assert allowed(found, want, row, 0.0)
            near += int(found.margin[row] <= 1e-5)
            if not torch.equal(want.target[row], got.target[row]):
                changed += 1
                assert found.margin[row] <= NOISE
                assert allowed(found, got, row)
                assert not allowed(found, got, row, 1e-9)
    assert changed >= 5  # of 180
    assert near < 60


def test_evidence_refuses_other_decisions() -> None:
    x = torch.randn(1, 30, 4, generator=torch.Generator().manual_seed(1))
    found = evidence(x, r=8)
    right = pitome_merge(x, r=8, margin=0.5)
    assert allowed(found, right)
    for wrong in (
        pitome_merge(x, r=8, margin=0.2),
        pitome_merge(x, r=8, margin=0.5, energy="gaussian"),
        pitome_merge(x, r=7, margin=0.5),
        pitome_merge(x.flip(2) * torch.tensor([1.0, -1, 2, 1]), r=8, margin=0.5),
    ):
        assert not allowed(found, wrong)
    # One a goes into another b that exists; then into a protected token.
    token = next(t for t in range(30) if t not in right.kept[0])
    b = int(right.target[0, token])
    merged_into = {int(right.target[0, t]) for t in range(30) if t not in right.kept[0]}
    for other in (next(iter(merged_into - {b})), next(m for m in range(22) if m not in merged_into)):
        target = right.target.clone()
        target[0, token] = other
        assert not allowed(found, right._replace(target=target))
    # Malformed.
    assert not allowed(found, right._replace(kept=right.kept.flip(1)))
    assert not allowed(found, right._replace(target=right.target + 30))
    assert not allowed(found, right._replace(kept=right.kept + 1))


def test_who_is_an_a_for_certain_must_be_one() -> None:
    """Tokens 1 and 2 are equal and first, 0 is third, 3 fourth: of 1 and 2 one must merge, and 0."""
    angle = torch.tensor([0.0, 20, 20, 50, 180]).deg2rad()
    x = torch.stack([angle.cos(), angle.sin()], -1)[None]
    found = evidence(x, r=2)
    assert found.allows is not None
    for kept, target, fair in (
        ([2, 3, 4], [0, 0, 0, 1, 2], True),
        ([1, 3, 4], [0, 0, 0, 1, 2], True),
        ([0, 3, 4], [0, 1, 1, 1, 2], False),  # 0 stays
        ([1, 2, 4], [0, 0, 1, 1, 2], False),  # 3 merges
    ):
        assert found.allows(0, np.array(kept), np.array(target), 1e-4) == fair
    assert not found.allows(0, np.array([1, 3, 4]), np.array([0, 0, 0, 1, 2]), 1e-7)


@pytest.mark.parametrize(
    "kernel", [(0.3, 1.0, "elu"), (-0.4, 2.0, "elu"), (-0.5, 0.0, "elu"), (0.6, 1.0, "gaussian")]
)
def test_bounds_hold_what_is_between(kernel: tuple[float, float, str]) -> None:
    ends = 2 * torch.rand(2000, 2, generator=torch.Generator().manual_seed(6)) - 1
    low, high = ends.amin(1), ends.amax(1)
    least, most = Kernel(*kernel).bounds(low, high)
    for share in torch.linspace(0, 1, 201):
        term = Kernel(*kernel)(low + share * (high - low))
        assert (least <= term).all() and (term <= most).all()
    # And no more than that: an end of the bounds is come close to.
    assert (most - least <= 2**20 * (high - low) * max(1.0, kernel[1]) / (1 - kernel[0]) + 2**19 + 2).all()


def test_evidence_of_firm_and_of_tied_decisions() -> None:
    assert evidence(torch.randn(3, 5, 2)).margin.tolist() == [math.inf] * 3  # type: ignore[union-attr]
    # Equal tokens: every cosine is 1, in the middle of its step.
    margin = evidence(torch.ones(1, 9, 3), r=3).margin
    assert margin is not None and 5e-7 < margin < 2e-6
    # All padding: nothing hangs on scores.
    margin = evidence(torch.randn(1, 9, 3), torch.zeros(1, 9), r=3).margin
    assert margin is not None and margin == math.inf
    # The cosine 0.8 of tokens 0 and 1 is worth 0.8 or, below the margin, about 0: on the margin the order hangs on it.
    # Those of 0 and 2 and of 1 and 2 are 0.5 and 0.2.
    v = torch.tensor([[[1.0, 0, 0], [0.8, 0.6, 0], [0.5, -1 / 3, 0.8]]])
    on, off = (evidence(v, r=1, margin=m).margin for m in (0.8 - 1e-7, 0.3))
    assert on is not None and off is not None
    assert on < 1e-5 < off
