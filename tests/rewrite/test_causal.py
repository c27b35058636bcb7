"""Causal merging in a model whose tokens see only earlier ones: what holds (see ``local_merge``), and what does not."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import Tensor

from tests.rewrite.encoders import Encoder, export
from tests.rewrite.merged_encoders import merged
from tsmerge_export.merge import dynamic_merge, local_merge
from tsmerge_export.settings.config import MergeConfig

TOKENS, LAYERS = 26, 3
#: By this threshold about half of the pairs of the model below merge.
BY_THRESHOLD: dict[str, Any] = {"merge": dynamic_merge, "threshold": 0.3, "causal": True, "protect_first": 1}


@cache
def decoder() -> Encoder:
    torch.manual_seed(4)
    return Encoder("rope", causal=True, layers=LAYERS).eval()


@cache
def exported() -> ir.Model:
    return export(decoder())


@cache
def session(causal: bool, dynamic: bool) -> ort.InferenceSession:
    amount: dict[str, Any] = {"method": "dynamic", "threshold": 0.3} if dynamic else {"ratio": "1/3"}
    config = MergeConfig(causal=causal, min_tokens=0, **amount)
    return merged(exported(), config, protect_first=1)[0]


def series(seed: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, TOKENS, 4, generator=torch.Generator().manual_seed(seed))


def all_real(x: Tensor) -> Tensor:
    return torch.ones(x.shape[:2], dtype=torch.int64)


def run(x: Tensor, **options: Any) -> Tensor:
    return decoder().merged_forward(x, all_real(x), **options)


@pytest.mark.parametrize("causal", [True, False])
def test_no_value_of_a_later_token_enters(causal: bool) -> None:
    """Statement 1: with r best pairs of the row, too. Without ``causal``, slots are read from later tokens."""
    x = series(0).requires_grad_()
    out = run(x, ratio="1/3", causal=causal, protect_first=1)
    leaks = 0
    for place in range(TOKENS):
        (gradient,) = torch.autograd.grad(out[0, place].sum(), x, retain_graph=True)
        leaks += int(gradient[0, place + 1 :].abs().sum() > 0)
    assert leaks == 0 if causal else leaks >= 5


@pytest.mark.parametrize("seed", range(4))
def test_a_change_at_t_leaves_what_is_read_from_common_survivors_in_front_of_t(seed: int) -> None:
    """Statement 2, in the reference and in the exported model, for a change of each token."""
    x = series(seed)
    changed_fates = 0
    with torch.no_grad():
        before, kept = run(x, **BY_THRESHOLD)[0], [set(s[0].tolist()) for s in decoder().survivors]
        in_onnx_before = session(True, True).run(["y"], feed(x))[0][0]
        np.testing.assert_allclose(in_onnx_before, before, rtol=1e-4, atol=2e-5)
        assert len(kept[-1]) < TOKENS - 6
        for t in range(1, TOKENS):
            other = x.clone()
            other[0, t] = -30 * x[0, t]
            after = run(other, **BY_THRESHOLD)[0]
            now = [set(s[0].tolist()) for s in decoder().survivors]
            for step in range(LAYERS):
                fates = sorted(i for i in kept[step] ^ now[step] if i < t)
                in_front = sorted(i for i in kept[step] | now[step] if i < t)
                assert fates == [i for i in fates if i in in_front[-(step + 1) :]]
                changed_fates += len(fates)
            in_onnx = session(True, True).run(["y"], feed(other))[0][0]
            for place in range(t):
                source, source_now = (
                    max(i for i in survivors[-1] if i <= place) for survivors in (kept, now)
                )
                if source == source_now:
                    torch.testing.assert_close(after[place], before[place], rtol=1e-4, atol=2e-5)
                    np.testing.assert_allclose(in_onnx[place], in_onnx_before[place], rtol=1e-4, atol=2e-5)
    assert changed_fates > 0  # so the statement needs its second half


def test_with_the_r_best_of_a_row_a_later_token_has_a_say_anywhere() -> None:
    """Statement 3: the choice itself is not causal."""
    x = torch.tensor([[[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [1.0, -1.0], [0.0, 1.0], [1.0, 0.0], [0.3, 1.0]]])
    assert local_merge(x, r=1, causal=True, protect_first=1).kept.tolist() == [[0, 2, 3, 4, 5, 6]]
    x[0, 6] = x[0, 5]
    assert local_merge(x, r=1, causal=True, protect_first=1).kept.tolist() == [[0, 1, 2, 3, 4, 6]]


def test_without_causal_a_slot_follows_the_next_token() -> None:
    """The test above can fail."""
    x = series(0)
    options = {**BY_THRESHOLD, "causal": False}
    with torch.no_grad():
        before, kept = run(x, **options)[0], decoder().survivors[0][0].tolist()
        t = next(i for i in range(2, TOKENS) if i in kept and i - 1 not in kept)
        other = x.clone()
        other[0, t] *= 1.01
        after = run(other, **options)[0]
        assert decoder().survivors[0][0].tolist() == kept
    assert (after[t - 1] - before[t - 1]).abs().max() > 1e-3


def feed(x: Tensor) -> dict[str, np.ndarray]:
    return {"x": x.numpy(), "mask": all_real(x).numpy()}


def test_the_exported_model_equals_merging_by_hand_with_padding() -> None:
    x, mask = series(7, 3), torch.ones(3, TOKENS, dtype=torch.int64)
    mask[0, :9], mask[1, :4] = 0, 0
    options: dict[str, Any] = {"ratio": "1/3", "causal": True, "protect_first": 1}
    with torch.no_grad():
        want = decoder().merged_forward(x, mask, **options)
    got = session(True, False).run(["y"], {"x": x.numpy(), "mask": mask.numpy()})[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5)
    plain = session(False, False).run(["y"], {"x": x.numpy(), "mask": mask.numpy()})[0]
    assert np.abs(got - plain).max() > 1e-3


def test_slots_by_hand() -> None:
    x = torch.tensor([[[9.0], [1.0], [1.0], [-5.0], [7.0], [2.0], [2.0]]])
    out = local_merge(x, r=2, causal=True, protect_first=1, similarity="l2")
    assert out.kept.tolist() == [[0, 2, 3, 4, 6]]
    assert out.target.tolist() == [[0, 0, 1, 2, 3, 3, 4]]  # the slots of 1 and 5 are read from 0 and 4
    assert out.y[0, :, 0].tolist() == [9, 1, -5, 7, 2]
    assert out.size.tolist() == [[1, 2, 1, 1, 2]]


def test_a_token_is_not_read_from_padding_while_anything_else_is_left() -> None:
    x, size = torch.ones(1, 7, 2), torch.tensor([[0.0, 1, 1, 1, 1, 1, 1]])
    x[0, 3:] = torch.tensor([[1.0, 0.5], [0.5, 1.0], [1.0, 0.0], [0.0, 1.0]])  # less alike than 1 and 2
    assert local_merge(x, size=size, r=1, causal=True, protect_first=1).kept.tolist() == [[0, 1, 2, 4, 5, 6]]
    assert local_merge(x, size=size, r=1, protect_first=1).kept.tolist() == [[0, 2, 3, 4, 5, 6]]
    merged = dynamic_merge(x, size=size, threshold=-1, causal=True, protect_first=1)
    assert merged.kept.tolist() == [[0, 1, 2, 4, 6]]
