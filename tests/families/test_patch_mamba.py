"""The forecaster on a state-space model: its own arithmetic, export at any length, merging, loading."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tsmerge_export as tsm
from tests.exports import export_component
from tests.models import CONFIGS, MAMBA, tiny
from tsmerge_export import families
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.compile.build import merge_and_lower
from tsmerge_export.compile.onnx_export import prove_dynamic
from tsmerge_export.errors import UsageError
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import parity
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.corpus import ENTRIES, Case

FAMILY = families.get("patch-mamba")
CASES = [
    Case(entry, 2, length, seed=1) for entry, length in zip(ENTRIES, (1, 9, 64, 100, 250) * 9, strict=False)
]


@cache
def model() -> Any:
    """Of two Mamba blocks."""
    config = {**CONFIGS["patch-mamba"]}
    config["backbone"] = {**MAMBA, "num_hidden_layers": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return FAMILY.build(config)


@cache
def plain() -> Any:
    return export_component(FAMILY.components(model())[0], model())


@cache
def built(merge: MergeConfig) -> Built:
    folder = Path(tempfile.mkdtemp())
    component = FAMILY.components(model())[0]
    return merge_and_lower(component, plain(), merge, inline=False, folder=folder, scratch=folder)


@pytest.mark.parametrize(
    "merge",
    [
        MergeConfig("ssm", ratio="1/4", metric="hidden", residual_prune_share=0, min_tokens=0),
        MergeConfig(ratio="1/3"),
    ],
    ids=lambda merge: merge.method,
)
def test_parity(merge: MergeConfig) -> None:
    component = FAMILY.components(model())[0]
    report = parity.check(
        FAMILY, component, model(), merge, built(merge).merged, Checks(cases=CASES, threads=1)
    )
    assert report.failures == []
    assert report.passed
    assert built(merge).report.barriers == []


def test_the_export_is_dynamic_and_nothing_to_merge_is_bit_identical() -> None:
    prove_dynamic(FAMILY.components(model())[0], model(), plain())
    files = built(MergeConfig("ssm", ratio="1/2", min_tokens=1000))
    unmerged, merged = (open_session(file, 1) for file in (files.unmerged, files.merged))
    for batch, length in ((1, 5), (3, 201)):
        feed = FAMILY.components(model())[0].example(model(), batch, length)
        assert unmerged.run(None, feed)[0].tobytes() == merged.run(None, feed)[0].tobytes()


@pytest.mark.parametrize("kind", ["mamba2", "mamba"])
def test_forward_is_the_forecast_behind_the_last_patch_whatever_fills_the_first(kind: str) -> None:
    m: Any = tiny("patch-mamba") if kind == "mamba2" else model()
    x = torch.randn(3, 30).cumsum(1)
    x[0, 3] = torch.nan
    with torch.no_grad():
        out = m(x)
        every, loc, scale = m.every(x)
        filled = m(torch.cat([torch.full((3, 2), torch.nan), x], 1))
    assert every.shape == (3, 8, 3, 8)
    torch.testing.assert_close(out, every[:, -1] * scale[..., None] + loc[..., None])
    torch.testing.assert_close(filled, out, rtol=1e-5, atol=1e-5)
    seen = x.numpy().astype(np.float64)
    np.testing.assert_allclose(loc[:, 0], np.nanmean(seen, 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scale[:, 0], np.nanstd(seen, 1), rtol=1e-4)


def test_a_forecast_has_the_units_of_its_series() -> None:
    x = torch.randn(2, 64)
    with torch.no_grad():
        one, other = model()(x), model()(1000 * x + 5000)
        nothing, constant = model()(torch.full((1, 9), torch.nan)), model()(torch.full((1, 9), 7.7e30))
    torch.testing.assert_close(other, 1000 * one + 5000, rtol=1e-3, atol=0.5)
    assert torch.isfinite(nothing).all()
    assert torch.isfinite(constant).all()


def test_a_checkpoint_is_loaded_as_this_family(tmp_path: Path) -> None:
    for m in (model(), tiny("patch-mamba")):
        loaded = tsm.load_model(tsm.save_checkpoint(m, tmp_path / "model.pt"))
        assert loaded.family == "patch-mamba"
        x = torch.randn(1, 33)
        with torch.no_grad():
            assert torch.equal(loaded.model(x), m(x))  # type: ignore[operator]
        config = json.loads(json.dumps(FAMILY.config_of(m), allow_nan=False))
        assert FAMILY.matches(config)
        assert FAMILY.build(config).state_dict().keys() == m.state_dict().keys()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patch_length": 0}, "patch_length must be a whole number"),
        ({"quantiles": [0.9, 0.5]}, "must rise and hold 0.5"),
        ({"backbone": {"model_type": "bert"}}, "model_type out of mamba2, mamba"),
        ({"backbone": None}, "does not describe a PatchMamba"),
        ({"backbone": {"model_type": "mamba2", "num_heads": 7}}, "does not describe a Mamba2Model"),
    ],
)
def test_a_config_that_does_not_fit_is_one_line(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        FAMILY.build({**CONFIGS["patch-mamba"], **change})
    assert "\n" not in str(error.value)
