"""Bundles below float32: what they hold, that they run, and what the third verdict finds."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import tsmerge_export as tsm
from tests.graphs import models as graphs
from tests.models import tiny
from tests.report.html.command_lines import parsed
from tests.report.html.reading import read
from tests.verify.bundles import save_again
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.bundle import Bundle
from tsmerge_export.bundle.precision import ProductEffect, Sensitivity
from tsmerge_export.cli.precision import precision_of
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.compile.source import Source
from tsmerge_export.errors import UsageError, VerdictError
from tsmerge_export.graphs.source import GraphSource
from tsmerge_export.inspection.flops import count, load_graph
from tsmerge_export.report.html import report_page
from tsmerge_export.report.html.commands import commands
from tsmerge_export.report.precision import print_precision, sensitivity_rows, sensitivity_words
from tsmerge_export.report.text import print_verdicts
from tsmerge_export.report.write import write_texts
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.precision import Precision
from tsmerge_export.tools.bench.group import of_bundle
from tsmerge_export.typed import written
from tsmerge_export.untrusted.onnx_risk import risk
from tsmerge_export.untrusted.onnx_wire import read_model
from tsmerge_export.verify.checks import Checks

MERGE, QUICK = MergeConfig(ratio="1/4", min_tokens=2), Checks(threads=1, quick=True)
KEPT = "output_patch_embedding"


def bolt(merge: MergeConfig = MERGE) -> Compilation:
    return Compilation(CheckpointSource.load(tiny("chronos-bolt")), merge)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of a tiny Chronos-Bolt, with the way out in float32."""
    output = tmp_path_factory.mktemp("made") / "int8"
    return bolt().bundle(output, QUICK, texts=write_texts, precision=Precision("int8", (KEPT,)))


