"""TimesFM 2.5: running statistics against the original's loop, parity, a forward by hand, forecasts, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import tsmerge_export as tsm
from tests.families.harness import CORPUS, NOTHING, OTHERS, Subject, describe
from tests.models import TIMESFM2_5, tiny_folder
from tsmerge_export import families
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.errors import UsageError
from tsmerge_export.families.timesfm2_5 import running_statistics
from tsmerge_export.forecast.history import filled
from tsmerge_export.merge import local_merge
from tsmerge_export.settings.config import MergeConfig

TIMESFM = Subject("timesfm-2.5")


@pytest.mark.parametrize("merge", [*CORPUS, *OTHERS], ids=describe)
def test_parity(merge: MergeConfig) -> None:
    TIMESFM.assert_parity(merge)


def test_parity_fails_for_another_setting() -> None:
    assert not TIMESFM.parity(MergeConfig(ratio="1/3"), of=MergeConfig(ratio="1/4")).passed


def test_dynamic_and_removable() -> None:
    TIMESFM.assert_dynamic_and_removable()


@pytest.mark.parametrize("merge", NOTHING, ids=describe)
def test_nothing_to_merge_is_bit_identical_to_the_unmerged_file(merge: MergeConfig) -> None:
    TIMESFM.assert_bit_identical(merge)


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_running_statistics_are_those_of_the_loop(offset: float) -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((4, 40, 8)).cumsum(1) + offset).double()
    valid = (torch.from_numpy(rng.random((4, 40, 8))) < 0.8).double()
    valid[0, :3] = 0  # nothing yet
    valid[1] = 0  # nothing ever
    x[2, :5] = 2.0  # no spread yet
    count, mean, std = (torch.zeros(4, dtype=torch.float64) for _ in range(3))
    means, stds = running_statistics(x, valid)
    for patch in range(40):
        count, mean, std = TIMESFM.model.model._update_running_stats(
            count, mean, std, x[:, patch], valid[:, patch] == 0
        )
        torch.testing.assert_close(means[:, patch], mean)
        torch.testing.assert_close(stds[:, patch], std, rtol=1e-7, atol=1e-7)
    # In float32 as well: sums of squares would cancel where the offset is large.
    got = running_statistics(x.float(), valid.float())[1].double()
    torch.testing.assert_close(got, stds, rtol=2e-3, atol=1e-4 * max(1.0, offset / 10))


def by_hand(series: Tensor, options: dict[str, Any]) -> tuple[Tensor, list[Tensor]]:
    """Predictions of whole series ``[B, n * patch]``, layer by layer; what survives each of them."""
    model, caught = TIMESFM.model, {}
    core = model.model
    take = core.layers[0].register_forward_pre_hook(
        lambda _m, args, kwargs: caught.update(kwargs, h=args[0]), with_kwargs=True
    )
    model(list(series), forecast_context_len=series.shape[1], force_flip_invariance=False)
    take.remove()
    h, (cos, sin) = caught["h"], caught["position_embeddings"]
    size, kepts = None, []
    rows = h.shape[0]
    cos, sin = (each.expand(rows, -1, -1) for each in (cos, sin))
    for layer in core.layers:
        causal = torch.full((h.shape[1], h.shape[1]), -torch.inf).triu(1)[None, None]
        update, _ = layer.self_attn(layer.input_layernorm(h), (cos, sin), causal)
        out = local_merge(
            h + layer.post_attention_layernorm(update), size=size, protect_last=1, min_tokens=4, **options
        )
        h, size = out.y, out.size
        cos, sin = (torch.take_along_dim(each, out.kept[..., None], 1) for each in (cos, sin))
        h = h + layer.post_feedforward_layernorm(layer.mlp(layer.pre_feedforward_layernorm(h)))
        kepts.append(out.kept)

    def put(_module: Any, _args: Any, output: Any) -> Any:
        output.last_hidden_state = h[:, -1:].expand_as(output.last_hidden_state)
        return output

    give = core.register_forward_hook(put)
    out = model(
        list(series),
        forecast_context_len=series.shape[1],
        force_flip_invariance=False,
        truncate_negative=False,
    )
    give.remove()
    return out.full_predictions, kepts


@pytest.mark.parametrize("options", [{"k": 1, "ratio": "1/4"}, {"k": 5, "ratio": "1/3"}])
def test_eager_and_exported_equal_a_forward_written_by_hand(options: dict[str, Any]) -> None:
    series = torch.from_numpy(np.random.default_rng(1).standard_normal((3, 240)).cumsum(1).astype(np.float32))
    merge = MergeConfig(**options)
    feed = {"context": series.numpy(), "padding": np.zeros((3, 240), np.float32)}
    with torch.no_grad():
        want, kepts = by_hand(series, options)
        with tsm.merging(TIMESFM.model, merge) as run:
            eager = TIMESFM.component.eager(TIMESFM.model, {k: torch.from_numpy(v) for k, v in feed.items()})
            steps = run.steps
    assert [kept.shape[1] for kept in kepts] != [30, 30]
    for step, kept in zip(steps, kepts, strict=True):
        assert torch.equal(step.kept, kept)
    scale = float(want.abs().max())
    torch.testing.assert_close(eager["predictions"], want, rtol=1e-4, atol=1e-5 * scale)
    got = open_session(TIMESFM.built(merge).merged, 1).run(None, feed)[0]
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=5e-5 * scale)
    plain = TIMESFM.eager(feed)["predictions"]
    assert np.abs(plain - want.numpy()).max() > 1e-3 * scale


@pytest.mark.parametrize("level", [0.0, 50.0])
def test_forecast_is_that_of_the_original(level: float) -> None:
    """Flip invariance and forecasts cut at 0, as the original does both; one series at a time, as it cuts by batch."""
    series = np.random.default_rng(3).standard_normal((1, 250)).cumsum(1).astype(np.float32)
    series = np.maximum(series + level, 0) if level else series
    session = open_session(TIMESFM.built(MergeConfig(ratio="1/4")).unmerged, 1)
    family, model = TIMESFM.family, TIMESFM.model
    got = family.forecast(model, lambda feed: {"predictions": session.run(None, feed)[0]}, series)
    with torch.no_grad():
        want = model([torch.from_numpy(series[0])], forecast_context_len=256).full_predictions[..., 1:]
    want = want.numpy().transpose(0, 2, 1)
    assert got.shape == (1, 3, 16)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


def test_missing_values() -> None:
    nan = np.nan
    series = np.array([[nan, nan, 1, nan, 3, nan], [nan] * 6, [5, nan, nan, 2, 1, 0]], np.float32)
    context, padding = filled(series)
    np.testing.assert_allclose(context, [[0, 0, 1, 2, 3, 3], [0] * 6, [5, 4, 3, 2, 1, 0]])
    np.testing.assert_array_equal(padding, [[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0], [0] * 6])
    assert np.isnan(series[0, 0])


@pytest.mark.parametrize(
    ("change", "says"), [({"context_length": 250}, "patch_length"), ({"decode_index": 1}, "decode_index")]
)
def test_configs_that_cannot_be_exported_are_refused(change: dict[str, Any], says: str) -> None:
    config = {**TIMESFM2_5, **change}
    with pytest.raises(UsageError, match=says):
        families.detect(config).build(config)


def test_checkpoints_name_some_weights_otherwise(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model", "timesfm-2.5", seed=3)
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert any(".ff0." in name for name in file.keys())  # noqa: SIM118 (it is no dict)
    loaded = tsm.load_model(folder).model.state_dict()
    for name, want in TIMESFM.model.state_dict().items():
        assert torch.equal(loaded[name], want), name
