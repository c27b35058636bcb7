"""Bundles in half: what they hold, where they run, and what the third verdict finds."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import tsmerge_export as tsm
from tests.graphs import models as graphs
from tests.models import tiny
from tests.verify.bundles import save_again
from tsmerge_export.bundle import Bundle
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.errors import UnsupportedError, VerdictError
from tsmerge_export.graphs.source import GraphSource
from tsmerge_export.report.write import write_texts
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.precision import Precision
from tsmerge_export.tools.bench.group import of_bundle
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.half import Overflow

MERGE, QUICK = MergeConfig(ratio="1/4", min_tokens=2), Checks(threads=1, quick=True)


def bolt() -> Compilation:
    return Compilation(CheckpointSource.load(tiny("chronos-bolt")), MERGE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of a tiny Chronos-Bolt."""
    output = tmp_path_factory.mktemp("made") / "fp16"
    return bolt().bundle(output, QUICK, texts=write_texts, precision=Precision("fp16"))


def test_what_a_bundle_says_and_that_it_runs(made: Bundle) -> None:
    entry, found = made.contents.precision, made.contents.verdicts.precision
    assert entry is not None and found is not None and found.passed and found.cast is not None
    part = entry.components["model"]
    assert part.bytes < 0.5 * part.float32_bytes and not part.kept
    assert part.stored == 4  # the way out of T5's feed-forward, two of either stack, is summed in float32
    assert found.cast.rows > 5 and found.cast.max_rel is not None and found.cast.max_rel < found.cast.atol
    assert found.speed is not None and "half precision is for GPUs" in " ".join(found.notes)
    assert (
        all(one.median_percent for one in found.changes.values()) and len(found.decisions_moved_percent) == 2
    )
    model = onnx.load(made.component("model").file)
    assert {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)} == {1}
    series = np.random.default_rng(0).standard_normal((2, 100)).cumsum(axis=1).astype(np.float32)
    quantiles, _ = tsm.pipeline(made.path, threads=1).predict_quantiles(series, prediction_length=4)
    assert np.asarray(quantiles).shape[:2] == (2, 4) and np.isfinite(np.asarray(quantiles)).all()
    assert [one.name for one in of_bundle(str(made.path)).candidates] == [f"bundle {made.path} (fp16)"]
    for name in ("report.html", "README.md"):
        text = (made.path / name).read_text(encoding="utf-8")
        assert (
            "as the eager model cast the same way computes them" in text
            and "products in half (4 of them" in text
        )


def _attribute(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "LocalMerge")
    next(a for a in node.attribute if a.name == "min_tokens").i = 3


def _weight(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16)
    value = numpy_helper.to_array(tensor).copy()
    value[1, 1] *= np.float16(1.01)
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def test_faults_fail_the_third_verdict_alone(made: Bundle, tmp_path: Path) -> None:
    shutil.copytree(made.path, tmp_path / "wrong")
    file = tmp_path / "wrong" / "model.onnx"
    model = onnx.load(file)
    _attribute(model)
    _weight(model)
    onnx.save(model, file)
    save_again(tmp_path / "wrong")
    found = bolt().validate(Bundle.open(tmp_path / "wrong"), QUICK)
    assert found.parity is not None and found.parity.passed and found.precision is not None
    assert found.failure is not None and found.failure.startswith("precision failed: model: ")
    weight, node, *_ = found.precision.failures
    assert "is not that of the float32 file, rounded to fp16" in weight
    assert "(LocalMerge) is not that of the float32 file" in node


def test_as_it_is_it_passes_again(made: Bundle) -> None:
    again = bolt().validate(made, QUICK)
    before = made.contents.verdicts.precision
    assert again.failure is None and again.precision is not None and before is not None
    assert again.precision.cast == before.cast and again.precision.changes == before.changes


def test_a_cpu_refuses_bf16(made: Bundle, tmp_path: Path) -> None:
    shutil.copytree(made.path, tmp_path / "bf16")
    save_again(tmp_path / "bf16", precision={**made.manifest["precision"], "kind": "bf16"})
    with pytest.raises(
        UnsupportedError, match="its products are bf16, which ONNX Runtime has none of on a CPU"
    ):
        tsm.load(tmp_path / "bf16")


def test_what_is_lost_in_half_is_told() -> None:
    full = {"y": np.array([1.0, np.nan, 2.0], np.float32)}
    low = {"y": np.array([np.inf, np.nan, np.nan], np.float32)}
    found = Overflow("fp16", lambda _: full, lambda _: low).fault("a case", {})
    assert found is not None and found.startswith(
        "a case: 2 numbers of y are finite in float32 and not in fp16"
    )
    assert "use bf16" in found and Overflow("fp16", lambda _: full, lambda _: full).fault("", {}) is None


@pytest.mark.slow
def test_numbers_beyond_fp16_are_told_and_bf16_takes_them(tmp_path: Path) -> None:
    model = tiny("chronos-bolt")
    with torch.no_grad():  # what lies between is 2^18 times as large, and the outputs are as they were
        block = model.output_patch_embedding
        block.hidden_layer.weight *= 2.0**18
        block.hidden_layer.bias *= 2.0**18
        block.output_layer.weight *= 2.0**-18
    source = CheckpointSource.load(model)
    compilation = Compilation(source, MERGE)
    with pytest.raises((VerdictError, UnsupportedError), match="beyond") as failed:
        compilation.bundle(tmp_path / "fp16", QUICK, precision=Precision("fp16"))
    assert "use bf16" in str(failed.value) and not list(tmp_path.iterdir())
    bundle = compilation.bundle(tmp_path / "bf16", QUICK, texts=write_texts, precision=Precision("bf16"))
    found = bundle.contents.verdicts.precision
    assert found is not None and found.passed and found.speed is None
    with pytest.raises(
        UnsupportedError, match="its products are bf16, which ONNX Runtime has none of on a CPU"
    ):
        tsm.load(bundle.path)


def test_a_graph_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "plain.onnx"
    graphs.export("plain", file, old=True, opset=17)
    compilation = Compilation(GraphSource(file), MergeConfig(ratio="1/4", min_tokens=2))
    bundle = compilation.bundle(tmp_path / "made", QUICK, precision=Precision("fp16"))
    entry, found = bundle.contents.precision, bundle.contents.verdicts.precision
    assert entry is not None and found is not None and found.passed and found.cast is not None
    low = onnx.load(bundle.components[0].file)
    half = sum(
        node.op_type == "MatMul" and any("/fp16" in name for name in node.input) for node in low.graph.node
    )
    assert half == entry.components[bundle.components[0].name].quantised >= 10
    assert found.cast.rows > 5 and all(
        0 < moved < 0.01 for moved in found.outputs.values() if moved is not None
    )
