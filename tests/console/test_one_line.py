"""What objects print in a prompt: one line that names them, whatever they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tsmerge_export as tsm
from tests import models
from tsmerge_export.bundle import Bundle, BundleWriter, ComponentInfo, TensorInfo
from tsmerge_export.bundle.manifest import ComponentEntry, Described, MergeEntry
from tsmerge_export.checkpoint import LoadedModel
from tsmerge_export.console.one_line import called, short
from tsmerge_export.merge import local_merge
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tables.table import Table

_MOST = 200  # characters, without the path


def _is_short(value: object, path: Path | str = "") -> str:
    text = repr(value)
    assert "\n" not in text
    assert len(text.replace(str(path), "")) <= _MOST
    return text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((2, 3), np.float32), "float32 [2, 3]"),
        (torch.zeros(0, 2, dtype=torch.int64), "int64 [0, 2]"),
        ([torch.zeros(2)], "[float32 [2]]"),
        (torch.nn.Linear(2, 3), "Linear"),
        (Path("a/b"), "'a/b'"),
        (None, "None"),
        (0.25, "0.25"),
        (tuple(range(8)), "(0, 1, 2, 3, ...)"),
        ("line\nbreak", "'line\\nbreak'"),
    ],
)
def test_values(value: Any, text: str) -> None:
    assert short(value) == text


def test_long_text_is_cut() -> None:
    assert len(short("x" * 10_000)) <= 60
    # A name from a file may be that of an argument.
    assert called("Session", kind=(1,)) == "Session(kind=(1,))"


@pytest.mark.parametrize(
    ("merge", "text"),
    [
        (MergeConfig(), "MergeConfig('local', k=1, ratio='1/4')"),
        (MergeConfig("none"), "MergeConfig('none')"),
        (MergeConfig("none", ratio="1/3"), "MergeConfig('none', ratio='1/3')"),
        (MergeConfig(ratio="auto"), "MergeConfig('local', k=1, ratio='auto')"),
        (MergeConfig(k="global", r=8), "MergeConfig('local', k='global', r=8)"),
        (
            MergeConfig("global", ratio="1/2,1/4", similarity="l2", layers=(1, 0), prop_attn=True),
            "MergeConfig('global', ratio=['1/2', '1/4'], similarity='l2', layers=[0, 1], prop_attn=True)",
        ),
        (
            MergeConfig("dynamic", k=2, threshold=(0.9, 0.8), min_tokens=0),
            "MergeConfig('dynamic', k=2, threshold=[0.9, 0.8], min_tokens=0)",
        ),
        (
            MergeConfig("ssm", r=[2, 0], metric="hidden", residual_prune_share="0"),
            "MergeConfig('ssm', r=[2, 0], prune_share='1/2', residual_prune_share='0', metric='hidden')",
        ),
        (
            MergeConfig("pitome", schedule="linear", alpha=2, positions="compact"),
            "MergeConfig('pitome', ratio='1/4', schedule='linear', alpha=2.0, positions='compact')",
        ),
        (MergeConfig(causal=True), "MergeConfig('local', k=1, ratio='1/4', causal=True)"),
    ],
)
def test_settings_print_what_makes_them_again(merge: MergeConfig, text: str) -> None:
    assert _is_short(merge) == text
    assert eval(text) == merge


def test_merged_tokens_and_their_records() -> None:
    merged = local_merge(torch.randn(2, 16, 4), ratio="1/4")
    assert _is_short(merged) == (
        "Merged(y=float32 [2, 12, 4], size=float32 [2, 12], kept=int64 [2, 12], target=int64 [2, 16])"
    )
    model = models.tiny("chronos-bolt")
    with tsm.merging(model, MergeConfig()) as run:
        model(torch.randn(1, 64))
    assert _is_short(run.steps[0]).startswith("StepRecord(layer=0, removed=")
    assert _is_short(LoadedModel(model, "chronos-bolt", model.config.to_dict(), "folder")) == (
        f"LoadedModel(model={type(model).__name__}, family='chronos-bolt', source='folder')"
    )


def test_tables() -> None:
    columns = tuple(f"column {number}" for number in range(1000))
    text = _is_short(Table("a.csv", columns, np.zeros((50, 1000))))
    assert text.startswith("Table('a.csv', columns=('column 0', ")
    assert text.endswith(", ...), values=float64 [50, 1000])")


def test_bundles_name_their_parts(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "out") as writer:
        (writer.path / "model.onnx").write_bytes(b"nonsense")
        component = ComponentEntry("model", "model.onnx", (), (), merges=(MergeEntry(),) * 9)
        noise: dict[str, Any] = {"notes": ("long",) * 5000, "pipeline": {"x": ["y"] * 5000}}
        writer.commit(
            Described(family="chronos-bolt", merge={"method": "local"}, components=(component,), **noise)
        )
    bundle = Bundle.open(tmp_path / "out")
    assert _is_short(bundle, bundle.path) == (
        f"Bundle({str(bundle.path)!r}, family='chronos-bolt', merge='local', components=('model',))"
    )
    (one,) = bundle.components
    assert _is_short(one, one.file).endswith("inputs=(), outputs=(), merges=9, barriers=0)")
    many = tuple(TensorInfo(f"past_{number}", "float32", ("batch",)) for number in range(500))
    _is_short(ComponentInfo("decoder", Path("decoder.onnx"), many, many, (), ()))
    # A file from elsewhere may say anything.
    for said in ({}, {"merge": 3}, {"merge": {"method": ["x" * 999] * 99}, "family": {"a\n": "b" * 999}}):
        _is_short(Bundle(Path("out"), said, ()))
