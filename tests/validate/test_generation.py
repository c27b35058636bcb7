"""Parity of the decoder: it passes for what was exported, and fails for what was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests import artefacts
from tsmerge_export.build import Built
from tsmerge_export.config import MergeConfig
from tsmerge_export.onnx_export import prove_dynamic
from tsmerge_export.rewrite.insert import RewriteReport
from tsmerge_export.validate import generation
from tsmerge_export.validate.corpus import ENTRIES, Case
from tsmerge_export.validate.parity import ParityReport

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
        artefacts.family(NAME), artefacts.model(NAME), merge, parts, cases=CASES, threads=1, **options
    )


@pytest.mark.parametrize(
    "merge", [MERGE, MergeConfig(method="none"), MergeConfig(method="dynamic", threshold=0.7)],
    ids=lambda merge: merge.method,
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


@pytest.mark.parametrize("index", [1, 2], ids=["cross", "decoder"])
def test_cross_and_decoder_are_dynamic(index: int) -> None:
    component = artefacts.family(NAME).components(artefacts.model(NAME))[index]
    prove_dynamic(component, artefacts.model(NAME), artefacts.plain(NAME, 18, index))
