"""The reference against the naive oracle, and the invariants of the specification."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from tsmerge_export.errors import UsageError
from tsmerge_export.methods.combine import unmerge
from tsmerge_export.methods.local.reference import local_merge


@pytest.mark.parametrize("tokens", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "amount", [{"r": 0}, {"r": 9, "min_tokens": 9}, {"ratio": "1/10"}, {"r": 9, "protect_first": 9}]
)
def test_nothing_to_merge_is_the_identity(tokens: int, amount: dict[str, Any]) -> None:
    x = torch.randn(2, tokens, 3)
    x[0, 0, 0] = torch.nan
    size = torch.arange(2.0 * tokens).view(2, tokens)
    merged = local_merge(x, size=size, k=None, **amount)
    assert merged.y.numpy().tobytes() == x.numpy().tobytes()
    assert torch.equal(merged.size, size)
    assert torch.equal(merged.kept, torch.arange(tokens).expand(2, tokens))
    assert torch.equal(merged.target, merged.kept)


@pytest.mark.parametrize("k", [1, 2, None])
def test_shortest_rows(k: int | None) -> None:
    one = local_merge(torch.ones(1, 1, 2), k=k, r=5)
    assert one.kept.tolist() == [[0]]
    two = local_merge(torch.tensor([[[2.0], [4.0]]]), k=k, r=5)
    assert two.kept.tolist() == [[1]]
    assert two.target.tolist() == [[0, 0]]
    assert two.y.tolist() == [[[3.0]]]
    # Three tokens: a0, b0, a1. Both a's are equally similar to b0 when k > 1; the lower index wins.
    three = local_merge(torch.ones(1, 3, 2), k=k, r=5)
    assert three.kept.tolist() == [[1, 2]]
    assert three.target.tolist() == [[0, 0, 1]]
    assert three.size.tolist() == [[2.0, 1.0]]


def test_padding_goes_first_and_leaves_its_partner_alone() -> None:
    x = torch.tensor([[[1.0], [1.0], [torch.nan], [3.3], [5.0], [torch.inf]]])
    merged = local_merge(x, size=torch.tensor([[1.0, 1, 0, 1, 1, 0]]), r=2)
    # First the padding a (token 2), then the equal pair (0, 1); the real token 4 does not go into padding.
    assert merged.kept.tolist() == [[1, 3, 4, 5]]
    assert merged.y[0, :, 0].tolist() == [1.0, x[0, 3, 0].item(), 5.0, torch.inf]
    assert merged.size.tolist() == [[2.0, 1.0, 1.0, 0.0]]


def _tome(x: np.ndarray, r: int) -> set[tuple[int, ...]]:
    """Bipartite soft matching of arXiv 2210.09461, section 3: groups of merged tokens, as a set."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    scores = unit[0::2] @ unit[1::2].T
    best, value = scores.argmax(1), scores.max(1)
    groups: dict[int, list[int]] = {2 * j + 1: [2 * j + 1] for j in range(len(x) // 2)}
    order = sorted(range(len(value)), key=lambda i: -value[i])
    alone = [(2 * i,) for i in order[r:]]
    for i in order[:r]:
        groups[2 * int(best[i]) + 1].append(2 * i)
    return {tuple(sorted(group)) for group in groups.values()} | set(alone)


@pytest.mark.parametrize(("tokens", "r"), [(8, 3), (31, 15), (64, 20), (64, 32)])
def test_global_equals_bipartite_soft_matching(tokens: int, r: int) -> None:
    x = np.random.default_rng(tokens + r).standard_normal((tokens, 5))
    merged = local_merge(torch.from_numpy(x).float()[None], k=None, r=r)
    target = merged.target[0].tolist()
    groups = {tuple(t for t in range(tokens) if target[t] == m) for m in range(tokens - r)}
    assert groups == _tome(x, r)
    for m, members in enumerate(merged.y[0].numpy()):
        np.testing.assert_allclose(
            members, x[[t for t in range(tokens) if target[t] == m]].mean(0), 1e-4, 1e-6
        )


def test_neighbourhood_limits_partners() -> None:
    x = torch.randn(2, 40, 4, generator=torch.Generator().manual_seed(0))
    for k in (1, 2, 5):
        merged = local_merge(x, k=k, ratio="1/2")
        into = merged.kept.gather(1, merged.target)
        token = torch.arange(40).expand(2, 40)
        moved = into != token
        assert moved.sum() == 40
        assert ((into - 1) // 2 - token // 2)[moved].abs().max() == k - 1


def test_sizes_carry_over_two_steps() -> None:
    x = torch.randn(1, 16, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
    one = local_merge(x, k=2, ratio="1/2")
    two = local_merge(one.y, size=one.size, k=2, ratio="1/2")
    origin = two.target.gather(1, one.target)[0]
    for m in range(two.y.shape[1]):
        torch.testing.assert_close(two.y[0, m], x[0, origin == m].mean(0))
        assert two.size[0, m] == (origin == m).sum()


def test_unmerge_takes_any_type_and_rank() -> None:
    target = torch.tensor([[0, 0, 1], [1, 0, 1]])
    assert unmerge(torch.tensor([[5, 7], [8, 9]]), target).tolist() == [[5, 5, 7], [9, 8, 9]]
    y = torch.randn(2, 2, 3, 4)
    assert torch.equal(unmerge(y, target)[1, 0], y[1, 1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "either r or ratio"),
        ({"r": 1, "ratio": "1/4"}, "either r or ratio"),
        ({"r": -1}, "not be negative"),
        ({"r": 1, "min_tokens": -1}, "not be negative"),
        ({"r": 1, "protect_last": -2}, "not be negative"),
        ({"r": 1, "k": 0}, "out of range"),
        ({"r": 1, "k": 1.5}, "out of range"),
        ({"r": 1, "k": "near"}, "not a whole number"),
        ({"ratio": 0}, "out of range"),
        ({"ratio": Fraction(2, 3)}, "out of range"),
        ({"ratio": "half"}, "not a number"),
        ({"r": 1, "size": torch.ones(2, 4)}, "size must be"),
        ({"r": 1, "metric": torch.ones(1, 5, 2)}, "metric must be"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        local_merge(torch.ones(2, 5, 3), **arguments)
    assert "\n" not in str(error.value)


def test_x_must_have_three_dims() -> None:
    with pytest.raises(UsageError, match="batch, tokens, features"):
        local_merge(torch.ones(5, 3), r=1)
