"""Parity of the decoder: it passes for what was exported, and fails for what was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from tests import artefacts
from tests.forecast import upstream
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.compile.onnx_export import prove_dynamic
from tsmerge_export.eager.apply import merging
from tsmerge_export.rewrite.insert import RewriteReport
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import generation, parity
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.corpus import ENTRIES, Case
from tsmerge_export.verify.decisions import near_tie
from tsmerge_export.verify.parity import ParityReport
from tsmerge_export.verify.tolerances import SCORE_NOISE

NAME = "t5-tiny"
MERGE = MergeConfig(ratio="1/4", prop_attn=True)
CASES = [
    Case(entry, 2, length, 3)
    for entry, length in zip(ENTRIES, (1, 5, 40, 97, 128, 150, 64, 33, 7, 9), strict=True)
]


def built(merge: MergeConfig) -> list[Built]:
    folder = artefacts.bundle(NAME, merge)
    components = artefacts.family(NAME).components(artefacts.model(NAME))
    files = [folder / f"{component.name}.onnx" for component in components]
    return [Built(c, file, file, None, RewriteReport()) for c, file in zip(components, files, strict=True)]


def report(parts: list[Built], merge: MergeConfig = MERGE, **options: Any) -> ParityReport:
    return generation.check(
        artefacts.family(NAME), artefacts.model(NAME), merge, parts, Checks(cases=CASES, threads=1), **options
    )


@pytest.mark.parametrize(
    "merge",
    [
        MERGE,
        MergeConfig(method="none"),
        MergeConfig(method="dynamic", threshold=0.7),
        MergeConfig(method="dynamic", threshold=0.4, per_series=True, prop_attn=True),
    ],
    ids=["local", "none", "dynamic", "per-series"],
)  # fmt: skip
def test_decoder_equals_the_eager_merged_model(merge: MergeConfig) -> None:
    done = []
    found = report(built(merge), merge, progress=lambda *at: done.append(at))
    assert found.failures == []
    assert found.passed
    assert found.name == "decoder"
    assert 0 < found.to_dict()["max_rel"] < 2e-5
    assert done[-1] == (len(CASES), len(CASES))


def test_another_merge_setting_fails() -> None:
    assert not report(built(MERGE), MergeConfig(ratio="1/4")).passed  # sizes do not count in eager attention
    assert not report(built(MERGE), MergeConfig(ratio="1/3", prop_attn=True)).passed


@pytest.mark.parametrize(("part", "shape"), [("decoder", (33, 2)), ("cross", (16, 16))])
def test_a_changed_weight_fails(part: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    parts = built(MERGE)
    index = [item.component.name for item in parts].index(part)
    model = onnx.load(parts[index].merged)
    hit = [tensor for tensor in model.graph.initializer if tuple(tensor.dims) == shape]
    assert hit
    value = numpy_helper.to_array(hit[0]) * np.float32(1.5)
    hit[0].CopyFrom(numpy_helper.from_array(value, hit[0].name))
    onnx.save(model, tmp_path / "changed.onnx")
    parts[index] = replace(parts[index], merged=tmp_path / "changed.onnx")
    assert not report(parts).passed


def test_a_file_that_cannot_be_read_fails(tmp_path: Path) -> None:
    parts = built(MERGE)
    (tmp_path / "decoder.onnx").write_bytes(b"nothing")
    parts[2] = replace(parts[2], merged=tmp_path / "decoder.onnx")
    found = report(parts)
    assert not found.passed
    assert "cannot be loaded" in found.failures[0]


def test_forecasts_of_the_merge_cost_weigh_merged_tokens() -> None:
    """The exported encoder with the original decoder draws what the original model with merging draws."""
    family, model, pool = artefacts.family(NAME), artefacts.model(NAME), upstream.walks(16, 100, seed=4)
    component = artefacts.component(NAME)
    _, decided = parity.run_eager(component, model, MERGE, component.from_series(model, pool))
    series = pool[~near_tie(decided, SCORE_NOISE, len(pool))][:1]  # no decision that hangs on float noise
    assert len(series) == 1
    session = open_session(artefacts.bundle(NAME, MERGE) / "encoder.onnx", 1)
    names = [spec.name for spec in component.outputs]
    got = family.forecast(
        model, lambda feed: dict(zip(names, session.run(names, feed), strict=True)), series, seed=2
    )
    with merging(model, MERGE), torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        paths = upstream.t5(NAME).predict(torch.from_numpy(series))
    want = torch.quantile(paths, torch.tensor(family.quantile_levels(model)), dim=1).transpose(0, 1)
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-5)


@pytest.mark.parametrize("index", [1, 2], ids=["cross", "decoder"])
def test_cross_and_decoder_are_dynamic(index: int) -> None:
    component = artefacts.family(NAME).components(artefacts.model(NAME))[index]
    prove_dynamic(component, artefacts.model(NAME), artefacts.plain(NAME, 18, index))
