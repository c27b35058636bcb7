"""Chronos-2: groups as the batch against the original's flat batch, one decision per group, parity, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

import tsmerge_export as tsm
from tests.families.harness import CORPUS, NOTHING, OTHERS, Subject, describe
from tests.forecast import upstream
from tests.models import CHRONOS2, tiny
from tsmerge_export import families
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.checkpoint import load_model
from tsmerge_export.checkpoint.model_folder import write_model_folder
from tsmerge_export.eager.apply import current_run
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.merge import local_merge, unmerge
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify.decisions import tap

CHRONOS_2 = Subject("chronos-2")
SOME = [MergeConfig(ratio="1/4"), *OTHERS[:3], MergeConfig(method="global", ratio="1/2")]


@pytest.mark.parametrize("merge", [*CORPUS, *OTHERS], ids=describe)
def test_parity(merge: MergeConfig) -> None:
    CHRONOS_2.assert_parity(merge)


def test_parity_fails_for_another_setting() -> None:
    assert not CHRONOS_2.parity(MergeConfig(ratio="1/3"), of=MergeConfig(ratio="1/4")).passed


def test_dynamic_and_removable() -> None:
    CHRONOS_2.assert_dynamic_and_removable()


@pytest.mark.parametrize("merge", NOTHING, ids=describe)
def test_nothing_to_merge_is_bit_identical_to_the_unmerged_file(merge: MergeConfig) -> None:
    CHRONOS_2.assert_bit_identical(merge)


@pytest.mark.parametrize("merge", SOME, ids=describe)
def test_groups_of_several_series_with_known_futures(merge: MergeConfig) -> None:
    """Ragged groups, late starts, covariates, one to three patches of horizon: file against the original."""
    session = open_session(CHRONOS_2.built(merge).merged, 1)
    for seed, (batch, length) in enumerate([(1, 300), (4, 250), (3, 41), (2, 256), (5, 120)]):
        feed = CHRONOS_2.component.example(CHRONOS_2.model, batch, length, seed=seed)
        want = CHRONOS_2.eager(feed, merge)["quantiles"]
        got = session.run(None, feed)[0]
        assert got.shape == (batch, feed["context"].shape[1], 3, feed["future"].shape[2], 8)
        tolerance: dict[str, float] = {"rtol": 1e-4, "atol": 5e-5 * float(np.abs(want).max())}
        np.testing.assert_allclose(got, want, **tolerance)
        if length > 200:  # and the model without merging is told apart
            assert not np.allclose(got, CHRONOS_2.eager(feed)["quantiles"], **tolerance)


def by_hand(series: Tensor, options: dict[str, Any], future: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Quantiles ``[R, Q, P * patch]`` of one group without padding, block by block; ``kept`` of every block."""
    model = CHRONOS_2.model
    patches = future.shape[1] // 8
    caught: dict[str, Tensor] = {}
    hook = model.encoder.register_forward_pre_hook(
        lambda _m, _a, kwargs: caught.update(kwargs), with_kwargs=True
    )
    with tsm.merging(model, MergeConfig(method="none")):
        model(
            context=series,
            future_covariates=future,
            num_output_patches=patches,
            group_ids=torch.zeros(len(series)),
        )
    hook.remove()
    h = caught["inputs_embeds"]
    rows, tokens, width = h.shape
    positions, size, targets, kepts = torch.arange(tokens)[None], None, [], []
    for block in model.encoder.block:
        h = block.layer[0](h, attention_mask=torch.zeros(1, 1, 1, 1), position_ids=positions)[0]
        joined = torch.cat(list(h), dim=-1)[None]  # [1, N, R * D]
        front, apart = joined[:, : -1 - patches], joined[:, -1 - patches :]
        out = local_merge(front, size=size, min_tokens=4, **options)
        size = out.size
        positions = torch.cat(
            [positions[:, : -1 - patches].gather(1, out.kept), positions[:, -1 - patches :]], 1
        )
        targets.append(torch.cat([out.target, out.kept.shape[1] + torch.arange(1 + patches)[None]], 1))
        kepts.append(out.kept)
        h = torch.stack(torch.cat([out.y, apart], 1)[0].split(width, dim=-1))
        h = block.layer[1](h, attention_mask=torch.zeros(1, 1, 1, 1))[0]
        h = block.layer[2](h)
    h = model.encoder.final_layer_norm(h)
    for target in reversed(targets):
        h = unmerge(h, target.expand(rows, -1))
    out = model.output_patch_embedding(h[:, -patches:]).unflatten(-1, (3, 8)).transpose(1, 2).flatten(2)
    _, loc_scale = model.instance_norm(series)
    scaled: Tensor = model.instance_norm.inverse(out.flatten(1), loc_scale).unflatten(1, out.shape[1:])
    return scaled, kepts


