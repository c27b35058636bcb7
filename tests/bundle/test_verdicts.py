"""What the verdicts say is what a bundle holds: every figure by its name, whether there is one or not."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any

import pytest

from tsmerge_export.backends.tensorrt_rtx.engine import Engine
from tsmerge_export.bundle.target import MemoryPlan, TargetEntry
from tsmerge_export.bundle.verdicts import Case, Cost, Parity, Speed, Verdicts
from tsmerge_export.typed import plain, read, written
from tsmerge_export.verify.cost import ColumnCost, CostReport
from tsmerge_export.verify.parity_report import CaseResult, ParityReport, combine
from tsmerge_export.verify.speed import SpeedReport
from tsmerge_export.verify.tolerances import Tolerance

NAN = float("nan")
#: No two figures are the same, and none is what its field is where nothing is said.
CASE = CaseResult("huge", True, 9, 3, 0.5, 0.25, 2, 1, ["row 1: far"], [64, 48], 4, 1.5, {"y": 5})
SPEED = SpeedReport(8, 96, 2, 20, 3.0, 2.0)


def read_back(value: Any) -> Any:
    """The same, through a file."""
    return read(type(value), json.loads(json.dumps(written(value), allow_nan=False)), "a file")


def test_a_case() -> None:
    """Field by field: nothing of it is lost, nor is anything waited for that it does not say."""
    entry = CASE.entry()
    assert plain(entry) == vars(CASE)
    assert list(plain(entry)) == list(vars(CASE))  # the order in a file, too
    assert all(getattr(entry, one.name) != getattr(Case(), one.name) for one in fields(Case))
    assert read_back(entry) == entry


def test_parity_of_a_component_and_of_all() -> None:
    one = ParityReport("encoder", Tolerance(1e-3, 1e-4), [CASE], faults=["a merge is missing"])
    summary = {
        "passed": False, "cases": 1, "rows": 9, "max_abs": 0.5, "max_rel": 0.25, "atol": 1e-3, "rtol": 1e-4,
        "decision_flips": 2, "kept_mismatches": 1, "noisy_rows": 4, "times_noise": 1.5, "warnings": one.warnings,
        "failures": one.failures,
    }  # fmt: skip
    part = summary | {"name": "encoder", "details": [vars(CASE)]}
    both = {**summary, "components": [part]}
    assert one.failures[0] == "a merge is missing" and one.warnings
    for report, said in ((one, part), (combine([one]), both)):
        assert report.to_dict() == written(report.verdict()) == said
        assert list(report.to_dict()) == list(said)
        assert read_back(report.verdict()) == report.verdict()


def test_a_component_without_a_case() -> None:
    """That none was compared is said; a verdict whose cases are not kept says nothing of them."""
    assert ParityReport("all", Tolerance(0.0, 0.0)).to_dict()["details"] == []
    assert not {"name", "details", "components", "against"} & set(written(Parity()))


def test_cost_of_a_family() -> None:
    errors = ({"mse": 4.0, "mae": 2.0, "wql": 1.0}, {"mse": 5.0, "mae": 3.0, "wql": NAN})
    naive = {"mse": 7.0, "mae": 6.0, "wql": NAN}
    flat = ColumnCost("flat", dict.fromkeys(naive, 0.0), dict.fromkeys(naive, 0.5), naive, NAN)
    report = CostReport(
        "a.csv", 8, 64, 16, 24, (ColumnCost("load", *errors, naive, 0.75), flat), SPEED, ("a note",), (9, 7)
    )
    found = report.to_dict()
    assert list(found) == [
        "data", "windows", "context", "horizon", "season", "columns", "overall", "changes", "speed", "notes", "tokens",
    ]  # fmt: skip
    assert [found[name] for name in list(found)[:5]] == ["a.csv", 8, 64, 16, 24]
    assert found["columns"][0] == {
        "column": "load", "unmerged": errors[0], "merged": {"mse": 5.0, "mae": 3.0, "wql": None},
        "naive": {"mse": 7.0, "mae": 6.0, "wql": None}, "wql_scale": 0.75,
    }  # fmt: skip
    assert found["columns"][1]["wql_scale"] is None
    assert found["overall"]["mean"]["unmerged"] == {"mse": 2.0, "mae": 1.0, "wql": 0.5}
    assert found["overall"]["median"]["change_percent"] == {"mse": 25.0, "mae": 50.0, "wql": None}
    worst = {"column": "load", "unmerged": 2.0, "merged": 3.0, "percent": 50.0}
    assert found["changes"]["mae"] == {
        "median_percent": 50.0, "worst": worst, "compared": 1, "left_out": ["flat"],
    }  # fmt: skip
    assert found["changes"]["wql"]["worst"] is None
    assert found["speed"] == {
        "batch": 8, "length": 96, "threads": 2, "runs": 20, "unmerged_ms": 3.0, "merged_ms": 2.0, "ratio": 1.5,
    }  # fmt: skip
    assert list(found["speed"]) == [*vars(SPEED), "ratio"]
    assert (found["notes"], found["tokens"]) == (["a note"], [9, 7])
    assert read_back(report.verdict()) == report.verdict()


def test_cost_of_a_graph_and_what_was_not_measured() -> None:
    cost = Cost(data="made", outputs={"y": 0.5}, speed=SPEED.entry())
    assert list(written(cost)) == ["data", "outputs", "speed", "notes", "tokens"]
    assert written(Verdicts(Parity())).keys() == {"parity"}
    assert (
        read(Speed, {"batch": 1, "length": 2, "unmerged_ms": 2, "merged_ms": 1, "ratio": 2}, "old").runs
        is None
    )


PLAN = Engine(1, 2, 3, 4.5, "1.2")
PARITY = Parity(passed=True, cases=2, name="model", against="b")
PROFILE = {"x": {"min": [1, 8], "opt": [2, 8], "max": [4, 8]}}
TARGETS: dict[str, dict[str, Any]] = {
    "engine": {
        "runtime": "tensorrt-rtx", "dtype": "fp16", "on_gpu": "never", "components": {"model": {
            "profile": PROFILE, "onnx": "m.onnx", "parity": written(PARITY), "engine": "m.eng", "engine_sha256": "0f",
            "compute_capabilities": ["86"], "plan": {"merged": asdict(PLAN)},
        }},
    },
    "plugin": {
        "runtime": "tensorrt", "dtype": "fp32", "on_gpu": "never", "components": {"model": {
            "profile": PROFILE, "onnx": "m.onnx", "parity": written(PARITY), "commands": {"trtexec": "trtexec m"},
            "missing": [], "engine": "m.engine", "engine_parity": written(PARITY),
        }}, "script": "build.sh",
    },
    "network": {
        "runtime": "openvino", "dtype": "fp32", "version": "2026.0",
        "components": {"model": {"onnx": "m.onnx", "parity": written(PARITY)}},
    },
    "of another package": {
        "runtime": "toy", "dtype": "fp32", "components": {"model": {"onnx": "m.onnx", "box": None, "toys": {"a": [1]}}},
        "own": 3, "shop": {"street": []},
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", TARGETS)
def test_what_a_back_end_says_is_kept_as_it_is(kind: str) -> None:
    said = TARGETS[kind]
    entry = read(TargetEntry, said, "a back end")
    assert json.dumps(written(entry)) == json.dumps(said)


def test_the_plan_of_an_engine() -> None:
    assert plain(read(MemoryPlan, asdict(PLAN), "a file")) == asdict(PLAN)
