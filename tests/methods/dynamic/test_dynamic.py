"""The reference of dynamic merging against the naive oracle, and what its count does and does not count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given

from tests.cases import Case, DynamicCase
from tests.methods.dynamic.problems import above_one
from tests.strategies import cases, properties
from tsmerge_export.errors import UsageError
from tsmerge_export.merge import dynamic_merge, local_merge
from tsmerge_export.methods.dynamic.reference import DynamicMethod, count_margin
from tsmerge_export.methods.matching import ranks
from tsmerge_export.methods.method import Place
from tsmerge_export.methods.similarity import RANK_INTO_PADDING, RANK_NAN, RANK_NONE, RANK_PADDING
from tsmerge_export.settings.config import MergeConfig


@properties
@given(cases(tokens=60, of=DynamicCase))
def test_it_is_local_merging_given_r(case: Case) -> None:
    merged = case.reference()
    settings = case.settings
    del settings["threshold"]
    removed = case.tokens - merged.kept.shape[1]
    local = local_merge(*case.tensors(), **settings, r=removed)
    for one, other in zip(merged, local, strict=True):
        assert one.float().numpy().tobytes() == other.float().numpy().tobytes()


def pairs(*cosines: float) -> torch.Tensor:
    """One row ``[1, 2P, 2]``: the i-th pair of neighbours has the i-th cosine."""
    return torch.tensor([[v for c in cosines for v in ((1.0, 0.0), (c, (1 - c * c) ** 0.5))]])


def removed_by(x: torch.Tensor, threshold: float, **options: Any) -> int:
    return x.shape[1] - dynamic_merge(x, threshold=threshold, **options).y.shape[1]


def test_r_is_the_mean_over_the_batch_rounded_down() -> None:
    alike, other = pairs(0.99, 0.98, 0.97, 0.1), pairs(0.2, 0.1, 0.95, 0.3)
    assert removed_by(alike, 0.9) == 3
    assert removed_by(other, 0.9) == 1
    assert removed_by(torch.cat([alike, other]), 0.9) == 2
    assert removed_by(torch.cat([alike, other, other]), 0.9) == 1  # 5 / 3
    merged = dynamic_merge(torch.cat([alike, other]), threshold=0.9)
    # The best of each row, also where fewer exceed the threshold.
    assert merged.kept.tolist() == [[1, 3, 4, 5, 6, 7], [0, 1, 2, 3, 5, 7]]


def test_a_similarity_must_exceed_the_threshold() -> None:
    exact = torch.tensor([[[1.0, 0.0], [3.0, 4.0]]])  # a cosine of 0.6, which is no float
    assert removed_by(exact, 0.6) == 0
    assert removed_by(exact, 0.6 + 2**-22) == 0  # the same step
    assert removed_by(exact, 0.6 - 2**-20) == 1
    equal = torch.ones(1, 8, 3) * 0.1
    assert removed_by(equal, 1.0) == 0
    assert removed_by(equal, 1 - 2**-20) == 4
    opposite = pairs(-1.0, -1.0)
    assert removed_by(opposite, -1.0) == 0
    assert removed_by(torch.zeros(1, 8, 2), -(2.0**-20)) == 4  # zero vectors: similarity 0
    assert removed_by(torch.zeros(1, 8, 2), 0.0) == 0


def test_a_cosine_that_rounding_puts_above_one_is_one() -> None:
    x = above_one()
    assert (ranks(x)[0] > 1).sum() > 10
    assert removed_by(x, 1.0) == 0
    assert float(count_margin(ranks(x)[0], 2**20, 200)) == float("inf")
    padding = torch.ones(1, 400)
    padding[0, ::4] = 0
    assert removed_by(x, 1.0, size=padding) == 100


def test_what_counts_besides_numbers() -> None:
    x = torch.ones(1, 6, 2)
    padding_a = torch.tensor([[0.0, 1, 1, 1, 1, 1]])
    assert removed_by(x, 1.0, size=padding_a) == 1  # free to drop
    assert removed_by(x, 0.5, size=torch.tensor([[1.0, 0, 1, 1, 1, 1]])) == 2  # its only b is padding
    assert removed_by(x, 0.5, size=torch.tensor([[1.0, 0, 1, 0, 1, 0]]), k=None) == 0
    assert removed_by(x, 0.5, size=torch.tensor([[1.0, 0, 1, 1, 1, 1]]), k=2) == 3  # it has another b
    x[0, 2] = torch.nan
    assert removed_by(x, -1.0) == 2
    # Seven tokens: the last a has no b when k is 1.
    assert removed_by(torch.ones(1, 7, 2), 0.5, size=torch.zeros(1, 7)) == 3
    assert removed_by(torch.ones(1, 7, 2), 0.5, min_tokens=5) == 2
    assert removed_by(torch.ones(1, 7, 2), 0.5, protect_first=2, protect_last=1) == 2


@pytest.mark.parametrize("tokens", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 1.0},
        {"threshold": -1.0, "min_tokens": 9},
        {"threshold": -1.0, "protect_first": 4, "protect_last": 4},
    ],
)
def test_nothing_to_merge_is_the_identity(tokens: int, options: dict[str, Any]) -> None:
    x = torch.randn(2, tokens, 3)
    x[0, 0, 0] = torch.nan
    size = 1 + torch.arange(2.0 * tokens).view(2, tokens)
    merged = dynamic_merge(x, size=size, k=None, **options)
    assert merged.y.numpy().tobytes() == x.numpy().tobytes()
    assert torch.equal(merged.size, size)
    assert torch.equal(merged.kept, torch.arange(tokens).expand(2, tokens))
    assert torch.equal(merged.target, merged.kept)


def test_no_rows() -> None:
    merged = dynamic_merge(torch.ones(0, 6, 2), threshold=-1.0)
    assert merged.y.shape == (0, 6, 2)


def test_shortest_rows() -> None:
    assert dynamic_merge(torch.ones(1, 1, 2)).kept.tolist() == [[0]]
    assert dynamic_merge(torch.tensor([[[2.0], [4.0]]])).y.tolist() == [[[3.0]]]
    assert dynamic_merge(torch.ones(1, 3, 2), k=2).target.tolist() == [[0, 0, 1]]


def test_gradients_are_those_of_the_weighted_means() -> None:
    x = pairs(0.99, 0.1, 0.98).requires_grad_()
    metric = pairs(0.99, 0.1, 0.98).requires_grad_()
    dynamic_merge(x, metric, torch.tensor([[3.0, 1, 1, 1, 0, 1]])).y.sum().backward()
    assert x.grad is not None
    assert x.grad[0, :, 0].tolist() == [0.75, 0.25, 1, 1, 0, 1]
    assert metric.grad is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"threshold": 1.01}, "out of range"),
        ({"threshold": float("nan")}, "out of range"),
        ({"threshold": "high"}, "not a number"),
        ({"min_tokens": -1}, "not be negative"),
        ({"protect_first": -1}, "not be negative"),
        ({"k": 0}, "out of range"),
        ({"size": torch.ones(2, 4)}, "size must be"),
        ({"metric": torch.ones(1, 5, 2)}, "metric must be"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        dynamic_merge(torch.ones(2, 5, 3), **arguments)
    assert "\n" not in str(error.value)


# What r hangs on.


def _r(rank: torch.Tensor, threshold: float, most: int) -> int:
    return min(int((rank > threshold).sum()) // rank.shape[0], most)


@pytest.mark.parametrize("seed", range(60))
def test_the_count_margin_is_the_smallest_move_that_changes_r(seed: int) -> None:
    """Moving all cosines up or down by a little less changes nothing; by a little more, r is another."""
    rng = np.random.default_rng(seed)
    batch, most = int(rng.integers(1, 4)), int(rng.integers(0, 6))
    threshold = float(rng.choice([-0.5, 0.0, 0.25, 0.5]))
    values = threshold + rng.integers(-40, 41, (batch, 6)) * 2.0**-12
    odd = rng.random(values.shape) < 0.2
    values[odd] = rng.choice([RANK_PADDING, RANK_NAN, RANK_INTO_PADDING, RANK_NONE], int(odd.sum()))
    rank = torch.from_numpy(values).float()
    margin = float(count_margin(rank, round(threshold * 2**20), most))
    before = _r(rank, threshold, most)
    cosine = rank.abs() <= 1

    def moved(by: float) -> int:
        return _r(torch.where(cosine, rank + by, rank), threshold, most)

    little = 2.0**-16
    if margin == np.inf:
        assert {moved(0.3), moved(-0.3)} == {before}
        return
    less = max(margin - little, 0.0)
    assert {moved(less), moved(-less)} == {before}
    assert {moved(margin + little), moved(-margin - little)} != {before}


def test_the_count_margin_knows_caps_and_the_end_of_the_scale() -> None:
    step = 2.0**-20
    half = round(0.5 / step)
    rank = torch.tensor([[0.5 + step, 0.9, 0.9, 0.5]])
    assert float(count_margin(rank, half, 4)) == 0.0  # the last one is on the threshold
    assert float(count_margin(rank, half, 3)) == step
    assert float(count_margin(rank, half, 2)) == pytest.approx(0.4)  # two of three must fall
    assert float(count_margin(rank, half, 0)) == np.inf
    assert float(count_margin(torch.ones(2, 5), round(1 / step), 5)) == np.inf  # nothing exceeds 1


def test_the_attribute_is_a_whole_number_of_steps_and_follows_the_layer() -> None:
    config = MergeConfig(method="dynamic", threshold="0.9,-0.3", k="global")
    found = [DynamicMethod().attributes(config, Place(i, 2, i, 2, 0, 1)) for i in (0, 1)]
    assert [a["threshold"] * 2**20 for a in found] == [943718, -314573]
    assert [float(np.float32(a["threshold"])) for a in found] == [a["threshold"] for a in found]
    assert found[0] | {"threshold": 0} == {
        "k": 0, "threshold": 0, "min_tokens": 4, "protect_first": 0, "protect_last": 1
    }  # fmt: skip


def test_config() -> None:
    plain = MergeConfig(method="dynamic")
    assert (plain.k, plain.threshold, plain.ratio) == (1, 0.9, None)
    assert plain.describe() == "dynamic k=1 threshold=0.9 min-tokens=4 positions=gather"
    listed = MergeConfig(method="dynamic", k=2, threshold=(0.9, 0.8), layers=(0, 3))
    assert "threshold=0.9,0.8" in listed.describe()
    assert MergeConfig.from_dict(listed.to_dict()) == listed
    assert MergeConfig().threshold is None
    for wrong in ({"r": 3}, {"ratio": "1/4"}, {"schedule": "linear"}):
        with pytest.raises(UsageError, match="has no effect with --merge dynamic"):
            MergeConfig(method="dynamic", **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--threshold has no effect with --merge local"):
        MergeConfig(threshold=0.9)
