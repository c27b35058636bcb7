"""What distillation is worth: errors of the merged and the unmerged model before and after, with their spread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify.change import LEAST_WINDOWS
from tsmerge_export.verify.data import Windows
from tsmerge_export.verify.quality import Errors, increase, spread
from tsmerge_export.verify.window_errors import next_to_nothing

METRICS = ("mse", "wql")


@dataclass(frozen=True)
class Change:
    """By how much an error is above that of the original model, unmerged, in per cent: the median over columns.

    Attributes:
        low, high: of the interval that holds it with 90 % confidence (bootstrap over the windows, the same ones for
            both models); NaN where there are too few windows.
        worst: of the column that lost most. column: its name.
    """

    percent: float
    low: float
    high: float
    worst: float = math.nan
    column: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; what is not a number is None."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in vars(self).items()
        }


@dataclass(frozen=True)
class Score:
    """One table's test windows at one setting.

    Attributes:
        data: name of the table. merge: the setting; ``none`` is the model unmerged. windows: per column.
        before: by metric, the original weights. after: the trained ones.
        control: weights trained as long without merging, unmerged; None where none were asked for.
        absolute: by metric, the errors behind them, medians over columns: ``unmerged`` (of the original), ``before``,
            ``after``, ``control``. ``mse`` in squared standard deviations, ``wql`` as the sum of pinball losses of a
            window, in the unit of the data.
    """

    data: str
    merge: MergeConfig
    windows: int
    before: Mapping[str, Change]
    after: Mapping[str, Change]
    control: Mapping[str, Change] | None
    absolute: Mapping[str, Mapping[str, float]]

    @property
    def ratio(self) -> Fraction | None:
        """Of the setting: 0 unmerged, None where it has none for all layers."""
        if not self.merge.active:
            return Fraction(0)
        return self.merge.ratio if isinstance(self.merge.ratio, Fraction) else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""

        def changes(found: Mapping[str, Change] | None) -> dict[str, Any] | None:
            return None if found is None else {metric: change.to_dict() for metric, change in found.items()}

        return {
            "data": self.data,
            "merge": self.merge.to_dict(),
            "windows": self.windows,
            "before": changes(self.before),
            "after": changes(self.after),
            "control": changes(self.control),
            "absolute": {side: dict(values) for side, values in self.absolute.items()},
        }


def change_of(errors: Errors, reference: Errors, metric: str, windows: Windows, seed: int) -> Change:
    """Compare two models on the same windows, ``[C, W]`` each; see :mod:`tsmerge_export.verify.quality`."""
    smallest = next_to_nothing(metric, windows)
    found = increase(errors, reference, smallest, seed)
    column = None if found.worst is None else windows.columns[found.worst]
    low = high = math.nan
    if errors.shape[1] >= LEAST_WINDOWS:
        low, high = spread(errors, reference, smallest, seed)
    return Change(found.median, low, high, found.worst_percent, column)


def changes_of(
    errors: Mapping[str, Errors], reference: Mapping[str, Errors], windows: Windows, seed: int
) -> dict[str, Change]:
    """:func:`change_of` by metric."""
    return {m: change_of(errors[m], reference[m], m, windows, seed) for m in METRICS}


def absolute(errors: Mapping[str, Errors]) -> dict[str, float]:
    """By metric: the median over columns of the mean over windows."""
    return {m: float(np.median(np.nanmean(errors[m], axis=1))) for m in METRICS}


def mean_increase(changes: Sequence[Mapping[str, Change]], metric: str) -> float:
    """Mean over tables of the change in per cent; infinite where one is no number."""
    values = [change[metric].percent for change in changes]
    mean = float(np.mean(values)) if values else math.inf
    return mean if math.isfinite(mean) else math.inf
