"""Long data frames: their series, the timestamps that follow, and the frame of forecasts."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tsmerge_export.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are read."""

    id: str
    timestamp: str
    target: str


def pandas() -> Any:
    """The module. Raises MissingDependencyError where it is not installed."""
    try:
        import pandas
    except ImportError:
        raise MissingDependencyError("pandas is not installed; pip install pandas") from None
    return pandas


def read(
    df: pd.DataFrame, columns: Columns, steps: int, freq: str | None, check: bool
) -> tuple[list[Any], list[NDArray[np.float64]], pd.DataFrame]:
    """The series of a frame.

    Args:
        df: a row per series and time. steps: timestamps to add after the last of each series.
        freq: frequency of the timestamps; None finds it.
        check: sort the rows; without it they are taken as grouped and sorted.

    Returns:
        Ids in order of first appearance, their values, and a frame of ids and the timestamps that follow.

    Raises:
        UsageError: see :meth:`~tsmerge_export.pipelines.base.Forecaster.predict_df`.
    """
    pd = pandas()
    if not isinstance(df, pd.DataFrame):
        raise UsageError(f"df is a {type(df).__name__}, not a pandas data frame")
    for name in (columns.id, columns.timestamp, columns.target):
        if not isinstance(name, str):
            raise UsageError(f"{name!r} is not the name of one column; forecasts are univariate")
        if name not in df.columns:
            raise UsageError(
                f"column {name!r} is not in the data; it has: {', '.join(map(str, df.columns[:20]))}"
            )
    if not len(df):
        raise UsageError("the data have no rows")
    values = df[columns.target]
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        text = next((v for v in values if isinstance(v, str)), None)
        hint = f" (it holds {text!r})" if text is not None else ""
        raise UsageError(
            f"column {columns.target!r} is not numeric{hint}; choose another target, or clean it"
        )
    stamps = timestamps(df[columns.timestamp], columns.timestamp)
    if df[columns.id].isna().any():
        raise UsageError(f"column {columns.id!r} has rows without an id; fill or drop them")
    codes, ids = pd.factorize(df[columns.id])
    target = values.to_numpy(np.float64, na_value=np.nan)
    moments = stamps.to_numpy()
    if check:
        order = np.lexsort([moments, codes])
        codes, target, moments = codes[order], target[order], moments[order]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    if len(starts) != len(ids):
        raise UsageError("the rows are not grouped by id; leave validate_inputs on")
    ends = np.append(starts[1:], len(codes))
    found = freq or _frequency(pd, moments, starts, ends, ids)
    future = _future(pd, moments[ends - 1], ids, steps, found, columns)
    return list(ids), [target[a:b] for a, b in zip(starts, ends, strict=True)], future


def timestamps(column: Any, name: str) -> Any:
    """A column as timestamps without a time zone. Raises UsageError where it holds something else."""
    pd = pandas()
    if not pd.api.types.is_datetime64_any_dtype(column):
        if pd.api.types.is_numeric_dtype(column):
            raise UsageError(
                f"column {name!r} holds numbers, not timestamps; give dates such as 2026-11-22 14:00"
            )
        try:
            column = pd.to_datetime(column)
        except (ValueError, TypeError, OverflowError) as error:
            reason = str(error).split(". ")[0].split(", at position")[0]
            raise UsageError(f"column {name!r} does not hold timestamps: {reason}") from None
    if column.isna().any():
        raise UsageError(f"column {name!r} has rows without a timestamp; fill or drop them")
    return column.dt.tz_localize(None) if getattr(column.dt, "tz", None) is not None else column


def _frequency(pd: Any, moments: Any, starts: Any, ends: Any, ids: Any) -> str:
    found: dict[str, Any] = {}
    for name, start, end in zip(ids, starts, ends, strict=True):
        if end - start < 3:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pandas 3 announces that this will be an offset
            freq = pd.infer_freq(pd.DatetimeIndex(moments[start:end]))
        freq = getattr(freq, "freqstr", freq)
        if freq is None:
            raise UsageError(
                f"series {name!r}: its timestamps are not regular (gaps, or one twice); fill the gaps or give freq"
            )
        found.setdefault(freq, name)
    if len(found) > 1:
        (one, first), (other, second) = list(found.items())[:2]
        raise UsageError(f"series {first!r} has frequency {one}, {second!r} {other}; forecast them apart")
    if not found:
        raise UsageError("no series has three rows to find the frequency from; give freq")
    return next(iter(found))


def _future(pd: Any, last: Any, ids: Any, steps: int, freq: str, columns: Columns) -> pd.DataFrame:
    try:
        offset = pd.tseries.frequencies.to_offset(freq)
    except ValueError:
        raise UsageError(f"freq {freq!r} is not a frequency that pandas knows, such as h, D or W") from None
    stamps = pd.DatetimeIndex(last)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=pd.errors.PerformanceWarning)
            after = np.stack([stamps + step * offset for step in range(1, steps + 1)], axis=1)
    except (OverflowError, pd.errors.OutOfBoundsDatetime):
        raise UsageError(f"{steps} steps of {freq} go beyond the last date that pandas can hold") from None
    return pd.DataFrame(
        {columns.id: np.repeat(np.asarray(ids), steps), columns.timestamp: pd.DatetimeIndex(after.ravel())}
    )


@contextmanager
def naming(names: Sequence[Any]) -> Iterator[None]:
    """Errors about ``series 3`` inside the block name the series' id instead."""
    try:
        yield
    except UsageError as error:
        found = re.match(r"series (\d+) ", str(error))
        if found is None:
            raise
        raise UsageError(f"series {names[int(found[1])]!r} {str(error)[found.end() :]}") from None


def result(
    future: pd.DataFrame,
    target: str,
    quantiles: NDArray[np.float32],
    points: NDArray[np.float32],
    levels: Sequence[float],
) -> pd.DataFrame:
    """``future`` with ``target_name``, ``predictions`` and a column per level."""
    out = future.copy()
    out["target_name"] = target
    out["predictions"] = points.ravel()
    for index, level in enumerate(levels):
        out[str(level)] = quantiles[:, :, index].ravel()
    return out
