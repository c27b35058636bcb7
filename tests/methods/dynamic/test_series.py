"""Dynamic merging per series: each row is what it is alone, whatever stands beside it, also after several steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.cases import SeriesCase, SeriesOptionCase, random_case
from tsmerge_export.errors import UsageError
from tsmerge_export.merge import Merged, dynamic_merge, series_merge
from tsmerge_export.methods.dynamic.series import SeriesMethod
from tsmerge_export.methods.method import Place
from tsmerge_export.settings.config import MergeConfig


def pairs(*cosines: float) -> torch.Tensor:
    """One row ``[1, 2P, 2]``: the i-th pair of neighbours has the i-th cosine."""
    return torch.tensor([[v for c in cosines for v in ((1.0, 0.0), (c, (1 - c * c) ** 0.5))]])


def test_each_row_loses_as_many_as_it_has_alike_and_ends_in_padding() -> None:
    x = torch.cat([pairs(0.99, 0.98, 0.97, 0.1), pairs(0.2, 0.1, 0.95, 0.3)])
    merged = series_merge(x, threshold=0.9)
    assert merged.kept.tolist() == [[1, 3, 5, 6, 7, 7, 7], [0, 1, 2, 3, 5, 6, 7]]
    assert merged.size.tolist() == [[2, 2, 2, 1, 1, 0, 0], [1, 1, 1, 1, 2, 1, 1]]
    assert merged.target.tolist() == [[0, 0, 1, 1, 2, 2, 3, 4], [0, 1, 2, 3, 4, 4, 5, 6]]
    assert torch.equal(merged.y[0, 5:], x[0, [7, 7]])


def test_padding_stands_in_front_of_protected_tokens() -> None:
    x = torch.cat([pairs(0.99, 0.98, 0.97, 0.1), pairs(0.2, 0.1, 0.95, 0.3)])
    merged = series_merge(x, threshold=0.9, protect_last=2)
    assert merged.kept.tolist() == [[1, 3, 5, 5, 5, 6, 7], [0, 1, 2, 3, 5, 6, 7]]
    assert merged.size.tolist() == [[2, 2, 2, 0, 0, 1, 1], [1, 1, 1, 1, 2, 1, 1]]
    assert merged.target.tolist() == [[0, 0, 1, 1, 2, 2, 5, 6], [0, 1, 2, 3, 4, 4, 5, 6]]


def test_padding_that_a_row_ends_in_is_set_aside_and_dropped() -> None:
    """In an average it would be free to merge, and take the merges of real tokens."""
    x = pairs(0.99, 0.1, 0.2, 0.3).repeat(2, 1, 1)
    size = torch.tensor([[1.0, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0]])
    merged = series_merge(x, size=size, threshold=0.9)
    assert merged.kept.tolist() == [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]
    assert merged.size.tolist() == [[2, 1, 1, 0, 0], [2, 1, 1, 1, 1]]
    assert series_merge(x, size=size, threshold=0.9, min_tokens=4).kept.shape == (2, 5)
    assert series_merge(x, size=size, threshold=0.9, min_tokens=8).kept.shape == (2, 8)
    assert series_merge(x, size=torch.zeros(2, 8), threshold=0.9).kept.tolist() == [[0], [0]]


def valid(merged: Merged, row: int, last: int) -> torch.Tensor:
    """The slots of a row up to its last real one, and the protected ones behind."""
    left = merged.size.shape[1]
    real = [m for m in range(left - last) if merged.size[row, m] > 0]
    return torch.tensor([*range(max(real, default=-1) + 1), *range(left - last, left)], dtype=torch.int64)


@pytest.mark.parametrize("of", [SeriesCase, SeriesOptionCase], ids=["cosine", "options"])
def test_three_steps_beside_others_are_three_steps_alone(of: type[SeriesCase]) -> None:
    """Beside rows of other lengths, in any order, against a batch of one by the merging that counts over the batch."""
    padded = 0
    for seed in range(40):
        case = random_case(np.random.default_rng(seed), of=of, tokens=50, batch=5)
        settings, last = case.settings, min(case.settings["protect_last"], case.tokens)
        x, metric, _ = case.tensors()
        order = torch.from_numpy(np.random.default_rng(seed + 1).permutation(case.batch))
        size = torch.ones(case.batch, case.tokens)
        state = [x[order], metric[order], size]
        alone = [(x[b : b + 1], metric[b : b + 1], size[:1]) for b in order.tolist()]
        for _ in range(3):
            merged = series_merge(*state, **settings)
            state = [
                merged.y,
                torch.stack([m[k] for m, k in zip(state[1], merged.kept, strict=True)]),
                merged.size,
            ]
            padded += int((merged.size == 0).sum())
            for row, one in enumerate(alone):
                made = dynamic_merge(*one, **settings)
                alone[row] = (made.y, one[1][:, made.kept[0]], made.size)
                own = valid(merged, row, last)
                assert torch.equal(merged.size[row, own], made.size[0])
                want, got = made.y[0].float().numpy(), merged.y[row, own].float().numpy()
                np.testing.assert_allclose(got, want, rtol=1e-6, atol=0, equal_nan=True)
    assert padded > 200


def test_nothing_to_merge_is_the_identity() -> None:
    x = torch.randn(2, 7, 3)
    size = torch.tensor([[1.0, 2, 3, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1, 1]])
    merged = series_merge(x, size=size, threshold=1.0, protect_first=1)
    assert torch.equal(merged.y, x)
    assert torch.equal(merged.kept, torch.arange(7).expand(2, 7))
    assert torch.equal(merged.target, merged.kept)
    assert torch.equal(merged.size, size)
    assert series_merge(torch.ones(0, 6, 2), threshold=-1.0, min_tokens=4).y.shape == (0, 4, 2)


def test_gradients_are_those_of_the_means_and_padding_has_none() -> None:
    x = torch.cat([pairs(0.99, 0.1), pairs(0.2, 0.1)]).requires_grad_()
    merged = series_merge(x, threshold=0.9)
    assert merged.size.tolist() == [[2, 1, 1, 0], [1, 1, 1, 1]]
    (merged.y * (merged.size > 0)[..., None]).sum().backward()
    assert x.grad is not None
    assert x.grad[..., 0].tolist() == [[0.5, 0.5, 1, 1], [1, 1, 1, 1]]


def evidence(x: torch.Tensor, **settings: Any) -> Any:
    config = MergeConfig("dynamic", per_series=True, min_tokens=settings.pop("min_tokens", 0), **settings)
    method = SeriesMethod()
    return method.evidence(x, x, None, method.attributes(config, Place(0, 1, 0, 1)))


def test_what_a_row_hangs_on_is_its_own() -> None:
    x = torch.cat([pairs(0.95, 0.8, 0.1), pairs(0.5, 0.91, 0.2)])
    found = evidence(x, threshold=0.9)
    np.testing.assert_allclose(found.margin, [0.05, 0.01], atol=1e-6)
    assert float(found.count) == pytest.approx(0.01, abs=1e-6)
    capped = evidence(torch.cat([pairs(0.95, 0.94, 0.1)] * 2), threshold=0.9, min_tokens=5)
    np.testing.assert_allclose(capped.margin, [0.01, 0.01], atol=1e-6)  # which of the two goes
    assert evidence(torch.ones(0, 6, 2), threshold=0.9).margin.shape == (0,)


def test_another_decision_is_allowed_only_where_noise_explains_it() -> None:
    allows = evidence(pairs(0.95, 0.90001, 0.1), threshold=0.9).allows
    both, one, none, wrong = (
        np.array(kept) for kept in ([1, 3, 4, 5], [1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [1, 3, 5])
    )
    to = {4: [0, 0, 1, 1, 2, 3], 5: [0, 0, 1, 2, 3, 4], 6: [0, 1, 2, 3, 4, 5], 3: [0, 0, 1, 1, 2, 2]}
    answers = [allows(0, kept, np.array(to[len(kept)]), 1e-4) for kept in (both, one, none, wrong)]
    assert answers == [True, True, False, False]
    assert not allows(0, one, np.array(to[5]), 1e-6)


def test_config() -> None:
    on = MergeConfig("dynamic", per_series=True)
    assert on.describe() == "dynamic k=1 threshold=0.9 per-series min-tokens=4 positions=gather"
    assert "per_series=True" in repr(on)
    assert MergeConfig.from_dict(on.to_dict()) == on
    assert MergeConfig("dynamic", per_series=False) == MergeConfig("dynamic")
    before = {name: value for name, value in MergeConfig("dynamic").to_dict().items() if name != "per_series"}
    assert MergeConfig.from_dict(before) == MergeConfig(
        "dynamic"
    )  # of a bundle that is older than the setting
    assert "per-series" not in MergeConfig("dynamic").describe()
    with pytest.raises(UsageError, match="--per-series has no effect with --merge local"):
        MergeConfig(per_series=True)
    with pytest.raises(UsageError, match="--per-series is 'yes', which is not true or false"):
        MergeConfig("dynamic", per_series="yes")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="with --per-series use --positions gather"):
        MergeConfig("dynamic", per_series=True, positions="compact")
