"""A manifest as an export writes it, and what holds of every one that it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: What a manifest says beyond its report, but for the number of the format.
_MANIFEST_ONLY = {"format", "format_version", "files", "pipeline"}

PARITY: dict[str, Any] = {
    "passed": True, "cases": 80, "rows": 211, "max_abs": 1e-6, "max_rel": 2e-6, "atol": 5e-5, "rtol": 5e-5,
    "decision_flips": 9, "kept_mismatches": 0, "warnings": ["9 rows flipped"], "failures": [],
}  # fmt: skip

COST: dict[str, Any] = {
    "data": "series.csv", "windows": 6, "context": 512, "horizon": 64, "columns": [{}, {}],
    "overall": {
        "median": {
            "unmerged": {"mse": 0.5, "mae": None, "wql": 0.25},
            "merged": {"mse": 0.6, "mae": None, "wql": 0.2},
            "change_percent": {"mse": 20.0, "mae": None, "wql": -20.0},
        }
    },
    "speed": {"batch": 8, "length": 512, "threads": None, "unmerged_ms": 20.0, "merged_ms": 10.0, "ratio": 2.0},
    "notes": ["merging hardly pays"],
}  # fmt: skip

MANIFEST: dict[str, Any] = {
    "source": "some/model",
    "family": "chronos-bolt",
    "created": "2026-11-22",
    "merge": {"method": "local", "k": 1, "ratio": "1/4"},
    "components": [
        {
            "name": "model", "file": "model.onnx", "merges": [{"layer": 0}],
            "inputs": [{"name": "context", "dtype": "float32", "dims": ["batch", "length"]}],
            "outputs": [{"name": "quantiles", "dtype": "float32", "dims": ["batch", 3, 16]}],
            "barriers": [{"node": "n", "op_type": "Conv", "scope": "encoder.conv", "reason": "no rule"}],
        }
    ],
    "verdicts": {"parity": PARITY, "cost": COST},
    "versions": {"onnx": "1.23"},
    "files": {"model.onnx": {}},
}  # fmt: skip


def assert_reported(bundle: Path) -> dict[str, Any]:
    """``report.json`` of a bundle, which says what its manifest says, in the words of it."""
    report, manifest = (
        json.loads((bundle / f"{name}.json").read_text(encoding="utf-8")) for name in ("report", "manifest")
    )
    shared = manifest.keys() - _MANIFEST_ONLY
    assert {"family", "merge", "components", "verdicts", "providers"} <= shared
    assert {key: report[key] for key in shared if key in report} == {key: manifest[key] for key in shared}
    return dict(report)
