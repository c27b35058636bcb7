"""Parity says yes to a right artefact and no to every kind of wrong one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import inliner

from tests.verify import standin
from tsmerge_export.errors import UsageError
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import corpus, eager, parity
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.decisions import Verdict
from tsmerge_export.verify.parity import ParityReport, combine, compare_row
from tsmerge_export.verify.tolerances import Tolerance

MERGE = MergeConfig(k=1, ratio="1/4", min_tokens=0)
CASES = [
    corpus.Case(entry, batch, length, 0)
    for entry in corpus.ENTRIES
    if entry.name in ("random", "seasonal", "periodic")
    for batch, length in ((1, 8), (2, 37), (5, 128), (2, 301))
]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> standin.Model:
    monkeypatch.setattr(eager, "merged_inside", standin.merging)
    return standin.Model()


def check(model: standin.Model, path: Path, merge: MergeConfig = MERGE, **options: object) -> ParityReport:
    checks = Checks(cases=options.pop("cases", CASES), rtol=options.pop("rtol", None))  # type: ignore[arg-type]
    return parity.check(standin.Family(), standin.Component(), model, merge, path, checks, **options)  # type: ignore[arg-type]


def test_a_right_artefact_passes(model: standin.Model, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = check(model, standin.artefact(model, tmp_path / "m.onnx"), progress=lambda *at: seen.append(at))
    found = report.to_dict()
    assert report.passed, found["failures"]
    assert found["cases"] == len(CASES)
    assert found["rows"] == sum(case.batch for case in CASES)
    assert found["kept_mismatches"] == 0
    assert 0 < found["max_rel"] < 1e-5
    assert seen[-1] == (len(CASES), len(CASES))
    json.dumps(found, allow_nan=False)


def test_the_whole_corpus_runs(model: standin.Model, tmp_path: Path) -> None:
    cases = [case for case in corpus.cases(256) if case.length >= 8]  # two tokens: its TopK cannot take none
    report = check(model, standin.artefact(model, tmp_path / "m.onnx"), cases=cases)
    failed = {case.name.split()[0] for case in report.cases if case.failures}
    # Tokens of zeros have no norm, for which the stand-in's function has no rule.
    assert failed <= {"constant", "piecewise-constant", "nan-gaps", "left-padding", "all-nan"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"scale": 1.01}, "error"),
        ({"den": 5}, "shape"),
        ({"tail": "kept"}, "merge decision differs"),
        ({"tail": "nan"}, "NaN or infinity"),
        ({"tail": "integer"}, "integers differ"),
    ],
)
def test_a_wrong_artefact_fails(model: standin.Model, tmp_path: Path, change: dict, reason: str) -> None:
    report = check(model, standin.artefact(model, tmp_path / "m.onnx", **change))
    assert not report.passed
    assert any(reason in failure for failure in report.failures), report.failures


def test_a_wrong_decision_counts_as_mismatch(model: standin.Model, tmp_path: Path) -> None:
    report = check(model, standin.artefact(model, tmp_path / "m.onnx", tail="kept"))
    assert report.to_dict()["kept_mismatches"] > 0


def test_eager_without_merging_fails_against_a_merged_file(model: standin.Model, tmp_path: Path) -> None:
    assert not check(model, standin.artefact(model, tmp_path / "m.onnx"), MergeConfig(method="none")).passed


def test_a_file_that_does_not_run_is_a_failure_not_a_crash(model: standin.Model, tmp_path: Path) -> None:
    path = standin.artefact(model, tmp_path / "m.onnx")
    proto = onnx.load(path)
    proto.graph.node[0].attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(np.array([0, 7, 4])))
    onnx.save(proto, path)
    report = check(model, path, cases=CASES[:2])
    assert not report.passed
    assert all("the run failed" in failure for failure in report.failures)


def test_a_file_that_does_not_load_is_a_failure_not_a_crash(model: standin.Model, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no model")
    report = check(model, path)
    assert not report.passed
    assert "cannot be loaded" in report.failures[0]


def test_inlined_artefact_with_a_second_file_for_decisions(model: standin.Model, tmp_path: Path) -> None:
    path = standin.artefact(model, tmp_path / "m.onnx")
    inlined = tmp_path / "inlined.onnx"
    onnx.save(inliner.inline_local_functions(onnx.load(path)), inlined)
    assert check(model, inlined, with_decisions=path).passed
    # Without it no decision can be read, and a missing proof is no proof.
    assert not check(model, inlined).passed


def test_model_and_threads_are_left_as_they_were(model: standin.Model, tmp_path: Path) -> None:
    import torch

    model.train()
    before = torch.get_num_threads()
    check(model, standin.artefact(model, tmp_path / "m.onnx"), cases=CASES[:1])
    assert model.training
    assert torch.get_num_threads() == before


def test_tolerance_out_of_range(model: standin.Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--rtol 0.1"):
        check(model, standin.artefact(model, tmp_path / "m.onnx"), rtol=0.1)


def judge(verdict: list[int], tied: list[bool], got: list[float], tapped: list[float]) -> parity.CaseResult:
    """Three rows of one value each; 1.0 is expected."""
    case = corpus.Case(corpus.ENTRIES[0], 3, 8, 0)
    want, got_, tapped_ = ({"y": np.array(x)[:, None]} for x in ([1.0] * 3, got, tapped))
    return parity.judge(case, want, got_, tapped_, np.array(verdict), np.array(tied), Tolerance(1e-5, 1e-5))


def test_flipped_rows_are_counted_and_their_values_left_out() -> None:
    result = judge([Verdict.EQUAL, Verdict.FLIP, Verdict.EQUAL], [False, True, False], [1, 5, 1], [1, 5, 1])
    assert (result.flips, result.mismatches, result.failures, result.max_rel) == (1, 0, [], 0.0)


def test_a_flip_only_in_the_run_without_taps_needs_a_tie_and_right_values_with_taps() -> None:
    equal = [Verdict.EQUAL] * 3
    assert judge(equal, [False, True, False], [1, 5, 1], [1, 1, 1]).flips == 1
    assert judge(equal, [False, False, False], [1, 5, 1], [1, 1, 1]).failures
    assert judge(equal, [False, True, False], [1, 5, 1], [1, 5, 1]).failures


def test_a_mismatch_is_a_failure_whatever_the_values() -> None:
    result = judge([Verdict.EQUAL, Verdict.EQUAL, Verdict.MISMATCH], [False] * 3, [1, 1, 1], [1, 1, 1])
    assert result.mismatches == 1
    assert result.failures == ["row 2: merge decision differs beyond float noise"]


def judge_lengths(
    verdict: list[int],
    tied: list[bool],
    got: tuple[int, ...],
    *,
    value: float = 1.0,
    seen: int = 4,
    count: bool = True,
) -> parity.CaseResult:
    """Two rows ``[2, 4, 3]`` of ones expected; ``got`` is the shape found, ``seen`` the length in the run with taps."""
    case = corpus.Case(corpus.ENTRIES[0], 2, 8, 0)
    want, found, tapped = np.ones((2, 4, 3)), np.ones(got), np.full((2, seen, 3), value)
    flags = np.array(verdict), np.array(tied)
    return parity.judge(
        case, {"y": want}, {"y": found}, {"y": tapped}, *flags, Tolerance(1e-5, 1e-5), count_tied=count
    )


FLIPS, EQUALS, BOTH = [Verdict.FLIP] * 2, [Verdict.EQUAL] * 2, [True, True]


def test_a_batch_that_flipped_as_a_whole_may_have_another_length() -> None:
    result = judge_lengths(FLIPS, BOTH, (2, 5, 3), seen=5)
    assert (result.flips, result.mismatches, result.failures) == (2, 0, [])
    # Only in the run without taps: the one with them has the right values.
    assert (
        judge_lengths(EQUALS, BOTH, (2, 5, 3)).flips,
        judge_lengths(EQUALS, BOTH, (2, 5, 3)).failures,
    ) == (2, [])


@pytest.mark.parametrize(
    "wrong",
    [
        judge_lengths(FLIPS, BOTH, (2, 5, 3), seen=5, count=False),  # a method whose r is fixed
        judge_lengths([Verdict.FLIP, Verdict.EQUAL], BOTH, (2, 5, 3), value=2.0),
        judge_lengths([Verdict.FLIP, Verdict.EQUAL], [True, False], (2, 5, 3)),
        judge_lengths(EQUALS, [False, False], (2, 5, 3)),
        judge_lengths(EQUALS, BOTH, (2, 5, 3), value=2.0),
        judge_lengths(EQUALS, BOTH, (2, 5, 3), seen=5),
        judge_lengths(FLIPS, BOTH, (3, 4, 3)),  # the batch
        judge_lengths(FLIPS, BOTH, (2, 5, 4)),  # two axes
        judge_lengths(FLIPS, BOTH, (2, 4)),
        judge_lengths([Verdict.MISMATCH] * 2, BOTH, (2, 5, 3), seen=5),
    ],
)
def test_any_other_difference_of_shape_is_a_failure(wrong: parity.CaseResult) -> None:
    assert any("shape" in failure for failure in wrong.failures)


def test_no_rows_compared_is_no_pass() -> None:
    assert not ParityReport("model", Tolerance(1e-5, 1e-5)).passed


def test_flip_share_warns_and_combine_adds_up() -> None:
    case = parity.CaseResult("random B=5 L=9", degenerate=False, rows=5, flips=1, max_rel=1e-6)
    calm = parity.CaseResult("constant B=5 L=9", degenerate=True, rows=5, flips=5)
    one, two = (
        ParityReport(name, Tolerance(1e-5, 1e-5), cases) for name, cases in (("a", [case]), ("b", [calm]))
    )
    assert "1 of 5 rows" in one.warnings[0]
    assert not two.warnings
    assert not two.passed  # every row flipped: nothing was compared
    both = combine([one, two]).to_dict()
    assert both["rows"] == 10
    assert both["decision_flips"] == 6
    assert [part["name"] for part in both["components"]] == ["a", "b"]


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("want", "got", "fine"),
    [
        ([1.0, 2.0], [1.0, 2.0], True),
        ([100.0, 1e-3], [100.0, 2e-3], True),  # small next to the row's scale
        ([100.0, 1e-3], [100.0, 1e-1], False),
        ([1e12, 0.0], [1e12 + 1e6, 0.0], True),
        ([1e-12, 0.0], [1e-12, 1e-15], False),  # tiny rows are held to their own scale
        ([0.0, 0.0], [0.0, 1e-6], True),  # no scale: absolute
        ([0.0, 0.0], [0.0, 1e-4], False),
        ([NAN, 1.0], [NAN, 1.0], True),
        ([NAN, 1.0], [1.0, 1.0], False),
        ([1.0, 1.0], [NAN, 1.0], False),
        ([INF, 1.0], [INF, 1.0], True),
        ([INF, 1.0], [-INF, 1.0], False),
        ([NAN, NAN], [NAN, NAN], True),
    ],
)
def test_compare_row(want: list[float], got: list[float], fine: bool) -> None:
    fault, _, _ = compare_row(np.array(want), np.array(got), Tolerance(1e-5, 1e-5))
    assert (fault is None) == fine


def test_integers_are_compared_exactly() -> None:
    tolerance = Tolerance(1e-2, 1e-2)
    assert compare_row(np.array([1000, 1]), np.array([1000, 1]), tolerance)[0] is None
    assert compare_row(np.array([1000, 1]), np.array([1001, 1]), tolerance)[0] is not None
