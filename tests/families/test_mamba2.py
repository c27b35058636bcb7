"""Mamba-2 merged between its blocks: against a forward by hand, parity of the tool, tokens and forecasts, refusals."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import tsmerge_export as tsm
from tests.models import tiny, tiny_folder
from tsmerge_export import families
from tsmerge_export.build import Built, merge_and_lower
from tsmerge_export.cli import main_export
from tsmerge_export.config import MergeConfig
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.merge import local_merge, ssm_merge, unmerge
from tsmerge_export.merge.apply import current_run
from tsmerge_export.onnx_export import export_component, prove_dynamic
from tsmerge_export.rewrite.blocks import find_blocks
from tsmerge_export.rewrite.merge_graph import merge_graph
from tsmerge_export.validate import corpus, parity
from tsmerge_export.validate.corpus import ENTRIES, Case

FAMILY = families.get("mamba2")
SETTINGS = [
    MergeConfig("ssm", ratio="1/4"),
    MergeConfig("ssm", r=5, prune_share=1, layers=(0, 2)),
    MergeConfig("local", k=1, ratio="1/3", causal=True, similarity="l2"),
    MergeConfig("dynamic", threshold=0.2, k=2),
]
CASES = [
    Case(ENTRIES[i], batch, length, seed=5)
    for i, (batch, length) in enumerate([(1, 1), (2, 9), (3, 50), (1, 160)])
]


@cache
def model() -> Any:
    return tiny("mamba2", seed=3).eval()


@cache
def plain() -> ir.Model:
    return export_component(FAMILY.components(model())[0], model())


@cache
def built(merge: MergeConfig) -> Built:
    folder = Path(tempfile.mkdtemp())
    component = FAMILY.components(model())[0]
    return merge_and_lower(component, plain(), merge, inline=False, folder=folder, scratch=folder)


def ids(batch: int, length: int) -> Tensor:
    return torch.randint(0, 64, (batch, length), generator=torch.Generator().manual_seed(length))


def by_hand(tokens: Tensor, merge: Any, **options: Any) -> Tensor:
    """Logits ``[B, L, V]`` with merging after every block."""
    h, size, targets = model().backbone.embeddings(tokens), None, []
    for block in model().backbone.layers:
        out = merge(block(h), size=size, protect_last=1, **options)
        h, size = out.y, out.size
        targets.append(out.target)
    h = model().backbone.norm_f(h)
    for target in reversed(targets):
        h = unmerge(h, target)
    logits: Tensor = model().lm_head(h)
    return logits


@pytest.mark.parametrize(
    ("config", "merge", "options"),
    [
        (SETTINGS[0], ssm_merge, {"ratio": "1/4", "min_tokens": 4}),
        (MergeConfig(k=2, ratio="1/3"), local_merge, {"k": 2, "ratio": "1/3", "min_tokens": 4}),
    ],
)
def test_eager_and_exported_equal_a_forward_written_by_hand(
    config: MergeConfig, merge: Any, options: Any
) -> None:
    session = ort.InferenceSession(str(built(config).merged))
    for batch, length in ((1, 3), (2, 17), (3, 40), (1, 64)):
        tokens = ids(batch, length)
        with torch.no_grad():
            want = by_hand(tokens, merge, **options)
            with tsm.merging(model(), config):
                eager = model()(input_ids=tokens, use_cache=False).logits
        torch.testing.assert_close(eager, want, rtol=1e-4, atol=1e-6)
        got = session.run(None, {"input_ids": tokens.numpy()})[0]
        assert got.shape == (batch, length, 64)
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=2e-5 * float(want.abs().max()))


@pytest.mark.parametrize("merge", SETTINGS, ids=lambda merge: merge.describe())
def test_parity(merge: MergeConfig) -> None:
    component = FAMILY.components(model())[0]
    report = parity.check(FAMILY, component, model(), merge, built(merge).merged, cases=CASES, threads=1)
    assert report.failures == []
    assert report.passed
    assert built(merge).report.barriers == []
    assert len(built(merge).report.merges) == (2 if merge.layers else 3)


def test_parity_fails_for_another_setting() -> None:
    component = FAMILY.components(model())[0]
    other = MergeConfig("ssm", ratio="1/4", prune_share=0)
    report = parity.check(
        FAMILY, component, model(), other, built(SETTINGS[0]).merged, cases=CASES[2:], threads=1
    )
    assert not report.passed


def test_the_plain_export_is_dynamic_and_nothing_to_merge_is_bit_identical() -> None:
    prove_dynamic(FAMILY.components(model())[0], model(), plain())
    files = built(MergeConfig("ssm", ratio="1/2", min_tokens=1000))
    unmerged, merged = (ort.InferenceSession(str(file)) for file in (files.unmerged, files.merged))
    for batch, length in ((1, 5), (2, 33)):
        feed = {"input_ids": ids(batch, length).numpy()}
        assert unmerged.run(None, feed)[0].tobytes() == merged.run(None, feed)[0].tobytes()


def test_points_are_the_residual_adds_and_blocks_behind_a_merge_see_fewer_tokens() -> None:
    points = find_blocks(plain().graph)
    assert [list(point.value.shape or ())[2] for point in points] == [32, 32, 32]
    merged, report = merge_graph(plain().clone(), MergeConfig("ssm", ratio="1/2"), protect_last=1)
    convs = [node for node in merged.graph if node.op_type == "Conv"]
    symbols = [str(list(node.inputs[0].shape or ())[2]) for node in convs]  # type: ignore[union-attr]
    assert symbols == ["length", "tokens_after_layer_0", "tokens_after_layer_1"]
    assert [entry.after for entry in report.merges] == [f"tokens_after_layer_{layer}" for layer in range(3)]


def test_gradients_flow_and_removing_restores_bit_for_bit() -> None:
    twin: Any = tiny("mamba2", seed=3).train()
    tokens = ids(2, 31)
    with torch.no_grad():
        before = twin(input_ids=tokens, use_cache=False).logits
    tsm.apply(twin, MergeConfig("ssm", ratio="1/4"))
    twin(input_ids=tokens, use_cache=False).logits.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in twin.backbone.layers.parameters())
    tsm.remove(twin)
    with torch.no_grad():
        assert torch.equal(twin(input_ids=tokens, use_cache=False).logits, before)


def test_a_padding_mask_follows_the_merge_in_the_eager_model() -> None:
    tokens, mask = ids(2, 24), torch.ones(2, 24, dtype=torch.int64)
    mask[0, :9] = 0
    with torch.no_grad(), tsm.merging(model(), MergeConfig("ssm", ratio="1/4")) as run:
        model()(input_ids=tokens, attention_mask=mask, use_cache=False)
        assert [step.removed for step in run.steps] == [6, 4, 3]
        assert run.steps[-1].size.sum().item() == mask.sum().item()


@pytest.mark.parametrize(
    ("merge", "words"),
    [
        (MergeConfig(metric="key"), "--metric key"),
        (MergeConfig("ssm", prop_attn=True), "--prop-attn needs attention"),
    ],
)
def test_what_needs_attention_is_refused(merge: MergeConfig, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        merge_graph(plain().clone(), merge)
    tsm.apply(model(), MergeConfig(ratio="1/4"))
    run = current_run(model())
    try:
        with pytest.raises(UnsupportedError, match=words):
            tsm.apply(model(), merge)(input_ids=ids(1, 9), use_cache=False)
        assert merge.metric == "key" or current_run(model()) is run
    finally:
        tsm.remove(model())


class _Skip(nn.Module):
    """Two blocks by depthwise convolution, of which the second also sees the input of the first."""

    def __init__(self, skip: bool) -> None:
        super().__init__()
        self.skip = skip
        self.mix = nn.ModuleList(nn.Conv1d(6, 6, 3, padding=1, groups=6) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for number, mix in enumerate(self.mix):
            inner = torch.tanh(h + x) if self.skip and number else torch.tanh(h)
            h = h + mix(inner.transpose(1, 2)).transpose(1, 2)
        return h


@pytest.mark.parametrize("skip", [False, True])
def test_a_value_that_goes_round_the_merge_is_refused(skip: bool) -> None:
    module, x = _Skip(skip).eval(), torch.randn(2, 11, 6)
    dynamic = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    with torch.no_grad():
        exported = torch.export.export(module, (x,), dynamic_shapes=dynamic, strict=False)
        graph = torch.onnx.export(
            exported, dynamo=True, opset_version=18, verbose=False, output_names=["y"]
        ).model  # type: ignore[union-attr]
    assert len(find_blocks(graph.graph)) == 2
    if skip:
        with pytest.raises(UnsupportedError, match="one entry per token and does not pass the merge"):
            merge_graph(graph, MergeConfig("ssm"))
    else:
        assert len(merge_graph(graph, MergeConfig("ssm"))[1].merges) == 2


def test_the_config_survives_json_with_its_infinite_limit() -> None:
    config = json.loads(json.dumps(FAMILY.config_of(model()), allow_nan=False))
    twin: Any = FAMILY.build(config)
    assert list(twin.config.time_step_limit) == [0.0, float("inf")]
    assert twin.state_dict().keys() == model().state_dict().keys()


def test_series_become_tokens_and_logits_quantiles() -> None:
    component = FAMILY.components(model())[0]
    series = np.array([[np.nan, 2.0, np.nan, -4.0], [0, 0, 0, 0], [1e30, np.nan, np.nan, 1e30]], np.float32)
    tokens = component.from_series(model(), series)["input_ids"]
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

    found = FAMILY.forecast(model(), run, series)
    assert found.shape == (3, 9, 1)
    low, high = -8 + 10 * width, -8 + 40 * width
    np.testing.assert_allclose(found[0, :, 0], scale * np.array([low] * 3 + [high] * 6), rtol=1e-5)


def test_a_folder_is_loaded_as_this_family(tmp_path: Path) -> None:
    loaded = tsm.load_model(tiny_folder(tmp_path / "tiny", "mamba2", seed=3))
    assert loaded.family == "mamba2"
    with torch.no_grad():
        got, want = (m(input_ids=ids(1, 9), use_cache=False).logits for m in (loaded.model, model()))  # type: ignore[operator]
    assert torch.equal(got, want)


def test_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = corpus.cases
    monkeypatch.setattr(corpus, "cases", lambda *args, **kwargs: list(whole(*args, **kwargs))[::20])
    tiny_folder(Path("tiny"), "mamba2", seed=3)
    np.savetxt("series.csv", np.sin(np.arange(500) / 4), header="a", comments="")
    flags = ["--threads", "1", "--data", "series.csv"]
    assert main_export(["tiny", "--merge", "ssm", "--ratio", "1/4", *flags]) == 0
    out = capsys.readouterr().out
    assert "mamba2: ssm ratio=1/4 prune-share=1/2" in out
    assert "passed" in out
    assert main_export(["tiny", "--metric", "key", "-o", "other", *flags]) == 3
    error = capsys.readouterr().err
    assert "attention" in error
    assert len(error.strip().splitlines()) == 1
    assert not Path("other").exists()
