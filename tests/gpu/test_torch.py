"""``torch.ops.tsmerge.local_merge`` on the card: equal to the reference, with gradients, in a compiled model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tsmerge_export as tsm
from tests.cases import Case, OptionCase, compare_with_oracle, random_case
from tests.models import tiny
from tests.plugins.test_torch_kernels import SETTINGS, complete, tensor
from tsmerge_export.merge import kernels
from tsmerge_export.methods.local.reference import LocalMethod

pytestmark = pytest.mark.gpu


@pytest.fixture
def found(library: Path) -> kernels.Kernels:
    """The kernels of the library, for CUDA tensors."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU for PyTorch")
    entries = kernels.found()
    assert entries is not None
    assert entries.device == "cuda"
    return entries


def test_equal_the_oracle_on_random_problems(found: kernels.Kernels) -> None:
    for seed in range(200):
        case = random_case(np.random.default_rng(seed), of=(Case, OptionCase)[seed % 2])
        x, metric, size = (tensor(array).cuda() for array in case.arrays())
        y, *decided = found.local_merge(x, metric, size, case.attributes)
        result = (y.float().cpu(), *(value.cpu() for value in decided))
        assert compare_with_oracle(case, result) in (None, "flip")


@pytest.mark.parametrize("given", SETTINGS, ids=str)
def test_gradients_are_those_of_the_reference(found: kernels.Kernels, given: dict[str, int]) -> None:
    x = torch.randn(2, 14, 3, generator=torch.Generator().manual_seed(6)).cuda().requires_grad_()
    size = torch.ones(2, 14, device="cuda")
    attributes = complete(given)
    expected = LocalMethod().merge(x, x, size, attributes).y.square().sum()
    merged = kernels.merged(found, x, x, size, attributes).y.square().sum()
    (want,) = torch.autograd.grad(expected, x)
    (got,) = torch.autograd.grad(merged, x)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_a_compiled_model_merges_by_one_operator(found: kernels.Kernels) -> None:
    model = tiny("chronos-bolt").cuda()
    series = torch.randn(2, 128, generator=torch.Generator().manual_seed(3)).cumsum(1).cuda()
    with torch.no_grad(), tsm.merging(model, tsm.MergeConfig("local", k=1, ratio="1/4")):
        eager = model(series).quantile_preds
        compiled = torch.compile(model, fullgraph=True, dynamic=False)(series).quantile_preds
    torch.testing.assert_close(compiled, eager, rtol=1e-3, atol=1e-3)
