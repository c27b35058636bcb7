"""The rewriter on encoders that it has never heard of, against merging written into their forward by hand."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from tests.rewrite.encoders import Encoder, export
from tests.rewrite.merged_encoders import inputs, merged
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.settings.config import MergeConfig

KINDS: Mapping[str, dict[str, Any]] = {
    "rope-pre-tokens": {"positions": "rope"},
    "relative-post-mean": {"positions": "relative", "post_norm": True, "head": "mean"},
    "absolute-pre-last-causal": {"positions": "absolute", "head": "last", "causal": True},
}
# Barriers each head must bring about: none where the output has one entry per token.
BARRIERS = {
    "rope-pre-tokens": [],
    "relative-post-mean": ["ReduceMean"],
    "absolute-pre-last-causal": [],  # it reads the last token, which is protected
}


@cache
def encoder(kind: str) -> Encoder:
    torch.manual_seed(1)
    return Encoder(**KINDS[kind]).eval()


@cache
def exported(kind: str, fixed: tuple[int, int] | None = None) -> ir.Model:
    return export(encoder(kind), fixed=fixed)


def strip(model: ir.Model) -> ir.Model:
    """Without exporter metadata and value_info, as another tool would have left it."""
    for node in model.graph:
        node.metadata_props.clear()
        for value in node.outputs:
            if value not in model.graph.outputs:
                value.shape, value.type = None, None
    return model


def compare(kind: str, session: ort.InferenceSession, batch: int, tokens: int, **options: Any) -> None:
    feed = inputs(batch, tokens)
    with torch.no_grad():
        want = encoder(kind).merged_forward(
            torch.from_numpy(feed["x"]), torch.from_numpy(feed["mask"]), **options
        )
    got = session.run(["y"], feed)[0]
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("positions", ["gather", "compact"])
@pytest.mark.parametrize("k", [1, 3, None])
def test_equals_merging_written_by_hand(kind: str, positions: str, k: int | None) -> None:
    config = MergeConfig(k=k, ratio="1/3", min_tokens=2, positions=positions)  # type: ignore[arg-type]
    session, report = merged(exported(kind), config, protect_last=1)
    assert [merge.layer for merge in report.merges] == [0, 1, 2]
    assert {barrier.op_type for barrier in report.barriers} <= set(BARRIERS[kind])
    assert bool(report.barriers) == bool(BARRIERS[kind])
    for batch, tokens in ((1, 2), (2, 9), (5, 30)):
        compare(
            kind,
            session,
            batch,
            tokens,
            compact=positions == "compact",
            k=k,
            ratio="1/3",
            min_tokens=2,
            protect_last=1,
        )


@pytest.mark.parametrize("kind", KINDS)
def test_needs_no_exporter_metadata(kind: str) -> None:
    session, report = merged(strip(exported(kind).clone()), MergeConfig(ratio="1/4"), scope="never matches")
    assert len(report.merges) == 3
    compare(kind, session, 3, 21, k=1, ratio="1/4", min_tokens=4)


@pytest.mark.parametrize("kind", KINDS)
def test_proportional_attention(kind: str) -> None:
    session, _ = merged(exported(kind), MergeConfig(ratio="1/3", prop_attn=True))
    compare(kind, session, 3, 26, k=1, ratio="1/3", min_tokens=4, prop_attn=True)
    plain, _ = merged(exported(kind), MergeConfig(ratio="1/3"))
    feed = inputs(3, 26)
    assert np.abs(plain.run(["y"], feed)[0] - session.run(["y"], feed)[0]).max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_metric_of_keys(kind: str) -> None:
    session, _ = merged(exported(kind), MergeConfig(ratio="1/4", metric="key"))
    compare(kind, session, 3, 25, k=1, ratio="1/4", min_tokens=4, metric="key")
    plain, _ = merged(exported(kind), MergeConfig(ratio="1/4"))
    feed = inputs(3, 25)
    assert np.abs(plain.run(["y"], feed)[0] - session.run(["y"], feed)[0]).max() > 1e-4


def test_proportional_attention_on_equal_tokens_is_the_unmerged_model() -> None:
    """Closed form: where the tokens that merge are equal and positions do not count, sizes make up for them exactly."""
    torch.manual_seed(2)
    model = Encoder("relative", head="mean").eval()
    torch.nn.init.zeros_(model.table.weight)
    plain = export(model)
    x = np.repeat(np.random.default_rng(0).standard_normal((2, 11, 4)).astype(np.float32), 2, axis=1)
    feed = {"x": x, "mask": np.ones((2, 22), np.int64)}
    want = open_session(ir.to_proto(plain), 1).run(["y"], feed)[0]
    errors = {}
    for prop_attn in (True, False):
        session, _ = merged(plain, MergeConfig(r=4, layers=(0,), prop_attn=prop_attn))
        errors[prop_attn] = np.abs(session.run(["y"], feed)[0] - want).max()
    assert errors[True] < 1e-5 < 1e-3 < errors[False]


def test_chosen_layers_only() -> None:
    kind = "rope-pre-tokens"
    session, report = merged(exported(kind), MergeConfig(r=5, layers=(0, 2)))
    assert [merge.layer for merge in report.merges] == [0, 2]
    compare(kind, session, 2, 25, k=1, r=5, min_tokens=4, layers=(0, 2))


def test_fixed_sizes() -> None:
    kind = "relative-post-mean"
    session, report = merged(exported(kind, (2, 20)), MergeConfig(ratio="1/4"))
    assert report.merges[0].before == "20"
    compare(kind, session, 2, 20, k=1, ratio="1/4", min_tokens=4)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_merge_is_the_plain_file_bit_for_bit(kind: str) -> None:
    plain = open_session(ir.to_proto(exported(kind)), 1)
    session, report = merged(exported(kind), MergeConfig(ratio="1/2", min_tokens=1000))
    assert len(report.merges) == 3
    for batch, tokens in ((1, 3), (4, 31)):
        feed = inputs(batch, tokens)
        assert plain.run(["y"], feed)[0].tobytes() == session.run(["y"], feed)[0].tobytes()


def test_scope_filters_points() -> None:
    with pytest.raises(Exception, match="no safe merge point"):
        merged(exported("rope-pre-tokens"), MergeConfig(), scope="^no such module$")


def test_output_that_may_stay_merged_keeps_fewer_tokens() -> None:
    session, _ = merged(exported("rope-pre-tokens"), MergeConfig(ratio="1/2"), stay={"y": 1, "token_mask": 1})
    feed = inputs(2, 32)
    y, mask = session.run(["y", "token_mask"], feed)
    assert y.shape[1] == mask.shape[1] == 4
    # Padding is merged first, so that what is left of row 0 is real.
    assert mask.dtype == np.int64
    assert mask[1].all()


def test_batch_and_values_matter() -> None:
    """A wrong merge amount must show: the comparison above can fail."""
    session, _ = merged(exported("rope-pre-tokens"), MergeConfig(ratio="1/3"))
    with pytest.raises(AssertionError):
        compare("rope-pre-tokens", session, 3, 21, k=1, ratio="1/4", min_tokens=4)


def test_hidden_states_of_a_block_are_not_those_of_attention() -> None:
    with pytest.raises(Exception, match="--metric hidden needs the blocks of a state-space model"):
        merged(exported("rope-pre-tokens"), MergeConfig(metric="hidden"))