@pytest.fixture(scope="module")
def float32(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bolt().bundle(tmp_path_factory.mktemp("made") / "float32", QUICK)


def test_what_a_bundle_says(made: Bundle, float32: Bundle) -> None:
    entry, verdicts = made.contents.precision, made.contents.verdicts
    assert entry is not None and verdicts.precision is not None and verdicts.parity is not None
    part = entry.components["model"]
    assert (entry.kind, entry.keep, part.kept) == ("int8", (KEPT,), part.kept) and len(part.kept) == 3
    assert entry.quantiser.startswith("onnxruntime.quantization 1.")
    file = made.component("model").file
    ops = [node.op_type for node in onnx.load(file).graph.node]
    assert ops.count("MatMulInteger") == part.quantised == verdicts.precision.weights > 10
    assert (
        part.bytes == pytest.approx(file.stat().st_size, rel=0.01) and part.bytes < 0.5 * part.float32_bytes
    )
    found = verdicts.precision
    assert verdicts.parity.passed and found.passed and verdicts.failure is None
    assert set(found.changes) == {"mse", "mae", "wql"} and all(
        one.median_percent for one in found.changes.values()
    )
    assert len(found.decisions_moved_percent) == 2 and found.speed is not None
    # Parity and merge cost are those of float32, to the digit.
    assert verdicts.parity == float32.contents.verdicts.parity
    own, theirs = verdicts.cost, float32.contents.verdicts.cost
    assert own is not None and theirs is not None and own.columns == theirs.columns
    assert float32.contents.precision is None and "precision" not in float32.manifest


def test_it_runs_like_any_other(made: Bundle, float32: Bundle) -> None:
    series = np.random.default_rng(0).standard_normal((2, 100)).cumsum(axis=1).astype(np.float32)
    low, high = (
        tsm.load(one.path, threads=1).run({"context": series})["quantiles"] for one in (made, float32)
    )
    assert low.shape == high.shape and not np.array_equal(low, high)
    assert np.abs(low - high).max() < 0.2 * np.abs(high).max()
    quantiles, _ = tsm.pipeline(made.path, threads=1).predict_quantiles(series, prediction_length=4)
    assert np.asarray(quantiles).shape[:2] == (2, 4)
    assert [one.name for one in of_bundle(str(made.path)).candidates] == [f"bundle {made.path} (int8)"]
    files = [one.component("model").file for one in (made, float32)]
    assert risk(read_model(files[0])) is None
    assert len({count(load_graph(file), {"context": series}).total for file in files}) == 1


def test_the_page_the_card_and_the_terminal(made: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    report = made.read_report()
    page = report_page(report)
    assert page == (made.path / "report.html").read_text(encoding="utf-8")
    text = " ".join(read(page).text.split())
    for said in (
        "Precision cost", "In float32, the exported files compute what PyTorch computes",
        "Proved of the float32 files", "passed (", "products quantised by onnxruntime.quantization",
        "tokens merged away behind merge 2 that are still there",
    ):  # fmt: skip
        assert said in text, said
    card = (made.path / "README.md").read_text(encoding="utf-8")
    assert "## What the precision costs and brings" in card and "those of the float32 files" in card
    print_verdicts(report.verdicts)
    print_precision(report.verdicts.precision)
    out = capsys.readouterr().out
    assert (
        "Parity: the float32 files that those of the bundle were made from against" in " ".join(out.split())
        and "Precision cost on sample.csv" in out
    )
    given = dict(commands({**made.report, "source": "model"}))
    asked = precision_of(parsed(given["export"]))
    assert asked == Precision("int8", (KEPT,))
    python = dict(commands(made.report))["export"]
    assert f"precision=tsm.Precision('int8', keep=('{KEPT}',))" in python


def test_a_fault_in_one_scale_fails_the_third_verdict_alone(made: Bundle, tmp_path: Path) -> None:
    assert bolt().validate(made, QUICK).failure is None
    shutil.copytree(made.path, tmp_path / "wrong")
    file = tmp_path / "wrong" / "model.onnx"
    model = onnx.load(file)
    scale = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("_scale"))
    value = onnx.numpy_helper.to_array(scale).copy()
    value[2] *= 1.02
    scale.CopyFrom(onnx.numpy_helper.from_array(value, scale.name))
    onnx.save(model, file)
    save_again(tmp_path / "wrong")
    found = bolt().validate(Bundle.open(tmp_path / "wrong"), QUICK)
    assert found.parity is not None and found.parity.passed and found.precision is not None
    assert found.failure is not None and not found.precision.passed
    name = scale.name.removesuffix("_scale")
    assert found.failure.startswith(f"precision failed: model: weight {name!r} has a scale of ")
    page = report_page({**made.report, "verdicts": written(found)})
    assert "did NOT pass: do not use them" in page and f"weight &#x27;{name}" in page.replace(
        "&#39;", "&#x27;"
    )


def test_a_merge_node_of_another_setting(made: Bundle, tmp_path: Path) -> None:
    shutil.copytree(made.path, tmp_path / "wrong")
    file = tmp_path / "wrong" / "model.onnx"
    model = onnx.load(file)
    node = next(
        node for node in model.graph.node if node.domain == "tsmerge" and node.op_type == "LocalMerge"
    )
    next(a for a in node.attribute if a.name == "min_tokens").i = 3
    onnx.save(model, file)
    save_again(tmp_path / "wrong")
    found = bolt().validate(Bundle.open(tmp_path / "wrong"), QUICK)
    assert found.failure is not None and "min_tokens is 3, the settings say 2" in found.failure


def test_a_limit_that_is_not_kept_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        VerdictError, match="precision failed, no bundle is written: the weighted quantile loss"
    ) as failed:
        bolt().bundle(tmp_path / "made", QUICK, precision=Precision("int4-weights", max_increase=0.0))
    assert "--max-increase allows 0 %" in str(failed.value) and not list(tmp_path.iterdir())
    said = failed.value.manifest["verdicts"]
    assert (
        said["parity"]["passed"]
        and not said["precision"]["passed"]
        and said["precision"]["max_increase"] == 0
    )


