"""Merged files of every family with inputs for them, to run on a GPU: ``python -m tests.gpu.files FOLDER``."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.families.harness import Subject
from tests.models import CONFIGS
from tsmerge_export.errors import TsmergeError
from tsmerge_export.settings.config import MergeConfig

MERGES = {
    "local": MergeConfig(ratio="1/4"),
    "l2": MergeConfig(ratio="1/3", k=3, similarity="l2"),
    "causal": MergeConfig(ratio="1/4", causal=True),
    "global": MergeConfig(ratio="1/4", k="global", prop_attn=True),
    "dynamic": MergeConfig(method="dynamic", threshold=0.6),
    "pitome": MergeConfig(method="pitome", ratio="1/4"),
    "ssm": MergeConfig(method="ssm", ratio="1/4"),
}
#: Settings that every family is tried with; the others with these alone.
EVERY = ("local", "dynamic")
MORE = {"chronos-bolt": tuple(name for name in MERGES if name != "ssm"), "mamba2": ("ssm",)}


def make(folder: Path, families: Sequence[str] = ()) -> list[Path]:
    """A folder a family and setting: ``model.onnx`` and ``feed0.npz``, ...; what a family refuses is left out.

    Args:
        families: these alone; none: all.
    """
    made = []
    for family, config in sorted(CONFIGS.items()):
        if families and family not in families:
            continue
        subject = Subject(family, config)
        if not subject.family.merge_points(subject.model).count:
            continue
        cases = [case for case in subject.cases() if not case.degenerate]
        for name, merge in MERGES.items():
            if name not in (*EVERY, *MORE.get(family, ())):
                continue
            try:
                file = subject.built(merge).merged
            except TsmergeError as error:
                print(f"{family}, {name}: {error}", file=sys.stderr)
                continue
            target = folder / f"{family}-{name}"
            target.mkdir(parents=True, exist_ok=True)
            for part in file.parent.glob(f"{file.stem}*"):
                shutil.copy(part, target)
            (target / file.name).rename(target / "model.onnx")
            for at, case in enumerate(cases):
                feed = subject.component.from_series(subject.model, case.series())
                np.savez(target / f"feed{at}.npz", **feed)
            made.append(target)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.files", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--family", nargs="+", default=[], choices=sorted(CONFIGS))
    given = parser.parse_args()
    print(f"{len(make(given.folder, given.family))} files")
