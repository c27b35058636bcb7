"""Global merging against ToMe's bipartite soft matching, written here from the paper (arXiv 2210.09461, section 3)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tsmerge_export.methods.local.reference import local_merge


def bipartite_soft_matching(x: np.ndarray, size: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
    """One row: tokens ``[N, D]`` float64 and sizes ``[N]`` to the set of the N - r tokens left, in ToMe's own order."""
    a, b = x[0::2], x[1::2]
    unit_a, unit_b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    scores = unit_a @ unit_b.T
    best, edge = scores.max(1), scores.argmax(1)
    order = np.argsort(-best, kind="stable")
    merged, alone = order[:r], order[r:]
    weight_a, weight_b = size[0::2].copy(), size[1::2].copy()
    total = b * weight_b[:, None]
    for i in merged:
        total[edge[i]] += a[i] * weight_a[i]
        weight_b[edge[i]] += weight_a[i]
    return np.concatenate([a[alone], total / weight_b[:, None]]), np.concatenate([weight_a[alone], weight_b])


def as_set(tokens: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    rows = np.concatenate([tokens, sizes[:, None]], axis=1)
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize(("tokens", "r"), [(2, 1), (9, 3), (16, 8), (33, 16), (64, 5)])
def test_same_set_of_tokens_as_tome(tokens: int, r: int) -> None:
    rng = np.random.default_rng(tokens)
    x = rng.standard_normal((3, tokens, 6))
    size = rng.integers(1, 5, (3, tokens)).astype(float)
    got = local_merge(torch.from_numpy(x).float(), size=torch.from_numpy(size).float(), k="global", r=r)
    for row in range(3):
        want = as_set(*bipartite_soft_matching(x[row], size[row], r))
        given = as_set(got.y[row].double().numpy(), got.size[row].double().numpy())
        np.testing.assert_allclose(given, want, atol=1e-5, rtol=1e-5)
