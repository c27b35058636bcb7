"""A distillation by hand: what its record and its report say."""

from __future__ import annotations

from typing import Any

from tsmerge_export.settings.config import MergeConfig

HALF, NONE = MergeConfig(ratio="1/2").to_dict(), MergeConfig("none").to_dict()


def moved(percent: float | None) -> dict[str, Any]:
    low, high = (None, None) if percent is None else (percent - 1, percent + 1)
    return {"percent": percent, "low": low, "high": high, "worst": percent, "column": "a"}


def both(mse: float | None, wql: float | None) -> dict[str, Any]:
    return {"mse": moved(mse), "wql": moved(wql)}


def written() -> dict[str, Any]:
    """Two tables at one setting and unmerged, with a control."""
    scores = []
    for data, after in (("one.csv", (1.5, 0.5)), ("two.csv", (2.0, 5.25))):
        control = both(-0.1, 0.0)
        scores += [
            {"data": data, "merge": HALF, "windows": 9, "before": both(108.5, 40.0), "after": both(*after),
             "control": control, "absolute": {"after": {"mse": 0.25, "wql": None}}},
            {"data": data, "merge": NONE, "windows": 9, "before": both(0.0, 0.0), "after": both(104.0, 30.0),
             "control": control, "absolute": {}},
        ]  # fmt: skip
    curve = [
        {"step": step, "seconds": 1.0, "mean": value, "increase": {"1/2": value}}
        for step, value in ((0, 108.0), (50, None), (100, 3.0))
    ]
    course = {
        "steps": 100, "batch": 8, "seconds": 12.5, "best_step": 100, "losses": [[50, 0.5, 0.25], [100, 0.25, 0.125]],
        "curve": curve,
    }  # fmt: skip
    return {
        "format": "tsmerge-distillation", "format_version": 1, "family": "chronos-bolt",
        "trained": {"merge": HALF, "elastic": [], "unmerged": 1.04}, "recipe": {"max_increase": 0.03, "steps": 100},
        "history": course, "control": course, "scores": scores, "met": False, "notes": [], "versions": {"torch": "2"},
        "source": "model", "data": ["one.csv", "two.csv"], "table": ["--sep", ";"], "output": "out", "created": "now",
        "speeds": [
            {"merge": HALF, "length": 512, "batch": 8, "value": 2.25, "low": 2.0, "high": 2.5, "runs": 9, "threads": 2}
        ],
    }  # fmt: skip
