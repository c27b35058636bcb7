"""``torch.ops.tsmerge.local_merge``: the operator without kernels, and with the kernels emulated on the CPU."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import library as torch_library

import tsmerge_export as tsm
from tests.cases import Case, OptionCase, compare_with_oracle, random_case
from tests.models import tiny
from tsmerge_export.backends.onnxruntime.native import CUDA_LIBRARY
from tsmerge_export.console.notes import Note
from tsmerge_export.eager.apply import merged_inside
from tsmerge_export.merge import kernels
from tsmerge_export.methods.local.reference import LocalMethod

NUMBERS = ("k", "r", "ratio_num", "ratio_den", "min_tokens", "protect_first", "protect_last")
SETTINGS = [
    {"k": 1, "r": 0, "ratio_num": 1, "ratio_den": 4},
    {"k": 3, "r": 4, "ratio_num": 0, "ratio_den": 1, "protect_last": 2, "similarity": 1},
    {"k": 0, "r": 0, "ratio_num": 1, "ratio_den": 3, "min_tokens": 9, "similarity": 2},
    {"k": 1, "r": 6, "ratio_num": 0, "ratio_den": 1, "protect_first": 1, "causal": 1},
]


def complete(given: dict[str, int]) -> dict[str, int]:
    return {"min_tokens": 0, "protect_first": 0, "protect_last": 0, **given}


@pytest.fixture
def emulated(emulated_operators: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The library with emulated kernels, found as one of CUDA is."""
    monkeypatch.setenv(CUDA_LIBRARY.variable, str(emulated_operators))
    yield emulated_operators
    kernels._loaded.cache_clear()


@pytest.mark.parametrize("given", SETTINGS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_kernels_are_the_reference(emulated: Path, given: dict[str, int], dtype: torch.dtype) -> None:
    """Values within a rounding, decisions exactly; a row with padding, a row with NaN."""
    rng = torch.Generator().manual_seed(5)
    x = torch.randn(3, 14, 5, generator=rng).to(dtype)
    x[2, 3, 1] = torch.nan
    metric = torch.randn(3, 14, 4, generator=rng)
    size = torch.randint(1, 5, (3, 14), generator=rng).float()
    size[1, 9:] = 0
    attributes = complete(given)
    expected = LocalMethod().merge(x, metric, size, attributes)
    found = kernels.found()
    assert found is not None and found.device == "cpu" and found.take(x, metric)
    y, size_out, kept, target = found.local_merge(x, metric, size, attributes)
    assert kept.shape[1] < 14
    for value, want in ((size_out, expected.size), (kept, expected.kept), (target, expected.target)):
        assert torch.equal(value, want)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(y, expected.y, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("given", SETTINGS, ids=str)
def test_gradients_are_those_of_the_reference(emulated: Path, given: dict[str, int]) -> None:
    rng = torch.Generator().manual_seed(6)
    x, weights = torch.randn(2, 14, 3, generator=rng, dtype=torch.float32), None
    size = torch.randint(0, 4, (2, 14), generator=rng).float()
    attributes = complete(given)
    gradients = []
    found = kernels.found()
    assert found is not None
    for run in (
        lambda v: LocalMethod().merge(v, v, size, attributes),
        lambda v: kernels.merged(found, v, v, size, attributes),
    ):
        leaf = x.clone().requires_grad_()
        y = run(leaf).y
        weights = (
            torch.randn(y.shape, generator=torch.Generator().manual_seed(7)) if weights is None else weights
        )
        (y * weights).sum().backward()
        gradients.append(leaf.grad)
    assert gradients[0] is not None and gradients[1] is not None
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-6)


def test_the_operator_is_well_formed() -> None:
    """Schema, fake tensors, autograd and symbols, by PyTorch's own checks; without a library it is the reference."""
    x = torch.randn(2, 12, 4, requires_grad=True)
    size = torch.ones(2, 12)
    numbers = [int(complete(SETTINGS[0])[name]) for name in NUMBERS]
    torch_library.opcheck(kernels.local_merge, (x, x.detach(), size, *numbers))
    expected = LocalMethod().merge(x, x, size, complete(SETTINGS[0]))
    for value, want in zip(kernels.local_merge(x, x.detach(), size, *numbers), expected, strict=True):
        assert torch.equal(value, want)


def test_a_merged_model_runs_by_the_kernels(emulated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forecast and its gradient, with sizes and keys handed from layer to layer; the kernels are what ran."""
    model = tiny("chronos-bolt")
    series = torch.randn(2, 128, generator=torch.Generator().manual_seed(3)).cumsum(1)
    merge = tsm.MergeConfig("local", k=2, ratio="1/4", metric="key", prop_attn=True)
    calls = itertools.count()
    ran = kernels.Kernels.local_merge
    monkeypatch.setattr(kernels.Kernels, "local_merge", lambda *given: (next(calls), ran(*given))[1])
    forecasts = []
    for library in (str(emulated), "none"):
        monkeypatch.setenv(CUDA_LIBRARY.variable, library)
        with merged_inside(model, merge) as run:
            predicted = model(series).quantile_preds
            forecasts.append((predicted.detach(), [step.kept for step in run.steps]))
            predicted.sum().backward()
    assert next(calls) == len(forecasts[0][1]) > 0
    for one, other in zip(forecasts[0][1], forecasts[1][1], strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(forecasts[0][0], forecasts[1][0], rtol=1e-5, atol=1e-5)


def test_a_library_without_the_entries_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "libother.so"
    file.write_bytes(b"no library")
    monkeypatch.setenv(CUDA_LIBRARY.variable, str(file))
    with pytest.warns(Note, match=r"libother\.so: .*merge by operators of PyTorch"):
        assert kernels.found() is None


def test_random_problems(emulated: Path) -> None:
    """Against the oracle in numpy, which is neither the reference nor the kernels."""
    found = kernels.found()
    assert found is not None
    for seed in range(40):
        case = random_case(np.random.default_rng(seed), of=(Case, OptionCase)[seed % 2])
        x, metric, size = (tensor(array) for array in case.arrays())
        y, *decided = found.local_merge(x, metric, size, case.attributes)
        assert compare_with_oracle(case, (y.float(), *decided)) in (None, "flip")


def tensor(array: np.ndarray) -> torch.Tensor:
    """Of a type that numpy may not have."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