@pytest.mark.parametrize("options", [{"k": 1, "ratio": "1/4"}, {"k": 5, "ratio": "1/3"}])
def test_eager_and_exported_equal_a_forward_written_by_hand(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(4)
    context = rng.standard_normal((2, 3, 200)).cumsum(-1).astype(np.float32)
    future = np.full((2, 3, 2, 8), np.nan, np.float32)
    future[:, 2] = rng.standard_normal((2, 2, 8))
    feed = {"context": context, "future": future, "series_mask": np.ones((2, 3), np.float32)}
    merge = MergeConfig(**options)
    got = open_session(CHRONOS_2.built(merge).merged, 1).run(None, feed)[0]
    with torch.no_grad(), tsm.merging(CHRONOS_2.model, merge) as run:
        eager = CHRONOS_2.component.eager(CHRONOS_2.model, {k: torch.from_numpy(v) for k, v in feed.items()})
        steps = run.steps
    for group in range(2):
        with torch.no_grad():
            want, kepts = by_hand(
                torch.from_numpy(context[group]), options, torch.from_numpy(future[group]).flatten(1)
            )
        for step, kept in zip(steps, kepts, strict=True):
            assert torch.equal(step.kept[group], kept[0])
            assert kept.shape[1] < 25
        scale = float(want.abs().max())
        np.testing.assert_allclose(
            eager["quantiles"][group].flatten(2).numpy(), want.numpy(), rtol=1e-4, atol=1e-5 * scale
        )
        np.testing.assert_allclose(got[group].reshape(3, 3, 16), want.numpy(), rtol=1e-4, atol=5e-5 * scale)


def test_a_forecast_does_not_depend_on_the_groups_beside_it() -> None:
    session = open_session(CHRONOS_2.built(MergeConfig(ratio="1/4")).merged, 1)
    feed = CHRONOS_2.component.example(CHRONOS_2.model, 4, 250, seed=7)
    whole = session.run(None, feed)[0]
    for group in range(4):
        series = int(feed["series_mask"][group].sum())
        alone = {name: value[group : group + 1, :series] for name, value in feed.items()}
        np.testing.assert_allclose(
            session.run(None, alone)[0][0],
            whole[group, :series],
            rtol=1e-4,
            atol=1e-4 * np.abs(whole[group]).max(),
        )
        assert not whole[group, series:].any()


def test_series_of_a_group_inform_each_other_and_share_the_decision() -> None:
    """In one group they keep the same tokens, whatever the order of a flat batch; apart, each decides for itself."""
    model = CHRONOS_2.model
    series = torch.from_numpy(np.random.default_rng(2).standard_normal((4, 250)).cumsum(1).astype(np.float32))
    merge = MergeConfig(ratio="1/4")
    with torch.no_grad(), tsm.merging(model, merge) as run:
        mixed = model(context=series, group_ids=torch.tensor([5, 2, 5, 2])).quantile_preds
        together = [step.kept for step in run.steps]
        order = [1, 3, 0, 2]
        sorted_ = model(context=series[order], group_ids=torch.tensor([0, 0, 9, 9])).quantile_preds
        apart = model(context=series).quantile_preds
        alone = [step.kept for step in run.steps]
    torch.testing.assert_close(mixed[order], sorted_)
    assert [kept.shape[0] for kept in (*together, *alone)] == [2, 2, 4, 4]
    assert not torch.allclose(mixed, apart, rtol=1e-2)
    assert current_run(model) is None


@pytest.mark.parametrize("horizon", [1, 3])
def test_the_context_merges_by_its_own_count(horizon: int) -> None:
    """A quarter of it, whatever the horizon: REG and the horizon stand apart, in the file as in the original."""
    feed = CHRONOS_2.component.from_series(CHRONOS_2.model, upstream.walks(2, 160, seed=3))
    feed["future"] = feed["future"][:, :, :horizon]
    merge = MergeConfig(ratio="1/4")
    with torch.no_grad(), tsm.merging(CHRONOS_2.model, merge) as run:
        CHRONOS_2.component.eager(CHRONOS_2.model, {name: torch.from_numpy(v) for name, v in feed.items()})
        assert [step.target.shape[1] for step in run.steps] == [20, 15]
        assert [step.removed for step in run.steps] == [5, 3]
        want = [step.kept.numpy() for step in run.steps]
    proto = onnx.load(CHRONOS_2.built(merge).merged)
    taps = tap(proto)
    kept = open_session(proto, 1).run([one.kept for one in taps], feed)
    for one, other in zip(kept, want, strict=True):
        np.testing.assert_array_equal(one, other)
    with torch.no_grad(), tsm.merging(CHRONOS_2.model, MergeConfig(r=100, min_tokens=1)) as run:
        CHRONOS_2.component.eager(CHRONOS_2.model, {name: torch.from_numpy(v) for name, v in feed.items()})
        assert [step.removed for step in run.steps] == [10, 5]


def test_forecast_is_that_of_the_original() -> None:
    series = np.random.default_rng(0).standard_normal((3, 100)).cumsum(1).astype(np.float32)
    session = open_session(CHRONOS_2.built(MergeConfig(ratio="1/4")).unmerged, 1)
    names = [value.name for value in session.get_outputs()]
    family, model = CHRONOS_2.family, CHRONOS_2.model
    got = family.forecast(model, lambda feed: dict(zip(names, session.run(None, feed), strict=True)), series)
    with torch.no_grad():
        want = model(context=torch.from_numpy(series), num_output_patches=3).quantile_preds.numpy()
    assert got.shape == (3, 3, 24)
    assert family.horizon(model) == 24
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"use_reg_token": False}, "use_reg_token"),
        ({"input_patch_stride": 4}, "input_patch_stride"),
        ({"quantiles": [0.9, 0.1, 0.5]}, "chronos_config.quantiles are no ascending levels"),
        ({"time_encoding_scale": 0}, "chronos_config.time_encoding_scale is 0, not a number above 0"),
        ({"max_output_patches": -1}, "chronos_config.max_output_patches is -1, not a whole number above 0"),
    ],
)
def test_configs_that_no_chronos_2_has_are_refused(change: dict[str, Any], says: str) -> None:
    config = {**CHRONOS2, "chronos_config": {**CHRONOS2["chronos_config"], **change}}
    with pytest.raises(UsageError, match=says):
        families.detect(config).build(config)


