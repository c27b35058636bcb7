"""Merging inside an eager model: against a hand-written forward of the T5 encoder, reversible, idempotent."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import tsmerge_export as tsm
from tests.models import tiny
from tsmerge_export.eager.apply import current_run
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.merge import local_merge
from tsmerge_export.merge.plan import make_plan
from tsmerge_export.merge.run import MergeRun


def t5_encoder_by_hand(
    model: Any, ids: Tensor, mask: Tensor, compact: bool, newest: int, **options: Any
) -> tuple[Tensor, Tensor]:
    """T5's encoder written out, merging after each attention; ``[B, M, D]`` and the mask ``[B, M]``."""
    stack = model.encoder
    h = stack.embed_tokens(ids)
    index = torch.arange(ids.shape[1]).expand(ids.shape)
    size = mask.float()
    first = stack.block[0].layer[0].SelfAttention
    for block in stack.block:
        attention, norm = block.layer[0].SelfAttention, block.layer[0].layer_norm
        x = norm(h)
        heads = attention.n_heads
        q, k, v = (
            getattr(attention, name)(x).reshape(*x.shape[:2], heads, -1).transpose(1, 2)
            for name in ("q", "k", "v")
        )
        buckets = first._relative_position_bucket(
            index[:, None, :] - index[:, :, None],
            num_buckets=first.relative_attention_num_buckets,
            max_distance=first.relative_attention_max_distance,
        )
        bias = first.relative_attention_bias(buckets).permute(0, 3, 1, 2)
        scores = q @ k.transpose(2, 3) + bias
        scores = scores.masked_fill(mask[:, None, None, :] == 0, torch.finfo(torch.float32).min)
        h = h + attention.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(*x.shape[:2], -1))
        merged = local_merge(h, size=size, protect_last=1 + newest, **options)
        h, size = merged.y, merged.size
        index, mask = index.gather(1, merged.kept), mask.gather(1, merged.kept)
        if compact:
            index = torch.arange(h.shape[1]).expand(h.shape[:2])
        h = block.layer[1](h)
    return stack.final_layer_norm(h), mask


def t5_inputs(batch: int, length: int) -> tuple[Tensor, Tensor]:
    ids = torch.randint(2, 64, (batch, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    mask[0, : length // 3] = 0
    return ids, mask


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize(("k", "newest"), [(1, 0), (1, 6), (2, 0), (None, 0)])
def test_encoder_equals_a_forward_written_by_hand(k: int | None, newest: int, compact: bool) -> None:
    model: Any = tiny("chronos-t5")
    ids, mask = t5_inputs(3, 31)
    positions: Any = "compact" if compact else "gather"
    config = tsm.MergeConfig(k=k, ratio="1/3", min_tokens=2, positions=positions, protect_newest=newest)
    with torch.no_grad():
        with tsm.merging(model, config) as run:
            got = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        # Outside: the hooks look at the table of biases, which the forward by hand reads too.
        want, want_mask = t5_encoder_by_hand(
            model, ids, mask, compact, newest, k=k, ratio="1/3", min_tokens=2
        )
        assert torch.equal(run.align(mask, 1), want_mask)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 2, 13, 13), (3, 1, 13, 13), (6, 1, 13, 13), (3, 2, 1, 13)])
