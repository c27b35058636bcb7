"""Bundles whose activations have fixed scales: what calibrated them, that it is repeated, and what faults are found."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import tsmerge_export as tsm
from tests import artefacts
from tests.graphs import models as graphs
from tests.models import tiny
from tests.report.html.reading import read
from tests.verify.bundles import save_again
from tsmerge_export.bundle import Bundle
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.compile.precision import quantise_files
from tsmerge_export.errors import UsageError
from tsmerge_export.graphs.source import GraphSource
from tsmerge_export.precision.products import products
from tsmerge_export.precision.quantise import as_products
from tsmerge_export.precision.ranges import read_by
from tsmerge_export.report.write import write_texts
from tsmerge_export.rewrite.insert import RewriteReport
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.precision import Precision
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.calibration import WindowCalibration
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.data import Table

MERGE, QUICK = MergeConfig(ratio="1/4", min_tokens=2), Checks(threads=1, quick=True)
KEPT = "output_patch_embedding"


def series(seed: int = 0, rows: int = 300) -> Table:
    values = np.random.default_rng(seed).standard_normal((rows, 2)).cumsum(axis=0)
    return Table("walk.csv", ("a", "b"), values)


def bolt(table: Table) -> Compilation:
    return Compilation(CheckpointSource.load(tiny("chronos-bolt"), data=table), MERGE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of a tiny Chronos-Bolt, with the way out in float32."""
    output = tmp_path_factory.mktemp("made") / "static"
    asked = Precision("int8-static", (KEPT,))
    return bolt(series()).bundle(output, QUICK, texts=write_texts, precision=asked)


def test_what_a_bundle_says_and_that_it_runs(made: Bundle) -> None:
    entry, found = made.contents.precision, made.contents.verdicts.precision
    assert entry is not None and entry.calibration is not None and found is not None and found.passed
    said, part = entry.calibration, entry.components["model"]
    assert (said.data, said.columns, said.percentile) == ("walk.csv, before its last fifth", 2, 99.999)
    assert (said.windows or 0) >= 5 and len(said.sha256) == 64
    model = onnx.load(made.component("model").file)
    ops = Counter(node.op_type for node in model.graph.node)
    assert ops["QuantizeLinear"] == len(part.ranges) and len(part.kept) == 3
    assert found.weights == part.quantised == ops["DequantizeLinear"] - ops["QuantizeLinear"] > 10
    assert not ops["DynamicQuantizeLinear"] + ops["MatMulInteger"]
    assert part.bytes < 0.5 * part.float32_bytes
    assert all(low < high for low, high in part.ranges.values())
    words = f"found on walk.csv, before its last fifth, 2 columns x {said.windows} windows: 99.999 % of the values"
    page = " ".join(read((made.path / "report.html").read_text(encoding="utf-8")).text.split())
    card = " ".join((made.path / "README.md").read_text(encoding="utf-8").split())
    assert words in page and words in card
    context = np.random.default_rng(0).standard_normal((2, 100)).cumsum(axis=1).astype(np.float32)
    quantiles, _ = tsm.pipeline(made.path, threads=1).predict_quantiles(context, prediction_length=4)
    assert np.isfinite(np.asarray(quantiles)).all()


def test_validation_calibrates_again_on_the_same_series_alone(made: Bundle) -> None:
    again = bolt(series()).validate(made, QUICK)
    assert (
        again.failure is None and again.precision is not None and made.contents.verdicts.precision is not None
    )
    assert again.precision.changes == made.contents.verdicts.precision.changes
    assert "calibrated" not in " ".join(again.precision.notes)
    for other in (series(1), series(0, 40)):  # other values; too few rows to calibrate on
        found = bolt(other).validate(made, QUICK)
        assert found.failure is None and found.precision is not None
        assert "were not calibrated again: it was on walk.csv" in " ".join(found.precision.notes)


def _scale(model: onnx.ModelProto, entry: dict[str, object]) -> str:
    """One scale of the file."""
    return "has a scale of"


