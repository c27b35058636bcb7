"""A report of merge cost, from errors alone."""

from __future__ import annotations

import math

from tsmerge_export.verify.cost import ColumnCost, CostReport
from tsmerge_export.verify.speed import SpeedReport


def report(before: list[float], after: list[float]) -> CostReport:
    columns = tuple(
        ColumnCost(f"c{i}", *(dict.fromkeys(("mse", "mae", "wql"), value) for value in pair), {})
        for i, pair in enumerate(zip(before, after, strict=True))
    )
    naive = dict.fromkeys(("mse", "mae", "wql"), math.nan)
    columns = tuple(ColumnCost(c.column, c.unmerged, c.merged, naive) for c in columns)
    return CostReport("x.csv", 8, 8, 2, 4, columns, SpeedReport(1, 8, 1, 5, 2.0, 1.0), ())
