"""Outputs of a graph, row by row of the batch."""

from __future__ import annotations

import numpy as np

from tsmerge_export.families.base import Arrays


def by_row(values: Arrays, batch: int) -> Arrays:
    """Outputs with one entry per row of the batch first; what has no batch is the same for every row."""
    return {
        name: value
        if value.ndim and value.shape[0] == batch
        else np.broadcast_to(value, (batch, *value.shape))
        for name, value in values.items()
    }