def test_values_of_pairs_follow_both_tokens(shape: tuple[int, ...]) -> None:
    """One for all rows of a batch, one a row, one for each sample of a row, one that repeats itself; gradients too."""
    rng = torch.Generator().manual_seed(5)
    run = MergeRun({0: make_plan(tsm.MergeConfig(ratio="1/3"), 1)[0]})
    run.merge(0, torch.randn((3, 13, 4), generator=rng))
    assert run.kept is not None
    kept = run.kept.repeat_interleave(max(1, shape[0] // 3), dim=0)
    # Whole numbers: their sums are the same in any order.
    value = torch.randint(-99, 99, shape, generator=rng).float().requires_grad_()
    got = run.align(value, 2, 3)
    rows = [value[n if shape[0] > 1 else 0][..., each] for n, each in enumerate(kept)]
    if shape[2] > 1:
        rows = [row[:, each] for row, each in zip(rows, kept, strict=True)]
    want = torch.stack(rows)
    assert torch.equal(got, want)
    weight = torch.randint(-9, 9, want.shape, generator=rng).float()
    gradients = [torch.autograd.grad(out, value, weight)[0] for out in (got, want)]
    assert torch.equal(*gradients)
    assert gradients[0].any()


def test_decoder_attends_to_merged_tokens_with_their_mask() -> None:
    """The decoder must get the aligned mask: unmerged and merged encoder states give what hand-aligned inputs give."""
    model: Any = tiny("chronos-t5")
    ids, mask = t5_inputs(2, 25)
    decoder_ids = torch.zeros((2, 3), dtype=torch.int64)
    with torch.no_grad():
        with tsm.merging(model, tsm.MergeConfig(ratio="1/4")) as run:
            got = model(input_ids=ids, attention_mask=mask, decoder_input_ids=decoder_ids).logits
            states = model.encoder(input_ids=ids, attention_mask=mask)
            aligned = run.align(mask, 1)
        want = model(encoder_outputs=states, attention_mask=aligned, decoder_input_ids=decoder_ids).logits
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", ["chronos-bolt", "chronos-t5"])
def test_remove_restores_bit_for_bit(family: str) -> None:
    model: Any = tiny(family)
    run = (lambda: model(torch.sin(torch.arange(300.0))[None]).quantile_preds) if family == "chronos-bolt" else (
        lambda: model.encoder(*t5_inputs(2, 33)).last_hidden_state
    )  # fmt: skip
    with torch.no_grad():
        before = run()
        tsm.apply(model, tsm.MergeConfig(ratio="1/4"))
        merged = run()
        tsm.apply(model, tsm.MergeConfig(ratio="1/4"))  # again: replaces, does not merge twice
        assert torch.equal(run(), merged)
        assert merged.shape != before.shape or not torch.equal(merged, before)
        tsm.remove(model)
        tsm.remove(model)
        assert torch.equal(run(), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_merging_restores_what_was_applied_before_also_after_an_error() -> None:
    model = tiny("chronos-bolt")
    outer = tsm.MergeConfig(ratio="1/4")
    tsm.apply(model, outer)
    run = current_run(model)

    def fails_inside() -> None:
        with tsm.merging(model, tsm.MergeConfig(ratio="1/2")):
            assert current_run(model) is not run
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fails_inside()
    assert current_run(model) is run
    tsm.remove(model)
    with tsm.merging(model, tsm.MergeConfig(method="none")) as none:
        assert none.steps == []
    assert current_run(model) is None


def test_a_refused_config_leaves_the_model_as_it_was() -> None:
    model = tiny("chronos-bolt")
    tsm.apply(model, tsm.MergeConfig(ratio="1/4"))
    run = current_run(model)
    with pytest.raises(UsageError, match=r"--layers 7 .* 0 to 1"):
        tsm.apply(model, tsm.MergeConfig(layers=(0, 7)))
    assert current_run(model) is run


def test_unknown_modules_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="Linear"):
        tsm.apply(torch.nn.Linear(2, 2), tsm.MergeConfig())


def test_pipelines_are_unwrapped_and_generate_works() -> None:
    from chronos import ChronosPipeline
    from chronos.chronos import ChronosConfig, ChronosModel

    model: Any = tiny("chronos-t5")
    config = ChronosConfig(**model.config.chronos_config)
    pipeline = ChronosPipeline(tokenizer=config.create_tokenizer(), model=ChronosModel(config, model))
    tsm.apply(pipeline, tsm.MergeConfig(ratio="1/4"))
    samples = pipeline.predict(torch.sin(torch.arange(100.0)), prediction_length=5, num_samples=3)
    run = current_run(model)
    assert samples.shape == (1, 3, 5)
    assert run is not None
    assert [step.removed for step in run.steps] == [25, 19]


@pytest.mark.parametrize(
    "merge",
    [
        tsm.MergeConfig(ratio="1/4"),
        tsm.MergeConfig(ratio="1/4", metric="key", prop_attn=True),
        tsm.MergeConfig(method="dynamic", threshold="0.2,-0.5"),
        tsm.MergeConfig(method="pitome", ratio="1/4"),
        tsm.MergeConfig(ratio="1/4", causal=True, similarity="l2"),
        tsm.MergeConfig(method="global", ratio="1/4", similarity="dot", prop_attn=True),
        tsm.MergeConfig(method="pitome", ratio="1/4", energy="gaussian", metric="key"),
        tsm.MergeConfig(method="ssm", ratio="1/4", metric="key"),
        tsm.MergeConfig(method="ssm", ratio="1/4", prune_share=1, prop_attn=True),
    ],
    ids=lambda merge: merge.describe(),
)
def test_gradients_flow_through_merging(merge: tsm.MergeConfig) -> None:
    model: Any = tiny("chronos-bolt").train()
    tsm.apply(model, merge)
    model(torch.sin(torch.arange(250.0))[None], target=torch.zeros(1, 16)).loss.backward()
    run = current_run(model)
    assert run is not None
    assert all(step.removed > 0 for step in run.steps)
    assert all(
        p.grad is not None and torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0
        for p in model.encoder.block.parameters()
    )


def test_hidden_states_of_a_block_are_refused_where_there_are_none() -> None:
    model = tiny("chronos-bolt")
    with (
        tsm.merging(model, tsm.MergeConfig(metric="hidden")),
        pytest.raises(UnsupportedError, match="--metric hidden needs the blocks of a state-space model"),
    ):
        model(torch.randn(1, 64))
