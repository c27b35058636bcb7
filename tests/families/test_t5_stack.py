"""What the hooks hand to T5's attention: one bias that holds the mask, since not every transformers adds both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tsmerge_export as tsm
from tests import artefacts
from tsmerge_export import families
from tsmerge_export.families.t5_stack import weighed_cross_attention
from tsmerge_export.settings.config import MergeConfig

MODEL = artefacts.model("t5-tiny")


def caught(
    attention: Any, run: Callable[[], object], real: Callable[[], Tensor]
) -> tuple[Any, Tensor, Tensor]:
    """The mask and the bias ``[B, M]`` that an attention is called with, and what is real then."""
    found: list[Any] = []
    hook = attention.register_forward_pre_hook(
        lambda _module, _args, kwargs: found.append(
            (kwargs["mask"], kwargs["position_bias"][:, 0, 0], real())
        ),
        with_kwargs=True,
    )
    with torch.no_grad():
        run()
    hook.remove()
    (one,) = found
    return one[0], one[1], one[2]


@pytest.mark.parametrize("positions", ["gather", "compact"])
def test_padding_stays_hidden_where_tokens_merged(positions: Any) -> None:
    """20 of 60 steps are missing: in the encoder and from the decoder."""
    series = np.random.default_rng(0).standard_normal((2, 60)).cumsum(1).astype(np.float32)
    series[0, 3:23] = np.nan
    generation = families.get("chronos-t5").generation(MODEL)
    assert generation is not None
    inputs = {name: torch.from_numpy(value) for name, value in generation.from_series(MODEL, series).items()}
    samples = inputs["tokens"].shape[1]
    for attention, rows in (
        (MODEL.encoder.block[1].layer[0].SelfAttention, 1),
        (MODEL.decoder.block[1].layer[1].EncDecAttention, samples),
    ):
        with tsm.merging(MODEL, MergeConfig(ratio="1/4", prop_attn=True, positions=positions)) as run:
            mask, bias, real = caught(
                attention,
                lambda: generation.eager(MODEL, inputs),
                lambda: run.align(inputs["attention_mask"], 1),
            )
        assert mask is None
        assert real.shape[1] < 61 and (real[0] == 0).any()
        assert torch.equal(bias > -1e30, real.repeat_interleave(rows, 0) != 0)


def test_an_encoder_that_merged_elsewhere() -> None:
    hidden, mask = torch.zeros(2, 5, MODEL.config.d_model), torch.tensor([[1, 1, 0, 1, 1], [0, 1, 1, 1, 1]])
    sizes = torch.tensor([[2.0, 1, 1, 1, 1], [1, 1, 3, 1, 1]]).log()
    attention = MODEL.decoder.block[1].layer[1].EncDecAttention
    with weighed_cross_attention(MODEL.decoder, sizes):
        given, bias, _ = caught(
            attention,
            lambda: MODEL.decoder(
                input_ids=torch.zeros(2, 1, dtype=torch.long),
                encoder_hidden_states=hidden,
                encoder_attention_mask=mask,
                use_cache=False,
            ),
            lambda: mask,
        )
    assert given is None
    torch.testing.assert_close(bias[mask != 0], sizes[mask != 0])
    assert (bias[mask == 0] < -1e30).all()
