"""Precision beside merging in one search: what is measured below float32, what is chosen, exported and refused."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic

from tests.models import tiny_folder
from tests.quick import quick_verdicts
from tests.tools.searches import FAST, table
from tsmerge_export.backends.onnxruntime.place import CPU, TENSORRT, Place
from tsmerge_export.cli import main
from tsmerge_export.cli.parser import export_parser, tsmerge_parser
from tsmerge_export.cli.precision import check_precisions
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.precision.products import products
from tsmerge_export.precision.quantise import as_products
from tsmerge_export.report.html.commands import commands
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.tune import contender, search, verdict
from tsmerge_export.tools.tune.search import NONE, Search, Tried, worth_lowering
from tsmerge_export.verify.calibration import WindowCalibration
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.quality import increase
from tsmerge_export.verify.speed import Speedup
from tsmerge_export.verify.window_errors import Forecasts, next_to_nothing, run_named

pytest.importorskip("optuna", reason="optuna is not installed: pip install optuna")
Capture = pytest.CaptureFixture[str]
SETTINGS = [MergeConfig(r=number + 1) for number in range(20)]


def one(
    upper: float, speedup: float, merge: MergeConfig = NONE, precision: str = "fp32", **more: Any
) -> Tried:
    return Tried("m", merge, upper - 1, upper, speedup, precision=precision, **more)


def test_what_is_on_or_near_the_front_and_within_the_budget_is_quantised() -> None:
    base, beyond = one(0, 1), one(9, 3, SETTINGS[0])
    first, second = one(2, 2, SETTINGS[1]), one(1, 1.5, SETTINGS[2])
    near, far = one(2.5, 1.97, SETTINGS[3]), one(2.5, 1.7, SETTINGS[4])
    failed = Tried("m", SETTINGS[5], 0, 0, 0, "no")
    tried = [base, far, second, near, beyond, failed, first, first]
    assert worth_lowering(tried, 3.0) == [base, first, near, second]
    # Weights that are not meant to run unmerged are not quantised so.
    unfit = Tried("d", NONE, 0, 0, 1, meant=False)
    assert worth_lowering([unfit, *tried], 3.0) == [base, first, near, second]
    many = [one(float(n), 1.0 + n, SETTINGS[n]) for n in range(12)]
    assert [found.speedup for found in worth_lowering(many, 99)] == [12, 11, 10, 9, 8, 7, 6, 5]


def test_a_precision_is_done_once_enough_is_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    every = [one(0, 1), *(one(2, 3 - n / 100, SETTINGS[n]) for n in range(6))]
    uppers = {"int8": [9.0, 9, 2, 2, 2, 2], "int4-weights": [9.0] * 6}

    def tried(self: Any, contender: Any, merge: MergeConfig, kind: str) -> Tried:
        return one(uppers[kind][SETTINGS.index(merge)] if merge.active else 0.5, 4, merge, kind)

    monkeypatch.setattr(Search, "_tried", tried)
    monkeypatch.setattr(Search, "tried", every)
    found = object.__new__(Search)
    found.contenders = [SimpleNamespace(name="m", trained=None)]  # type: ignore[list-item]
    found.low, found.trained = [], []
    told: list[tuple[int, int]] = []
    found.lower(["int8", "int4-weights"], 3.0, lambda *done: told.append(done))
    assert [(each.precision, each.merge) for each in found.low] == [
        *(("int8", merge) for merge in (NONE, *SETTINGS[:5])),
        *(("int4-weights", merge) for merge in (NONE, *SETTINGS[:6])),
    ]
    assert (told[0], told[-1]) == ((1, 14), (14, 14))


class Fake:
    """A contender whose error depends on the precision."""

    name, validation, test = "m", None, SimpleNamespace(columns=("a",))

    def errors(self, merge: MergeConfig, windows: Any, precision: str = "fp32") -> dict[str, Any]:
        return {"mse": np.full((1, 5), 1.0 if precision == "fp32" else 1.01)}

    def least(self, metric: str, windows: Any) -> Any:
        return np.zeros(1)


@pytest.mark.parametrize(
    ("kinds", "precision", "merge"),
    [
        (("fp32", "int8"), "int8", SETTINGS[0]),
        (("fp32",), "fp32", SETTINGS[0]),
        (("int8-weights",), "int8-weights", NONE),
    ],
)
def test_the_answer_has_one_of_the_precisions_asked_for_and_is_tested_in_it(
    kinds: tuple[str, ...], precision: str, merge: MergeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def speed(reference: Any, contender: Any, merge: MergeConfig, *, precision: str, **_: Any) -> Speedup:
        value = (2.0 if merge.active else 1.0) * {"fp32": 1.0, "int8": 1.5, "int8-weights": 1.2}[precision]
        return Speedup(value, value, value, 30)

    asked: list[tuple[MergeConfig, str]] = []
    monkeypatch.setattr(verdict, "time_against", speed)
    monkeypatch.setattr(verdict, "over_eager", lambda *_: None)
    monkeypatch.setattr(verdict, "pays_from", lambda c, merge, known, kind: asked.append((merge, kind)))
    tried = [
        one(0, 1), one(2, 2, SETTINGS[0]), one(0.5, 1.5, NONE, "int8"), one(2.5, 3, SETTINGS[0], "int8"),
        one(1, 1.2, NONE, "int8-weights"), one(4, 2.4, SETTINGS[0], "int8-weights"),
    ]  # fmt: skip
    fakes: Any = [Fake()]
    found = verdict.answer(fakes, 0, tried, "mse", 3.0, lambda *_: None, kinds=kinds)
    assert found.fastest is not None
    assert (found.fastest.tried.precision, found.fastest.tried.merge) == (precision, merge)
    assert {final.tried.precision for final in found.finals[1:]} <= set(kinds)
    assert found.fastest.test.median == pytest.approx(0.0 if precision == "fp32" else 1.0)
    assert asked == [(merge, precision)]
    assert found.reasons[0].startswith("do not merge, and take int8-weights: 1.20") == (not merge.active)
    assert found.to_dict()["fastest"]["precision"] == precision


@pytest.mark.slow
def test_command_exports_the_file_that_was_judged(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_verdicts(monkeypatch)

    def speed(reference: Any, tried: Any, merge: MergeConfig, *, precision: str, **_: Any) -> Speedup:
        value = (2.0 if merge.active else 1.0) * (1.5 if precision == "int8" else 1.0)
        return Speedup(value, value, value, 10)

    monkeypatch.setattr(search, "time_against", speed)
    monkeypatch.setattr(verdict, "time_against", speed)
    monkeypatch.setattr(verdict, "over_eager", lambda *_: None)
    run = Search.run
    monkeypatch.setattr(Search, "run", lambda self, seconds, told: run(self, 3600, told, trials=1))
    flags = ["--max-increase", "1000%", "--precision", "fp32,int8", "--json", "t.json"]
    assert main(["tune", "tiny", *FAST, *flags]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert ", int8 is faster than unmerged fp32 by" in out
    found = json.loads(Path("t.json").read_text())
    assert [row["precision"] for row in found["tried"]] == ["fp32", "fp32", "int8", "int8"]
    assert found["run"]["precision"] == ["fp32", "int8"]
    chosen = found["answer"]["fastest"]
    assert (chosen["precision"], chosen["speedup"], found["front"][0]) == ("int8", 3.0, 3)
    manifest = json.loads(Path("tiny-tuned/manifest.json").read_text())
    assert manifest["precision"]["kind"] == "int8"
    assert manifest["verdicts"]["precision"]["passed"]
    report = json.loads(Path("tiny-tuned/report.json").read_text())
    assert report["search"] == found
    assert ", int8 (this bundle)" in Path("tiny-tuned/report.html").read_text()
    given = dict(commands(report))
    asked = tsmerge_parser().parse_args(shlex.split(given["search the setting again"])[1:])
    assert asked.precision == ("fp32", "int8")
    assert export_parser().parse_args(shlex.split(given["export"])[1:]).precision == "int8"

    # The errors are those of the file in the bundle, on the same windows.
    assert "MatMulInteger" in {node.op_type for node in onnx.load("tiny-tuned/model.onnx").graph.node}
    made = contender.prepare(
        "tiny", table(), Checks(threads=1), folder=folder, windows=5, batch=1, length=120, options={}
    )
    names = [spec.name for spec in made.component.outputs]
    session = ort.InferenceSession("tiny-tuned/model.onnx", providers=[CPU])
    low = Forecasts(made.source.of_family, made.source.model, partial(run_named, session, names))
    for windows, said in (
        (made.validation, chosen["increase_percent"]),
        (made.test, chosen["test"]["increase_percent"]),
    ):
        errors = [each["wql"] for each in (low.errors(windows), made.errors(NONE, windows))]
        moved = increase(errors[0], errors[1], next_to_nothing("wql", windows)).median
        assert said == pytest.approx(moved, rel=1e-4)
    assert abs(moved) > 1e-4


def test_what_is_measured_is_the_quantised_file_and_what_decodes_is_quantised_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = contender.prepare(
        str(tiny_folder(tmp_path / "tiny")), table(), Checks(threads=1), folder=tmp_path, windows=1, batch=2,
        length=120, options={},
    )  # fmt: skip
    half = MergeConfig(ratio="1/2")
    (tmp_path / "merged").mkdir()
    built = made.compilation.merged(made.component, tmp_path / "merged", half)
    # ONNX Runtime's quantiser by itself, on the merged file.
    quantize_dynamic(
        built.merged, tmp_path / "by_hand.onnx", op_types_to_quantize=["MatMul", "Gemm"], per_channel=True,
        nodes_to_quantize=[product.node for product in products(as_products(onnx.load(built.merged)))],
        weight_type=QuantType.QInt8,
    )  # fmt: skip
    session = ort.InferenceSession(tmp_path / "by_hand.onnx", providers=[CPU])
    names = [spec.name for spec in made.component.outputs]
    want = run_named(session, names, made.feed)
    float32, low = (made.run_of(half, kind)(made.feed) for kind in ("fp32", "int8"))
    for name in names:
        np.testing.assert_allclose(low[name], want[name], rtol=1e-5, atol=1e-5 * np.abs(want[name]).max())
        assert not np.allclose(low[name], float32[name], rtol=1e-4, atol=1e-4)
    # Scales that are calibrated are those of an export with the table of the search.
    with pytest.MonkeyPatch.context() as patch:
        given: list[Any] = []
        patch.setattr(
            contender, "WindowCalibration", lambda *values: given.append(values) or WindowCalibration(*values)
        )
        static = made.run_of(half, "int8-static")(made.feed)
    assert given[0][3] is made.table and made.table is not None and made.table.values.shape == (900, 2)
    assert not any(np.array_equal(static[name], low[name]) for name in names)
    errors = [made.errors(half, made.validation, kind)["mse"] for kind in ("fp32", "int8")]
    assert not np.allclose(*errors, rtol=1e-6)

    # Of a model that decodes: both parts, opened once.
    opened: list[list[str]] = []

    def noted(family: Any, model: Any, files: Any, checks: Any) -> Any:
        opened.append([item.merged.name for item in files])
        assert all("MatMulInteger" in {n.op_type for n in onnx.load(f.merged).graph.node} for f in files)
        return "opened"

    monkeypatch.setattr(contender, "decoded_by", noted)
    part: Any = SimpleNamespace(name="decoder")
    decoder = replace(built, component=part, merged=tmp_path / "decoder.onnx")
    shutil.copy(built.merged, decoder.merged)
    made = replace(made, behind=(decoder,), runs={}, low_forecasts={})
    for merge in (NONE, half):
        made.run_of(merge, "int8")
    assert opened == [["model.onnx", "decoder.onnx"]]
    assert made.low_forecasts == {"int8": "opened"}


@pytest.mark.parametrize(
    ("flag", "code", "words"),
    [
        ("int9", 2, "--precision int9: choose one of fp32, int8"),
        (",", 2, "names no precision"),
        ("int8,fp16", 3, "--precision fp16: files in half are for GPUs"),
        ("bf16", 3, "--precision bf16: files in half are for GPUs"),
        ("int8", 2, "--precision int8: the model has no product with a large enough weight"),
    ],
)
def test_what_cannot_be_is_one_line_before_any_search(
    flag: str, code: int, words: str, folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tsmerge_export.precision.products.LEAST", 10**6)
    monkeypatch.setattr(search.Search, "__init__", None)
    assert main(["tune", "tiny", *FAST, "--precision", flag]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    with pytest.raises(UnsupportedError, match="are not for TensorRT"):
        check_precisions(["fp32", "int8"], Place((TENSORRT, CPU), ((), ())))
