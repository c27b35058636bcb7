"""What the commands that search are tried on: a tiny model, a short table, flags that make them quick."""

from __future__ import annotations

import numpy as np

from tsmerge_export.verify.data import Table

FAST = ["--data", "series.csv", "--windows", "5", "--threads", "1", "--length", "120", "--batch", "1"]


def table() -> Table:
    """A daily wave of two columns, with noise."""
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(900) * 2 * np.pi / 24)[:, None] + rng.normal(0, 0.1, (900, 2))
    return Table("t", ("a", "b"), wave)
