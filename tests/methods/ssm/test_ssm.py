"""Token reduction for state-space models by hand: importance, links, pruning, padding, and what a decision hangs on."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from tsmerge_export.errors import UsageError
from tsmerge_export.merge import ssm_merge, unmerge
from tsmerge_export.methods.method import Place
from tsmerge_export.methods.ssm.reference import SsmMethod, importance
from tsmerge_export.settings.config import MergeConfig


def test_importance_is_the_sum_of_what_is_positive() -> None:
    y = torch.tensor(
        [[[3.0, -9.0], [1.0, 1.0], [-1.0, -2.0], [torch.nan, 5.0], [torch.inf, 0.0], [50.0, 50.0]]]
    )
    padding = torch.tensor([[False] * 5 + [True]])
    found = importance(y, padding)[0].tolist()
    assert found == pytest.approx([1, 2 / 3, 0, -1, -1, -2], abs=2**-20)
    assert importance(torch.zeros(1, 3, 2), torch.zeros(1, 3, dtype=torch.bool)).tolist() == [[0, 0, 0]]


def row() -> torch.Tensor:
    """Six tokens: 1, 3 and 4 are the important ones; 0 is like 3, 5 like 1, 2 like none."""
    return torch.tensor([[[0.1, 0.4], [4.0, 0.5], [-1.0, 0.1], [1.0, 4.4], [3.0, 3.0], [0.8, 0.1]]])


@pytest.mark.parametrize(
    ("r", "share", "kept", "target", "y"),
    [
        (1, 0, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 1], {1: [2.4, 0.3]}),
        (1, 1, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 1], {}),
        (2, 0, [1, 2, 3, 4], [2, 0, 1, 2, 3, 0], {1: [2.4, 0.3], 3: [0.55, 2.4]}),
        (2, "1/2", [1, 2, 3, 4], [2, 0, 1, 2, 3, 0], {3: [0.55, 2.4]}),  # the second in time is pruned
        (2, 1, [1, 2, 3, 4], [2, 0, 1, 2, 3, 0], {}),
    ],
)
def test_links_merge_or_are_pruned(r: int, share: Any, kept: Any, target: Any, y: Any) -> None:
    x = row()
    merged = ssm_merge(x, r=r, prune_share=share)
    assert merged.kept[0].tolist() == kept
    assert merged.target[0].tolist() == target
    for place, token in enumerate(kept):
        want = torch.tensor(y[token]) if token in y else x[0, token]
        torch.testing.assert_close(merged.y[0, place], want, rtol=0, atol=1e-6 if token in y else 0)
    # What is pruned is still stood for.
    assert merged.size.sum() == 6
    assert merged.size[0].tolist() == [target.count(place) for place in range(len(kept))]


@pytest.mark.parametrize(
    ("share", "pruned"), [("0", []), ("1/2", [1, 3, 5]), ("1/3", [2, 5]), ("1", [0, 1, 2, 3, 4, 5])]
)
def test_a_share_is_pruned_evenly_over_time(share: str, pruned: list[int]) -> None:
    x = torch.cat([torch.full((1, 6, 1), 2.0), torch.full((1, 6, 1), 1.0)], 1)  # all links go to token 0
    size = torch.tensor([[1.0] * 6 + [10.0, 100, 1000, 1e4, 1e5, 1e6]])
    merged = ssm_merge(x, size=size, r=6, prune_share=share)
    weight = sum(10.0 ** (n + 1) for n in range(6) if n not in pruned)
    torch.testing.assert_close(merged.y[0, 0, 0], torch.tensor((2 + weight) / (1 + weight)))
    assert merged.size[0, 0] == 1_111_111


def test_a_pruned_token_is_read_from_its_link() -> None:
    merged = ssm_merge(row(), r=2, prune_share=1)
    assert torch.equal(unmerge(merged.y, merged.target)[0, 5], row()[0, 1])


def test_padding_goes_first_and_changes_nothing() -> None:
    x, size = row(), torch.tensor([[0.0, 1, 1, 0, 1, 1]])
    x[0, [0, 3]] = torch.nan
    merged = ssm_merge(x, size=size, r=2, prune_share=0)
    assert merged.kept.tolist() == [[1, 2, 4, 5]]
    assert torch.equal(merged.y, x[:, [1, 2, 4, 5]])
    assert merged.size.tolist() == [[1, 1, 1, 1]]


def test_equal_tokens_and_short_rows() -> None:
    assert ssm_merge(torch.ones(1, 5, 2), r=9).kept.tolist() == [[0, 1, 2]]
    assert ssm_merge(torch.ones(1, 1, 2), r=9).kept.tolist() == [[0]]
    assert ssm_merge(torch.ones(1, 2, 2), r=9).target.tolist() == [[0, 0]]
    assert ssm_merge(torch.ones(0, 6, 2), r=2).y.shape == (0, 4, 2)


def test_gradients_are_those_of_the_weighted_means() -> None:
    x, metric = row().requires_grad_(), row().requires_grad_()
    ssm_merge(x, metric, r=2, prune_share="1/2").y.sum().backward()
    assert x.grad is not None
    assert x.grad[0, :, 0].tolist() == [0.5, 1, 1, 0.5, 1, 0]
    assert metric.grad is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "either r or ratio"),
        ({"r": -1}, "not be negative"),
        ({"r": 1, "protect_first": -1}, "not be negative"),
        ({"r": 1, "prune_share": 1.01}, "--prune-share 1.01 is out of range"),
        ({"r": 1, "prune_share": -0.5}, "--prune-share -0.5 is out of range"),
        ({"r": 1, "prune_share": "nan"}, "--prune-share nan is not a number"),
        ({"r": 1, "prune_share": "1/3000001"}, "more than six decimals"),
        ({"r": 1, "size": torch.ones(2, 4)}, "size must be"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        ssm_merge(torch.ones(2, 5, 3), **arguments)
    assert "\n" not in str(error.value)


def test_config() -> None:
    config = MergeConfig("ssm", ratio="1/4", prune_share=0.3)
    assert config.prune_share == Fraction(3, 10)
    assert config.describe() == "ssm ratio=1/4 prune-share=3/10 min-tokens=4 positions=gather"
    assert MergeConfig.from_dict(config.to_dict()) == config
    assert MergeConfig("ssm").prune_share == Fraction(1, 2)
    assert MergeConfig("local").prune_share is None
    with pytest.raises(UsageError, match="--prune-share has no effect with --merge local"):
        MergeConfig(prune_share=0.3)
    with pytest.raises(
        UsageError, match="own settings are: --prune-share, --r, --ratio, --residual-prune-share"
    ):
        MergeConfig("ssm", threshold=0.3)


def test_hidden_states_and_residual_choose_apart() -> None:
    """Token 0 goes into 3, token 5 into 1: by hand for shares of one half, all and none."""
    hidden, residual = row(), 10 * row().flip(1)
    x = hidden + residual
    merged = ssm_merge(x, hidden, r=2, prune_share="1/2", residual_prune_share=0)
    assert merged.target[0].tolist() == [2, 0, 1, 2, 3, 0]
    of_1 = hidden[0, 1] + (residual[0, 1] + residual[0, 5]) / 2  # its source is the second in time: pruned
    of_3 = (x[0, 3] + x[0, 0]) / 2
    torch.testing.assert_close(merged.y[0, [0, 2]], torch.stack([of_1, of_3]), rtol=0, atol=1e-5)
    assert torch.equal(merged.y[0, [1, 3]], x[0, [2, 4]])
    pruned = ssm_merge(x, hidden, r=2, prune_share=1, residual_prune_share=1)
    assert torch.equal(pruned.y, x[:, [1, 2, 3, 4]])
    both, one = (
        ssm_merge(x, hidden, r=2, prune_share="1/2", residual_prune_share=share) for share in ("1/2", None)
    )
    torch.testing.assert_close(both.y, one.y)
    with pytest.raises(UsageError, match="needs a metric of the shape of x"):
        ssm_merge(x, hidden[..., :1], r=2, residual_prune_share=0)


def test_config_of_the_branches() -> None:
    config = MergeConfig("ssm", ratio="1/4", metric="hidden", residual_prune_share="0.25")
    assert config.residual_prune_share == Fraction(1, 4)
    assert "prune-share=1/2 residual-prune-share=1/4" in config.describe()
    assert MergeConfig.from_dict(config.to_dict()) == config
    with pytest.raises(UsageError, match="--residual-prune-share needs --metric hidden"):
        MergeConfig("ssm", residual_prune_share=0)
    with pytest.raises(UsageError, match=r"--residual-prune-share 1\.5 is out of range"):
        MergeConfig("ssm", metric="hidden", residual_prune_share=1.5)
    with pytest.raises(UsageError, match="--residual-prune-share has no effect with --merge local"):
        MergeConfig(metric="hidden", residual_prune_share=0)


@pytest.mark.parametrize("removed", [3, 8])
def test_evidence_tells_what_noise_can_change(removed: int) -> None:
    """Decisions of slightly moved features are allowed by that much noise, and not by less; margins say so before."""
    method, place = SsmMethod(), Place(0, 1, 0, 1, 1, 0)
    attributes = method.attributes(MergeConfig("ssm", r=removed, min_tokens=0), place)
    changed = refused = 0
    for seed in range(150):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(1, 41, 4, generator=generator)
        size = torch.ones(1, 41)
        size[0, 5 : 5 + seed % 3] = 0
        moved = x + 3e-3 * torch.randn(x.shape, generator=generator)
        evidence = method.evidence(x, x, size, attributes)
        mine, other = (method.merge(x, value, size, attributes) for value in (x, moved))
        assert evidence.allows is not None
        assert evidence.allows(0, mine.kept[0].numpy(), mine.target[0].numpy(), 0.0)
        kept, target = other.kept[0].numpy(), other.target[0].numpy()
        if not (np.array_equal(kept, mine.kept[0]) and np.array_equal(target, mine.target[0])):
            changed += 1
            assert evidence.margin is not None
            assert float(evidence.margin[0]) < 0.1
            assert evidence.allows(0, kept, target, 0.1)
            refused += not evidence.allows(0, kept, target, 1e-7)
        strange = method.merge(x, torch.randn(x.shape, generator=generator), size, attributes)
        assert not evidence.allows(0, strange.kept[0].numpy(), strange.target[0].numpy(), 1e-3)
    assert changed >= 5
    assert refused == changed
