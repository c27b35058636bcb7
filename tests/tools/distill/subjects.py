"""What trainings of the tests share: a table, a setting and few steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify.data import Table

HALF = MergeConfig(k=1, ratio="1/2")
#: One thread: torch's sums hang on their number.
QUICK: dict[str, Any] = {"steps": 12, "batch": 8, "validations": 3, "lr": 3e-3, "threads": 1}
#: Two ratios and a control.
SETTINGS: dict[str, Any] = {**QUICK, "elastic": "0,1/2", "steps": 4, "validations": 2, "control": True}


def table(rows: int = 1200, columns: int = 2) -> Table:
    """Noisy waves that follow their last days."""
    rng = np.random.default_rng(0)
    time = np.arange(rows)[:, None]
    waves = np.sin(2 * np.pi * time / 24 + np.arange(columns)) * (1 + 0.3 * np.sin(2 * np.pi * time / 168))
    values = 10 + 3 * waves + 0.3 * rng.normal(size=(rows, columns)).cumsum(0) / 10
    return Table("waves", tuple(f"c{i}" for i in range(columns)), values)
