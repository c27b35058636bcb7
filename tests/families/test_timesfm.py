"""TimesFM 1 and 2: parity, a forward by hand, the original's own forecast, padding and frequencies, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tsmerge_export as tsm
from tests.families.harness import CORPUS, NOTHING, OTHERS, Subject, describe
from tests.models import TIMESFM
from tsmerge_export import families
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.errors import UsageError
from tsmerge_export.merge import local_merge
from tsmerge_export.settings.config import MergeConfig

WHOLE = Subject("timesfm")


@pytest.mark.parametrize("merge", [*CORPUS, *OTHERS], ids=describe)
def test_parity(merge: MergeConfig) -> None:
    WHOLE.assert_parity(merge)


def test_parity_fails_for_another_setting() -> None:
    assert not WHOLE.parity(MergeConfig(ratio="1/3"), of=MergeConfig(ratio="1/4")).passed


def test_dynamic_and_removable() -> None:
    WHOLE.assert_dynamic_and_removable()


@pytest.mark.parametrize("merge", NOTHING, ids=describe)
def test_nothing_to_merge_is_bit_identical_to_the_unmerged_file(merge: MergeConfig) -> None:
    WHOLE.assert_bit_identical(merge)


def by_hand(series: Tensor, options: dict[str, Any]) -> tuple[Tensor, list[Tensor]]:
    """Predictions of whole series ``[B, n * patch]``, layer by layer; what survives each of them."""
    model: Any = WHOLE.model
    decoder, caught = model.decoder, []
    take = decoder.layers[0].input_layernorm.register_forward_pre_hook(
        lambda _m, args: caught.append(args[0])
    )
    model(list(series), forecast_context_len=series.shape[1])
    take.remove()
    h, size, kepts = caught[0], None, []
    for layer in decoder.layers:
        causal = torch.full((h.shape[1], h.shape[1]), -torch.inf).triu(1)[None, None]
        update, _ = layer.self_attn(layer.input_layernorm(h), causal)
        out = local_merge(h + update, size=size, protect_last=1, min_tokens=4, **options)
        h, size = layer.mlp(out.y), out.size
        kepts.append(out.kept)

    def put(_module: Any, _args: Any, output: Any) -> Any:
        output.last_hidden_state = h[:, -1:].expand_as(output.last_hidden_state)
        return output

    give = decoder.register_forward_hook(put)
    out = model(list(series), forecast_context_len=series.shape[1])
    give.remove()
    return out.full_predictions, kepts


@pytest.mark.parametrize("options", [{"k": 1, "ratio": "1/4"}, {"k": 5, "ratio": "1/3"}])
def test_eager_and_exported_equal_a_forward_written_by_hand(options: dict[str, Any]) -> None:
    series = torch.from_numpy(np.random.default_rng(1).standard_normal((3, 240)).cumsum(1).astype(np.float32))
    merge = MergeConfig(**options)
    feed = {
        "context": series.numpy(),
        "padding": np.zeros((3, 240), np.float32),
        "freq": np.zeros(3, np.int64),
    }
    with torch.no_grad():
        want, kepts = by_hand(series, options)
        with tsm.merging(WHOLE.model, merge) as run:
            eager = WHOLE.component.eager(WHOLE.model, {k: torch.from_numpy(v) for k, v in feed.items()})
            steps = run.steps
    assert [kept.shape[1] for kept in kepts] != [30, 30]
    for step, kept in zip(steps, kepts, strict=True):
        assert torch.equal(step.kept, kept)
    scale = float(want.abs().max())
    torch.testing.assert_close(eager["predictions"], want, rtol=1e-4, atol=1e-5 * scale)
    got = open_session(WHOLE.built(merge).merged, 1).run(None, feed)[0]
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=5e-5 * scale)
    plain = WHOLE.eager(feed)["predictions"]
    assert np.abs(plain - want.numpy()).max() > 1e-3 * scale


@pytest.mark.parametrize("merge", [MergeConfig(ratio="1/4"), MergeConfig(k=3, ratio="1/3", prop_attn=True)])
def test_late_starts_and_frequencies(merge: MergeConfig) -> None:
    session = open_session(WHOLE.built(merge).merged, 1)
    for seed, (batch, length) in enumerate([(4, 250), (3, 41), (2, 300)]):
        feed = WHOLE.component.example(WHOLE.model, batch, length, seed=seed)
        want = WHOLE.eager(feed, merge)["predictions"]
        got = session.run(None, feed)[0]
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=5e-5 * np.abs(want).max())
        other = session.run(None, {**feed, "freq": (feed["freq"] + 1) % 3})[0]
        assert np.abs(other - got).max() > 1e-3 * np.abs(want).max()


def test_values_marked_as_padding_count_as_padding() -> None:
    feed = WHOLE.component.example(WHOLE.model, 2, 100, seed=1)
    feed["context"][:, 40:45] = WHOLE.model.config.pad_val
    got = open_session(WHOLE.built(MergeConfig(ratio="1/4")).unmerged, 1).run(None, feed)[0]
    want = WHOLE.eager(feed)["predictions"]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=5e-5 * np.abs(want).max())


def test_forecast_is_that_of_the_original() -> None:
    series = np.random.default_rng(3).standard_normal((3, 250)).cumsum(1).astype(np.float32)
    session = open_session(WHOLE.built(MergeConfig(ratio="1/4")).unmerged, 1)
    family, model = WHOLE.family, WHOLE.model
    got = family.forecast(model, lambda feed: {"predictions": session.run(None, feed)[0]}, series)
    with torch.no_grad():
        want = model([torch.from_numpy(row) for row in series], freq=[0] * 3).full_predictions[..., 1:]
    assert got.shape == (3, 3, 16)
    np.testing.assert_allclose(got, want.numpy().transpose(0, 2, 1), rtol=1e-4, atol=1e-4 * np.abs(got).max())


def test_a_context_that_is_no_whole_number_of_patches_is_refused() -> None:
    config = {**TIMESFM, "context_length": 250}
    with pytest.raises(UsageError, match="patch_length"):
        families.detect(config).build(config)
