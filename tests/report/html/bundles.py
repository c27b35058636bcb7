"""Bundles of tiny models of every family, with names that a page must not trust."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tsmerge_export as tsm
from tests.exports import FOLDER
from tests.models import tiny_folder
from tests.quick import quick_verdicts
from tests.report.manifests import assert_reported
from tsmerge_export.settings.config import MergeConfig

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>\"'&\u202e"
_FOLDER = tempfile.TemporaryDirectory(prefix="tsmerge-tests-")
SETTINGS = {
    "chronos-bolt": MergeConfig("local", ratio="1/4"),
    "chronos-t5": MergeConfig("dynamic", threshold=0.5, k=2),
    "mamba2": MergeConfig("ssm", ratio="1/4"),
}
INLINE = "chronos-t5"


def _root() -> Path:
    """The folder of all workers, where there are several; each name in it is made once, see :func:`_alone`."""
    root = Path(os.environ.get(FOLDER, _FOLDER.name), "pages")
    root.mkdir(exist_ok=True)
    return root


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Only one worker at a time makes what has this name."""
    with Path(_root(), f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@cache
def series() -> Path:
    """Three columns: one constant in its test windows, one with gaps; file and column names are hostile."""
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(500) * 2 * np.pi / 24)[:, None] + rng.normal(0, 0.1, (500, 3))
    wave[100:103, 2] = np.nan
    wave[-20:-16, 2] = np.nan
    path = _root() / "a<b>&'\" series.csv"
    names = ["first", HOSTILE.replace('"', '""'), "gaps"]
    lines = [",".join(f'"{name}"' for name in names)]
    lines += [",".join("" if np.isnan(v) else f"{v:.5f}" for v in row) for row in wave]
    with _alone("series"):
        if not path.exists():
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@cache
def bundle(family: str) -> Path:
    """An export of a tiny model, with few cases of the parity corpus; whoever asks first makes it for all workers."""
    output = _root() / f"{family} <b>bundle"
    with _alone(family), pytest.MonkeyPatch.context() as patch:
        if not output.exists():
            quick_verdicts(patch)
            model = tiny_folder(_root() / f"{family} <i>'\"&", family)
            tsm.export(
                model,
                SETTINGS[family],
                output=output,
                data=series(),
                threads=1,
                seed=3,
                inline=family == INLINE,
            )
    return output


def report(family: str) -> dict[str, Any]:
    """``report.json`` of the bundle."""
    return assert_reported(bundle(family))


def search() -> dict[str, Any]:
    """What `tsmerge tune` hands to the report: made up, with a failed setting and two models."""

    def one(source: str, merge: MergeConfig, *figures: float, error: str | None = None) -> dict[str, Any]:
        keys = ("increase_percent", "upper_percent", "speedup")
        values = figures if error is None else (None,) * 3
        return {
            "source": source,
            "merge": merge.to_dict(),
            **dict(zip(keys, values, strict=True)),
            "error": error,
        }

    none = one("small", MergeConfig("none"), 0.0, 0.0, 1.0)
    fast = one(f"big {HOSTILE}", MergeConfig("local", ratio="1/2"), 1.5, 2.5, 3.25)
    wild = one("small", MergeConfig("global", ratio="1/2"), 250.0, 400.0, 4.125)
    broken = one("small", MergeConfig("pitome"), error=f"failed at {HOSTILE}")
    test = {"increase_percent": 1.75, "upper_percent": 2.75, "speedup": 3.125}
    chosen = {**fast, "test": test}
    return {
        "tried": [none, broken, fast, wild],
        "front": [3, 2, 0],
        "answer": {
            "fastest": chosen, "finals": [{**none, "test": {**test, "speedup": 1.0}}, chosen],
            "reasons": ["3.12 times as fast"],
        },
        "identity": {"models": ["small", f"big {HOSTILE}"], "metric": "wql", "batch": 8, "length": None, "windows": 16},
        "max_increase_percent": 3.0,
        "run": {"data": "x.csv", "budget_seconds": 600.0, "threads": 1, "seed": 0},
    }  # fmt: skip