@pytest.mark.parametrize("keep", [("nothing.of.it",), ("model",)])
def test_names_that_leave_nothing_or_are_not_there(keep: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no product with a weight") as failed:
        bolt().bundle(tmp_path / "made", QUICK, precision=Precision("int8", keep))
    assert "\n" not in str(failed.value) and not list(tmp_path.iterdir())


def test_what_hurts_in_a_graph_from_a_file_and_a_ratio_at_run_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 4 bits, with what hurts in 8, and one product by name in float32."""
    file = tmp_path / "plain.onnx"
    graphs.export("plain", file, old=True, opset=17)
    merge = MergeConfig(ratio="runtime:1/4", min_tokens=2)
    asked = Precision("int4-weights", ("encoder.1/attention/value", "auto"), 4.0)

    def source() -> Source:
        return GraphSource(file)

    bundle = Compilation(source(), merge).bundle(tmp_path / "made", QUICK, texts=write_texts, precision=asked)
    found, entry = bundle.contents.verdicts.precision, bundle.contents.precision
    assert found is not None and found.passed and not found.changes
    assert all(0 < moved < 1 for moved in found.outputs.values() if moved is not None) and found.outputs
    assert "--max-increase: what the outputs mean is not known" in " ".join(found.notes)
    assert entry is not None and entry.sensitivity is not None
    chosen, (part,) = entry.sensitivity, entry.components.values()
    assert (chosen.kept_at, chosen.budget_percent, chosen.windows) == ("int8-weights", 4.0, None)
    assert (chosen.after_percent or 0) <= 4 < (chosen.before_percent or 0)
    assert {one.node for one in chosen.products if one.kept} == set(part.raised)
    assert 0 < len(part.raised) < len(chosen.products) and len(part.kept) == 1
    assert not set(part.kept) & {one.node for one in chosen.products}
    bits = {
        node.name.removesuffix("_Q4").removesuffix("_Q8"): next(
            a.i for a in node.attribute if a.name == "bits"
        )
        for node in onnx.load(bundle.components[0].file).graph.node
        if node.op_type == "MatMulNBits"
    }
    assert bits == {one.node: 8 if one.kept else 4 for one in chosen.products}
    assert found.weights == part.quantised == len(bits)
    page = " ".join(read((bundle.path / "report.html").read_text(encoding="utf-8")).text.split())
    words = "Chosen on generated inputs, 4 % allowed: with all products quantised outputs move by"
    for said in ("Precision cost", words, "What a low precision hurts", chosen.products[0].node):
        assert said in page
    card = (bundle.path / "README.md").read_text(encoding="utf-8")
    assert words in card and chosen.products[0].node in card
    print_precision(found, entry)
    assert words in " ".join(capsys.readouterr().out.split())
    given = dict(commands({**bundle.report, "source": "model.onnx"}))["export"]
    assert precision_of(parsed(given)) == asked
    again = Compilation(source(), merge).validate(Bundle.open(bundle.path), QUICK)
    assert again.failure is None and again.precision is not None and again.precision.outputs == found.outputs
    model = onnx.load(bundle.components[0].file)
    assert open_session(model, 1) is not None and {e.key for e in model.metadata_props} >= {
        "tsmerge.merge_ratio"
    }


def test_how_a_choice_is_told() -> None:
    one = ProductEffect(component="a", node="b", module="c.d", weights=10, moved=0.25, kept=True)
    found = Sensitivity(
        budget_percent=1.0, data="x.csv", windows=8, columns=3, before_percent=2.5, after_percent=0.5,
        products=(one, *(replace(one, node=str(n), module="", kept=False) for n in range(9))),
    )  # fmt: skip
    assert sensitivity_words(found) == (
        "Chosen on x.csv, 3 columns x 8 windows, 1 % allowed: with all products quantised the weighted quantile loss "
        "may rise by +2.5 %, with 1 of 10 kept at fp32 by +0.5 %."
    )
    assert sensitivity_words(replace(found, before_percent=None, products=())).endswith(
        "may rise by an unknown amount, and all are."
    )
    rows = sensitivity_rows(found)
    assert rows[:2] == [("c.d", "10", "0.25", "fp32"), ("0", "10", "0.25", "")] and len(rows) == 6
