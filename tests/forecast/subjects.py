"""Models whose forecasters are tested."""

from __future__ import annotations

from tests.families.harness import Subject
from tests.models import PATCHTST
from tsmerge_export.settings.config import MergeConfig

NONE, RATIO = MergeConfig(method="none"), MergeConfig(ratio="1/4")

CHRONOS_2 = Subject("chronos-2")

TIMESFM = {name: Subject(name) for name in ("timesfm", "timesfm-2.5")}

POINTS = Subject("patchtst")

SAMPLES = Subject("patchtst", {**PATCHTST, "loss": "nll", "num_parallel_samples": 7})
