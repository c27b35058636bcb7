"""Pruning and clustering against their definitions in numpy."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from tsmerge_export.errors import MissingDependencyError, UnsupportedError
from tsmerge_export.tools.compress.weights import cluster, k_means, prunable, prune_smallest


def matrices(seed: int = 0) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.normal(0, s, (24, 32)).astype(np.float32)) for s in (1.0, 0.1)]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_the_smallest_of_all_matrices_are_zero_and_the_others_as_they_were(share: float) -> None:
    before, weights = matrices(), matrices()
    prune_smallest(weights, share)
    flat, made = (torch.cat([w.reshape(-1) for w in each]).numpy() for each in (before, weights))
    gone = made == 0
    assert gone.sum() == round(share * flat.size)
    assert np.abs(flat[gone]).max() <= np.abs(flat[~gone]).min()
    np.testing.assert_array_equal(made[~gone], flat[~gone])
    # Over all together: the matrix of small numbers loses more.
    assert (weights[1] == 0).sum() > (weights[0] == 0).sum()


def lloyd(values: np.ndarray, centres: np.ndarray, rounds: int) -> np.ndarray:
    for _ in range(rounds):
        nearest = np.abs(values[:, None] - centres).argmin(1)
        centres = np.array(
            [values[nearest == i].mean() if (nearest == i).any() else c for i, c in enumerate(centres)]
        )
    return np.sort(centres)


@pytest.mark.parametrize("values", [4, 16, 256])
def test_a_matrix_has_the_centres_of_k_means_and_its_zeros(values: int) -> None:
    before, weights = matrices(), matrices()
    for each in (before, weights):
        prune_smallest(each, 0.3)
    cluster(weights, values)
    for old, new in zip((w.double().numpy().reshape(-1) for w in before), weights, strict=True):
        made = new.numpy().reshape(-1)
        np.testing.assert_array_equal(made == 0, old == 0)
        own = old[old != 0]
        centres = lloyd(own, np.linspace(own.min(), own.max(), values - 1), 20)
        wanted = centres[np.abs(own[:, None] - centres).argmin(1)]
        np.testing.assert_allclose(made[old != 0], wanted, rtol=1e-5, atol=1e-6)
        assert len(np.unique(made)) <= values
        assert not np.allclose(made, old, atol=1e-4)


def test_what_has_few_values_already_stays() -> None:
    weights = [torch.tensor([[0.0, 1.0], [2.0, 1.0]])]
    cluster(weights, 4)
    assert weights[0].tolist() == [[0, 1], [2, 1]]


def test_tables_and_small_layers_are_left_alone() -> None:
    table = nn.Embedding(40, 32)
    head, thin, own = nn.Linear(32, 40, bias=False), nn.Linear(32, 8), nn.Linear(32, 32)
    head.weight = table.weight
    (found,) = prunable(nn.Sequential(table, head, thin, own, own))
    assert found is own.weight
    with pytest.raises(UnsupportedError, match="no linear layer that is large enough"):
        prunable(nn.Sequential(table, head, thin))


def test_numbers_that_are_not_finite_are_named() -> None:
    model = nn.Sequential(nn.Linear(32, 32))
    with torch.no_grad():
        model[0].weight[3, 4] = torch.nan
    with pytest.raises(UnsupportedError, match=r"0\.weight holds numbers that are not finite"):
        prunable(model)


def test_scipy_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("scipy.cluster.vq", "scipy.cluster", "scipy"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'tsmerge-export\[compress\]'"):
        k_means()
