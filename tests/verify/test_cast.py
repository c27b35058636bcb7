"""Eager products in half: every one that the files have, with numbers rounded by hand."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tsmerge_export.merge.run import MergeRun
from tsmerge_export.verify.cast import Cast, unknown


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def low(value: Tensor) -> Tensor:
    return torch.from_numpy(value.numpy().astype(np.float16).astype(np.float32))


def cast(*weights: Tensor, products: bool = True, attention: bool = False) -> Cast:
    return Cast("fp16", [(weight.numpy(), products) for weight in weights], attention=attention)


def close(a: Tensor, b: Tensor) -> bool:
    """A sum in another order may be rounded to the number beside it; that is seldom."""
    near = (a - b).abs().max() <= 2e-3 * b.abs().max()
    return bool(near and (a - b).abs().mean() <= 5e-5 * b.abs().max())


def test_linear_with_a_weight_that_the_file_has_in_half() -> None:
    x, w, bias, other = normal(3, 20), normal(18, 20, seed=1), normal(18, seed=2), normal(18, 20, seed=3)
    want = low(low(x) @ low(w).T) + bias
    with torch.no_grad(), cast(w.T):
        got, plain = functional.linear(x, w, bias), functional.linear(x, other, bias)
        turned = x @ w.T
    assert close(got, want) and torch.equal(plain, x @ other.T + bias)
    assert torch.equal(turned, low(turned)) and close(turned, want - bias)
    exact = x @ w.T + bias
    assert (got - exact).abs().max() > 1e-4
    with torch.no_grad(), cast(w.T, products=False):
        stored, turned = functional.linear(x, w, bias), x @ w.T
    assert torch.allclose(stored, x @ low(w).T + bias, atol=1e-5)
    assert torch.allclose(turned, x @ low(w).T, atol=1e-5)


def test_embedding_and_products_of_two_values() -> None:
    table, ids = normal(30, 16), torch.tensor([[3, 7]])
    a, b = normal(2, 5, 16, seed=1), normal(2, 16, 5, seed=2)
    with torch.no_grad(), cast(table, attention=True):
        found, made, thin = functional.embedding(ids, table), torch.matmul(a, b), a[..., :1] @ b[:, :1]
    assert torch.equal(found, low(table)[ids]) and close(made, low(low(a) @ low(b)))
    assert torch.equal(thin, a[..., :1] @ b[:, :1])  # positions times frequencies stay float32
    with torch.no_grad(), cast(table):
        assert torch.equal(torch.matmul(a, b), a @ b)


def test_scaled_dot_product_attention() -> None:
    q, k, v = (normal(2, heads, 6, 16, seed=heads) for heads in (4, 2, 2))
    with torch.no_grad():
        full = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        with cast(attention=True):
            got = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    root = math.sqrt(1 / math.sqrt(16))
    keys, values = (each.repeat_interleave(2, dim=1) for each in (k, v))
    scores = low(low(q * root) @ low(keys * root).transpose(2, 3))
    scores = scores.masked_fill(~torch.ones(6, 6, dtype=torch.bool).tril(), -math.inf)
    assert close(got, low(low(scores.softmax(-1)) @ low(values)))
    assert torch.allclose(got, full, rtol=0, atol=5e-3 * float(full.abs().max()))
    assert not torch.allclose(got, full, atol=1e-5)


def test_merging_stays_float32_and_weights_that_are_no_modules_are_counted() -> None:
    a, b = normal(4, 16), normal(16, 4, seed=1)
    run = MergeRun({})
    run.merge = lambda layer, x: x @ b  # type: ignore[method-assign, assignment, misc]
    mode = cast(attention=True)
    mode.leave_out(run)
    with torch.no_grad():
        exact = a @ b
        with mode:
            assert torch.equal(run.merge(0, a), exact) and not torch.equal(a @ b, exact)
    linear = nn.Linear(20, 18)
    weight = linear.weight.detach().numpy()
    assert unknown(linear, [(weight, True), (np.ascontiguousarray(weight.T), True)]) == 0
    assert unknown(linear, [(weight + 1, True)]) == 1
