"""Mamba-2 and Mamba merged between their blocks: against a forward by hand, parity, tokens and forecasts, refusals."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor

import tsmerge_export as tsm
from tests.exports import export_component
from tests.models import CONFIGS, tiny, tiny_folder
from tests.quick import quick_verdicts
from tsmerge_export import families
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.cli import main, main_export
from tsmerge_export.compile.build import merge_and_lower
from tsmerge_export.compile.onnx_export import eager_outputs, prove_dynamic
from tsmerge_export.eager.apply import current_run
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.families.base import Component
from tsmerge_export.merge import local_merge, ssm_merge, unmerge
from tsmerge_export.rewrite.blocks import find_blocks
from tsmerge_export.rewrite.merge_graph import merge_graph
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import parity
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.corpus import ENTRIES, Case

NAMES = ("mamba2", "mamba")
SETTINGS = [
    MergeConfig("ssm", ratio="1/4"),
    MergeConfig("ssm", r=5, prune_share=1, layers=(0, 2)),
    MergeConfig("ssm", ratio="1/3", metric="hidden", residual_prune_share=0),
    MergeConfig(ratio="1/4", metric="hidden"),
    MergeConfig("local", k=1, ratio="1/3", causal=True, similarity="l2"),
    MergeConfig("dynamic", threshold=0.2, k=2),
    MergeConfig("ssm", ratio="runtime:1/4"),
]
CASES = [
    Case(ENTRIES[i], batch, length, seed=5)
    for i, (batch, length) in enumerate([(1, 1), (2, 9), (3, 50), (1, 160)])
]


each_family = pytest.mark.parametrize("name", NAMES)


@cache
def model(name: str) -> Any:
    return tiny(name, seed=3).eval()


def component(name: str) -> Component:
    return families.get(name).components(model(name))[0]


@cache
def plain(name: str) -> ir.Model:
    return export_component(component(name), model(name))


@cache
def built(name: str, merge: MergeConfig) -> Built:
    folder = Path(tempfile.mkdtemp())
    return merge_and_lower(component(name), plain(name), merge, inline=False, folder=folder, scratch=folder)


def ids(batch: int, length: int) -> Tensor:
    return torch.randint(0, 64, (batch, length), generator=torch.Generator().manual_seed(length))


def by_hand(name: str, tokens: Tensor, merge: Any, **options: Any) -> Tensor:
    """Logits ``[B, L, V]`` with merging after every block."""
    backbone = model(name).backbone
    h, size, targets = backbone.embeddings(tokens), None, []
    for block in backbone.layers:
        out = merge(h, block, size=size, protect_last=1, **options)
        h, size = out.y, out.size
        targets.append(out.target)
    h = backbone.norm_f(h)
    for target in reversed(targets):
        h = unmerge(h, target)
    logits: Tensor = model(name).lm_head(h)
    return logits


def by_x(merge: Any) -> Any:
    return lambda h, block, **options: merge(block(h), **options)


def in_branches(h: Tensor, block: Any, **options: Any) -> Any:
    """Hidden states and residual reduced by a call each, along the links of the hidden states."""
    hidden = block.mixer(block.norm(h))
    share, of_residual = options.pop("shares")
    first = ssm_merge(hidden, hidden, prune_share=share, **options)
    second = ssm_merge(h, hidden, prune_share=of_residual, **options)
    assert torch.equal(first.target, second.target)
    return first._replace(y=first.y + second.y)


@pytest.mark.parametrize(
    ("config", "merge", "options"),
    [
        (SETTINGS[0], by_x(ssm_merge), {"ratio": "1/4", "min_tokens": 4}),
        (MergeConfig(k=2, ratio="1/3"), by_x(local_merge), {"k": 2, "ratio": "1/3", "min_tokens": 4}),
        (SETTINGS[2], in_branches, {"ratio": "1/3", "min_tokens": 4, "shares": ("1/2", 0)}),
    ],
    ids=["ssm", "local", "branches"],
)
@each_family
def test_eager_and_exported_equal_a_forward_written_by_hand(
    name: str, config: MergeConfig, merge: Any, options: Any
) -> None:
    session = open_session(built(name, config).merged, 1)
    for batch, length in ((1, 3), (2, 17), (3, 40), (1, 64)):
        tokens = ids(batch, length)
        with torch.no_grad():
            want = by_hand(name, tokens, merge, **options)
            with tsm.merging(model(name), config):
                eager = model(name)(input_ids=tokens, use_cache=False).logits
        torch.testing.assert_close(eager, want, rtol=1e-4, atol=1e-6)
        got = session.run(None, {"input_ids": tokens.numpy()})[0]
        assert got.shape == (batch, length, 64)
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=2e-5 * float(want.abs().max()))


@pytest.mark.parametrize("merge", SETTINGS, ids=lambda merge: merge.describe())
@each_family
def test_parity(name: str, merge: MergeConfig) -> None:
    files = built(name, merge)
    report = check(name, merge, files, CASES)
    assert report.failures == []
    assert report.passed
    assert files.report.barriers == []
    assert len(files.report.merges) == (2 if merge.layers else 3)


def check(name: str, merge: MergeConfig, files: Built, cases: list[Case]) -> parity.Report:
    return parity.check(
        families.get(name), component(name), model(name), merge, files.merged, Checks(cases=cases, threads=1)
    )


@pytest.mark.parametrize(
    ("number", "other"),
    [
        (0, {"prune_share": 0}),
        (2, {"residual_prune_share": 1}),
        (2, {"residual_prune_share": None}),
        (2, {"prune_share": 0}),
    ],
)
def test_parity_fails_for_another_setting(number: int, other: dict[str, Any]) -> None:
    merge = replace(SETTINGS[number], **other)
    assert not check("mamba2", merge, built("mamba2", SETTINGS[number]), CASES[2:]).passed


@each_family
def test_the_plain_export_is_dynamic_and_nothing_to_merge_is_bit_identical(name: str) -> None:
    prove_dynamic(component(name), model(name), plain(name))
    files = built(
        name, MergeConfig("ssm", ratio="1/2", min_tokens=1000, metric="hidden", residual_prune_share=0)
    )
    unmerged, merged = (open_session(file, 1) for file in (files.unmerged, files.merged))
    for batch, length in ((1, 5), (2, 33)):
        feed = {"input_ids": ids(batch, length).numpy()}
        assert unmerged.run(None, feed)[0].tobytes() == merged.run(None, feed)[0].tobytes()


@each_family
def test_points_are_the_residual_adds_and_blocks_behind_a_merge_see_fewer_tokens(name: str) -> None:
    points = find_blocks(plain(name).graph)
    assert [list(point.value.shape or ())[2] for point in points] == [32, 32, 32]
    merged, report = merge_graph(plain(name).clone(), MergeConfig("ssm", ratio="1/2"), protect_last=1)
    convs = [node for node in merged.graph if node.op_type == "Conv"]
    symbols = [str(list(node.inputs[0].shape or ())[2]) for node in convs]  # type: ignore[union-attr]
    assert symbols == ["length", "tokens_after_layer_0", "tokens_after_layer_1"]
    assert [entry.after for entry in report.merges] == [f"tokens_after_layer_{layer}" for layer in range(3)]


@each_family
def test_gradients_flow_and_removing_restores_bit_for_bit(name: str) -> None:
    twin: Any = tiny(name, seed=3).train()
    tokens = ids(2, 31)
    with torch.no_grad():
        before = twin(input_ids=tokens, use_cache=False).logits
    tsm.apply(twin, MergeConfig("ssm", ratio="1/4", metric="hidden", residual_prune_share=0))
    twin(input_ids=tokens, use_cache=False).logits.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in twin.backbone.layers.parameters())
    tsm.remove(twin)
    with torch.no_grad():
        assert torch.equal(twin(input_ids=tokens, use_cache=False).logits, before)


@each_family
def test_a_padding_mask_follows_the_merge_in_the_eager_model(name: str) -> None:
    tokens, mask = ids(2, 24), torch.ones(2, 24, dtype=torch.int64)
    mask[0, :9] = 0
    with torch.no_grad(), tsm.merging(model(name), MergeConfig("ssm", ratio="1/4")) as run:
        model(name)(input_ids=tokens, attention_mask=mask, use_cache=False)
        assert [step.removed for step in run.steps] == [6, 4, 3]
        assert run.steps[-1].size.sum().item() == mask.sum().item()


@pytest.mark.parametrize(
    ("merge", "words"),
    [
        (MergeConfig(metric="key"), "--metric key"),
        (MergeConfig("ssm", prop_attn=True), "--prop-attn needs attention"),
    ],
)
@each_family
def test_what_needs_attention_is_refused(name: str, merge: MergeConfig, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        merge_graph(plain(name).clone(), merge)
    tsm.apply(model(name), MergeConfig(ratio="1/4"))
    run = current_run(model(name))
    try:
        with pytest.raises(UnsupportedError, match=words):
            tsm.apply(model(name), merge)(input_ids=ids(1, 9), use_cache=False)
        assert merge.metric == "key" or current_run(model(name)) is run
    finally:
        tsm.remove(model(name))


def test_the_config_survives_json_with_its_infinite_limit() -> None:
    config = json.loads(json.dumps(families.get("mamba2").config_of(model("mamba2")), allow_nan=False))
    twin: Any = families.get("mamba2").build(config)
    assert list(twin.config.time_step_limit) == [0.0, float("inf")]
    assert twin.state_dict().keys() == model("mamba2").state_dict().keys()


def test_series_become_tokens_and_logits_quantiles() -> None:
    series = np.array([[np.nan, 2.0, np.nan, -4.0], [0, 0, 0, 0], [1e30, np.nan, np.nan, 1e30]], np.float32)
    tokens = component("mamba2").from_series(model("mamba2"), series)["input_ids"]
    width = 16 / 63  # 64 bins from -8 to 8
    scale = 3.0  # of the first row
    expected = np.rint((np.array([0, 2 / scale, 2 / scale, -4 / scale]) + 8) / width)
    assert tokens[0].tolist() == expected.tolist()
    assert tokens[1].tolist() == [round(8 / width)] * 4
    assert tokens[2].tolist() == [round(9 / width)] * 4

    def run(feed: dict[str, Any]) -> dict[str, Any]:
        logits = np.full((3, 4, 64), -1e9, np.float32)
        logits[:, -1, 10], logits[:, -1, 40] = np.log(0.35), np.log(0.65)
        return {"logits": logits}

    found = families.get("mamba2").forecast(model("mamba2"), run, series)
    assert found.shape == (3, 9, 1)
    low, high = -8 + 10 * width, -8 + 40 * width
    np.testing.assert_allclose(found[0, :, 0], scale * np.array([low] * 3 + [high] * 6), rtol=1e-5)


@each_family
def test_a_folder_is_loaded_as_its_family(name: str, tmp_path: Path) -> None:
    loaded = tsm.load_model(tiny_folder(tmp_path / "tiny", name, seed=3))
    assert loaded.family == name
    with torch.no_grad():
        got, want = (m(input_ids=ids(1, 9), use_cache=False).logits for m in (loaded.model, model(name)))  # type: ignore[operator]
    assert torch.equal(got, want)


def test_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quick_verdicts(monkeypatch)
    tiny_folder(Path("tiny"), "mamba", seed=3)
    np.savetxt("series.csv", np.sin(np.arange(500) / 4), header="a", comments="")
    flags = ["--threads", "1", "--data", "series.csv"]
    apart = ["--merge", "ssm", "--ratio", "1/4", "--prune-share", "1/2", "--residual-prune-share", "0"]
    assert main_export(["tiny", *apart, "--metric", "hidden", *flags]) == 0
    out = capsys.readouterr().out
    assert "mamba: ssm ratio=1/4 prune-share=1/2 residual-prune-share=0" in out
    assert "metric=hidden" in out
    assert "passed" in out
    assert main(["inspect", "tiny-ssm"]) == 0
    assert "prune share 1/2, of the residual 0/1" in capsys.readouterr().out
    assert main_export(["tiny", *apart, "-o", "other", *flags]) == 2
    assert "--residual-prune-share needs --metric hidden" in capsys.readouterr().err
    assert main_export(["tiny", "--metric", "key", "-o", "other", *flags]) == 3
    error = capsys.readouterr().err
    assert "attention" in error
    assert len(error.strip().splitlines()) == 1
    assert not Path("other").exists()


@pytest.mark.parametrize("name", ["mamba2", pytest.param("patch-mamba", marks=pytest.mark.slow)])
def test_chunks_longer_than_the_trace(name: str) -> None:
    """The exporter must not take one chunk for all; nor leave out the padding where chunks are whole."""
    config = json.loads(json.dumps(CONFIGS[name]))
    (config if name == "mamba2" else config["backbone"]).update(chunk_size=256, num_hidden_layers=1)
    model: Any = tiny(name, 0, config)
    component = families.get(name).components(model)[0]
    exported = export_component(component, model)
    session = open_session(ir.serde.serialize_model(exported), 1)
    patch = getattr(model.config, "patch_length", 1)
    rng = np.random.default_rng(0)
    for tokens in (1, 255, 256, 257, 512, 700):
        shape = (2, tokens * patch)
        ids = rng.integers(0, 64, shape) if name == "mamba2" else rng.standard_normal(shape, np.float32)
        inputs = {component.inputs[0].name: ids}
        want = eager_outputs(component, model, inputs)[component.outputs[0].name]
        got = session.run(None, inputs)[0]
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=5e-5 * np.abs(want).max())
