"""Similarities by hand: what l2 and dot mean, what takes part in their unit, and what no row may do to another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tsmerge_export.errors import UsageError
from tsmerge_export.merge import dynamic_merge, local_merge
from tsmerge_export.merge.plan import make_plan
from tsmerge_export.methods.matching import ranks
from tsmerge_export.methods.options import SIMILARITIES
from tsmerge_export.methods.similarity import RANK_NAN
from tsmerge_export.settings.config import MergeConfig


def rank(x: Tensor, similarity: str, size: Tensor | None = None, **options: Any) -> list[float]:
    return ranks(x, size, similarity=similarity, **options)[0][0].tolist()


def test_closed_forms() -> None:
    # |u|^2 = 25, |v|^2 = 4, u.v = 6, |u - v|^2 = 17; the longest token is w, |w|^2 = 100.
    x = torch.tensor([[[3.0, 4.0], [2.0, 0.0], [6.0, 8.0], [-6.0, -8.0]]])
    step = 2**-20
    assert rank(x, "cosine") == pytest.approx([0.6, -1], abs=step)
    assert rank(x, "dot") == pytest.approx([6 / 100, -1], abs=step)
    assert rank(x, "l2") == pytest.approx([1 - 17 / 200, -1], abs=step)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_between_tokens_of_one_norm_all_are_the_cosine(similarity: str) -> None:
    x = torch.nn.functional.normalize(
        torch.randn(1, 40, 6, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    found, want = (ranks(x * 7, k=None, similarity=name)[0] for name in (similarity, "cosine"))
    torch.testing.assert_close(found, want, rtol=0, atol=3 * 2.0**-20)


@pytest.mark.parametrize("similarity", ["l2", "dot"])
@pytest.mark.parametrize("k", [1, 3, None])
def test_the_unit_of_a_row_does_not_count(similarity: str, k: int | None) -> None:
    x = torch.randn(3, 31, 5, generator=torch.Generator().manual_seed(1))
    first = local_merge(x, k=k, ratio="1/3", similarity=similarity)
    other = local_merge(
        x * torch.tensor([2.0**-30, 2.0**20, 1.0])[:, None, None], k=k, ratio="1/3", similarity=similarity
    )
    assert torch.equal(first.kept, other.kept)
    assert torch.equal(first.target, other.target)


def test_each_measure_chooses_its_own_pair() -> None:
    # Pairs: parallel but far apart; close but not parallel; long.
    x = torch.tensor([[[1.0, 0.0], [4.0, 0.0], [1.0, 1.0], [1.0, 0.8], [0.0, 9.0], [3.0, 9.0]]])
    chosen = {name: local_merge(x, r=1, similarity=name).kept[0].tolist() for name in SIMILARITIES}
    assert chosen == {"cosine": [1, 2, 3, 4, 5], "l2": [0, 1, 3, 4, 5], "dot": [0, 1, 2, 3, 5]}


@pytest.mark.parametrize("similarity", ["l2", "dot"])
def test_padding_protected_tokens_and_tokens_without_a_norm_set_no_unit(similarity: str) -> None:
    x = torch.randn(1, 12, 3, generator=torch.Generator().manual_seed(2))
    want = rank(x[:, 2:10], similarity)
    options = {"protect_first": 2, "protect_last": 2}
    x[0, 0], x[0, 11] = 1e6, 1e10  # protected
    assert rank(x, similarity, **options) == want
    longer = torch.cat([x[:, :10], torch.full((1, 1, 3), 1e12), torch.zeros(1, 1, 3)], 1)
    size = torch.ones(1, 12)
    size[0, 10] = 0  # padding
    assert rank(longer, similarity, size, protect_first=2)[:4] == want
    for lost in (torch.nan, torch.inf, 1e30):  # the square of 1e30 is no float32
        longer[0, 10] = lost
        assert rank(longer, similarity, protect_first=2) == [*want, RANK_NAN]


def test_zero_vectors() -> None:
    zeros = torch.zeros(1, 4, 2)
    assert rank(zeros, "l2") == [1, 1]
    assert rank(zeros, "dot") == rank(zeros, "cosine") == [0, 0]


def test_a_threshold_lies_on_the_scale_of_the_similarity() -> None:
    x = torch.tensor(
        [[[3.0, 4.0], [2.0, 0.0], [6.0, 8.0], [6.0, 8.0]]]
    )  # l2: 1 - 17/200 = 0.915; dot: 0.06, 1

    def removed(threshold: float, similarity: str) -> int:
        return 4 - dynamic_merge(x, threshold=threshold, similarity=similarity).y.shape[1]

    assert [removed(t, "l2") for t in (0.91, 0.92, 1.0)] == [2, 1, 0]
    assert [removed(t, "dot") for t in (0.05, 0.07, 1.0)] == [2, 1, 0]


def test_config_and_attributes() -> None:
    config = MergeConfig(ratio="1/4", similarity="l2")
    assert config.describe() == "local k=1 ratio=1/4 similarity=l2 min-tokens=4 positions=gather"
    assert MergeConfig.from_dict(config.to_dict()) == config
    assert make_plan(config, 1)[0].attributes["similarity"] == 1
    assert make_plan(MergeConfig("dynamic", similarity="dot"), 1)[0].attributes["similarity"] == 2
    plain = make_plan(MergeConfig(similarity="cosine"), 1)[0].attributes
    assert plain == make_plan(MergeConfig(), 1)[0].attributes
    assert "similarity" not in plain
    assert MergeConfig(similarity="cosine").describe() == MergeConfig().describe()


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="--similarity euclid is not known; choose one of: cosine, l2, dot"):
        MergeConfig(similarity="euclid")
    with pytest.raises(UsageError, match="--similarity has no effect with --merge pitome"):
        MergeConfig("pitome", similarity="l2")
    for merge in (local_merge, dynamic_merge):
        with pytest.raises(UsageError, match="euclid is not known"):
            merge(torch.ones(1, 4, 2), similarity="euclid", **({"r": 1} if merge is local_merge else {}))  # type: ignore[operator]
