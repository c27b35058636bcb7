"""Covariates that are categories, as numbers: smoothed means of the target, or codes (chronos-forecasting's rules)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Items:
    """Rows of several series, one series after the other.

    Attributes:
        past: ``[R]``, the series of each row of the history. future: ``[F]``, of each row of the horizon.
        count: series.
    """

    past: Indices
    future: Indices
    count: int

    @classmethod
    def of(cls, lengths: Sequence[int], steps: int) -> Items:
        """From the length of each history and the horizon."""
        series = np.arange(len(lengths))
        return cls(np.repeat(series, lengths), np.repeat(series, steps), len(lengths))


def encode(
    past: Sequence[Any],
    future: Sequence[Any] | None,
    items: Items,
    target: Floats | None,
    names: Sequence[Any] | None = None,
) -> tuple[Floats, Floats | None]:
    """Categories as numbers.

    A missing value is a category of its own; one of the future that the past has not seen is none.

    Args:
        past: ``[R]``. future: ``[F]``, or None where it is not known. None and NaN are missing.
        target: ``[R]`` of a single target, NaN is missing: each category becomes the target's mean over the series'
            rows of that category and one row more, which holds the series' mean. None: it becomes its place among the
            sorted names, and what was not seen is NaN.
        names: of the categories, in order; None finds them.

    Returns:
        ``[R]`` and ``[F]`` (or None) float32.

    Raises:
        TypeError: a value that is not hashable.
    """
    if names is None:
        names = _names(past)
    place = {name: index for index, name in enumerate(names)}
    missing, unseen = len(names), len(names) + 1
    seen = _codes(past, place, missing, unseen)
    ahead = None if future is None else _codes(future, place, missing, unseen)
    if target is None:
        codes = np.append(np.arange(missing + 1, dtype=np.float32), np.float32(np.nan))
        return codes[seen], None if ahead is None else codes[ahead]
    means = _means(items, seen, target, unseen + 1)
    return means[items.past, seen], None if ahead is None else means[items.future, ahead]


def _means(items: Items, codes: Indices, target: Floats, slots: int) -> Floats:
    """Smoothed mean of the target, ``[series, slots]``; that of the series where it has no row of the category."""
    there = np.isfinite(target)
    value = np.where(there, target, 0).astype(np.float64)
    sums, counts = np.zeros((2, items.count, slots))
    np.add.at(sums, (items.past, codes), value)
    np.add.at(counts, (items.past, codes), there)
    own = sums.sum(1, keepdims=True) / np.maximum(counts.sum(1, keepdims=True), 1)
    return ((own + sums) / (1 + counts)).astype(np.float32)


def _names(values: Sequence[Any]) -> list[Any]:
    """What occurs, sorted; in order of appearance where it has no order."""
    found = dict.fromkeys(value for value in values if not is_missing(value))
    try:
        return sorted(found)
    except TypeError:
        return list(found)


def _codes(values: Sequence[Any], place: dict[Any, int], missing: int, unseen: int) -> Indices:
    return np.array([missing if is_missing(v) else place.get(v, unseen) for v in values], np.int64)


def is_missing(value: Any) -> bool:
    """Whether it is None, NaN, NaT or pandas' NA, whose comparisons have no truth; that is told without pandas."""
    if value is None or type(value).__name__ == "NAType":
        return True
    return isinstance(value, Hashable) and bool(value != value)