def _and_range(model: onnx.ModelProto, entry: dict[str, object]) -> str:
    """The range that it is said to follow from as well."""
    ranges = entry["components"]["model"]["ranges"]  # type: ignore[index]
    name = next(iter(ranges))
    ranges[name] = [2 * edge for edge in ranges[name]]
    return "the same series now give"


@pytest.mark.parametrize("spoil", [_scale, _and_range])
def test_a_fault_in_one_scale_of_an_activation(
    made: Bundle, tmp_path: Path, spoil: Callable[[onnx.ModelProto, dict[str, object]], str]
) -> None:
    folder = tmp_path / "wrong"
    shutil.copytree(made.path, folder)
    model, manifest = onnx.load(folder / "model.onnx"), json.loads((folder / "manifest.json").read_text())
    name = next(node for node in model.graph.node if node.op_type == "QuantizeLinear").input[1]
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(2), name))
    said = spoil(model, manifest["precision"])
    onnx.save(model, folder / "model.onnx")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    save_again(folder)
    found = bolt(series()).validate(Bundle.open(folder), QUICK)
    assert found.parity is not None and found.parity.passed
    assert found.failure is not None and said in found.failure


def test_a_decoder_is_calibrated_step_by_step(tmp_path: Path) -> None:
    """Of Chronos-T5: its own samples are what it reads, and its caches."""
    bundle = Bundle.open(artefacts.bundle("t5-tiny", MergeConfig(ratio="1/4")))
    family, model = artefacts.family("t5-tiny"), artefacts.model("t5-tiny")
    files = {part.name: bundle.component(part.name).file for part in family.components(model)}
    twins = [
        Built(part, files[part.name], files[part.name], None, RewriteReport())
        for part in family.components(model)
    ]
    table = series(rows=200)

    def calibration() -> WindowCalibration:
        return WindowCalibration(family, model, twins, table, Checks(threads=1), limit=5)

    runs: Counter[str] = Counter()
    calibration().observe(twins, lambda component, values: runs.update([component]))
    assert runs["encoder"] == runs["cross"] == 2  # a batch for each column
    assert runs["decoder"] == 2 * family.horizon(model)
    low, entry = quantise_files(twins, Precision("int8-static"), tmp_path, calibration)
    for twin, item in zip(twins, low, strict=True):
        own = as_products(onnx.load(twin.merged))
        wanted = read_by(own, [product.node for product in products(own)])
        part = entry.components[twin.component.name]
        assert set(part.ranges) == set(wanted) and part.quantised and item.merged != twin.merged
    plain, quantised = (calibration()._forecasts(side, calibration()._some) for side in (twins, low))
    assert np.isfinite(quantised).all() and not np.array_equal(plain, quantised)


@pytest.mark.parametrize("keep", [(), pytest.param(("auto",), marks=pytest.mark.slow)])
def test_a_graph_from_a_file_and_what_hurts(tmp_path: Path, keep: tuple[str, ...]) -> None:
    """On generated inputs; what is found to hurt stays float32."""
    file = tmp_path / "plain.onnx"
    graphs.export("plain", file, old=True, opset=17)
    asked = Precision("int8-static", keep, 1.0)
    bundle = Compilation(GraphSource(file), MergeConfig("none")).bundle(
        tmp_path / "made", QUICK, texts=write_texts, precision=asked
    )
    entry, found = bundle.contents.precision, bundle.contents.verdicts.precision
    assert entry is not None and entry.calibration is not None
    assert (entry.calibration.data, entry.calibration.windows) == ("generated inputs", None)
    assert found is not None and found.passed and found.weights > 0
    assert (entry.sensitivity is not None) == bool(keep)
    if entry.sensitivity is not None:
        assert found.weights < len(entry.sensitivity.products)
    assert Compilation(GraphSource(file), MergeConfig("none")).validate(bundle, QUICK).failure is None


def test_too_few_rows_to_calibrate_on(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"^walk.csv: has 40 rows; calibration \(--precision int8-static"
    ) as failed:
        bolt(series(rows=40)).bundle(tmp_path / "made", QUICK, precision=Precision("int8-static"))
    assert "\n" not in str(failed.value) and not list(tmp_path.iterdir())