def test_a_chronos_config_that_is_no_object_is_refused() -> None:
    with pytest.raises(UsageError, match="chronos_config is a list, not an object"):
        families.detect(CHRONOS2).build({**CHRONOS2, "chronos_config": [1]})


@pytest.mark.parametrize(
    ("rope", "says"),
    [
        ([1], "rope_parameters is a list; only an object"),
        ({"rope_type": "linear", "factor": 2.0}, "rope_parameters has rope_type 'linear'; only 'default'"),
        ({"rope_theta": -1.0}, "rope_parameters has rope_theta -1.0, not a number above 0"),
        ({"rope_theta": 10.0, "partial_rotary_factor": 0.5}, "rope_parameters has 'partial_rotary_factor'"),
    ],
)
def test_rotary_positions_of_other_kinds_are_refused(rope: Any, says: str) -> None:
    config = {**native(CHRONOS2, True), "rope_parameters": rope}
    with pytest.raises(UnsupportedError, match=says):
        families.detect(config).build(config)


def native(config: dict[str, Any], nested: bool) -> dict[str, Any]:
    """The other spelling of a config: a model type of its own, the rotary base in a dict, forecast keys not nested."""
    out = {
        **config,
        "model_type": "chronos2",
        "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"},
    }
    del out["rope_theta"]
    return (
        out
        if nested
        else {**{k: v for k, v in out.items() if k != "chronos_config"}, **out["chronos_config"]}
    )


@pytest.mark.parametrize("nested", [True, False])
def test_both_spellings_of_a_config_are_one_model(nested: bool, tmp_path: Path) -> None:
    """The same weights forecast the same, and what is read may be written and read again."""
    legacy = {**CHRONOS2, "model_type": "t5", "rope_theta": 500.0}
    model = tiny("chronos-2", 3, legacy)
    write_model_folder(model, native(legacy, nested), tmp_path)
    other = json.loads((tmp_path / "config.json").read_text())
    assert other["model_type"] == "chronos2" and ("chronos_config" in other) is nested
    loaded = load_model(tmp_path)
    assert loaded.family == "chronos-2"
    series = torch.from_numpy(np.nan_to_num(upstream.walks(2, 90)))
    with torch.no_grad():
        want, got, plain = (
            one(context=series, num_output_patches=2).quantile_preds
            for one in (model, loaded.model, CHRONOS_2.model)
        )
    assert torch.equal(got, want)
    assert not torch.allclose(plain, want)  # the rotary base counts
    assert families.detect({**other, "architectures": None}).name == "chronos-2"
    assert families.detect(CHRONOS_2.family.config_of(loaded.model)).name == "chronos-2"
