"""Long data frames: their series, the timestamps that follow, and the frame of forecasts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tsmerge_export.console.missing import how_to_install
from tsmerge_export.console.one_line import by_fields
from tsmerge_export.errors import MissingDependencyError, UsageError, first_line

if TYPE_CHECKING:
    import pandas as pd

STEP = "step"  # column of the output where there are no timestamps: counts rows from 0


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are read; without a timestamp column rows are one step apart."""

    id: str
    timestamp: str | None
    target: str


@dataclass(frozen=True)
class Panel:
    """Series to forecast.

    Attributes:
        ids: in order of first appearance. values: ``[L]`` float64 of each, NaN is missing.
        future: id and timestamp (or step) of every step to forecast, series by series.
        targets: name of the target, one for each series.
        others: further columns of the data, which are not used.
    """

    ids: list[Any]
    values: list[NDArray[np.float64]]
    future: pd.DataFrame
    targets: list[str]
    others: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return by_fields(self)


@dataclass(frozen=True)
class Saying:
    """How messages talk to the user: ``prefix`` in front of them, and ``freq``, the name of that argument."""

    prefix: str = ""
    freq: str = "freq"


def pandas() -> Any:
    """The module. Raises MissingDependencyError where it is not installed."""
    try:
        import pandas
    except ImportError:
        raise MissingDependencyError(how_to_install("pandas")) from None
    return pandas


def as_pandas(df: Any) -> pd.DataFrame:
    """A data frame of any library that narwhals knows, as one of pandas.

    Raises:
        UsageError: not a data frame.
        MissingDependencyError: another library's frame without narwhals or what the conversion needs.
    """
    pd = pandas()
    if isinstance(df, pd.DataFrame):
        return df
    kind = type(df).__module__.partition(".")[0]
    if kind in ("builtins", "numpy", "torch"):
        raise UsageError(f"df is a {type(df).__name__}, not a data frame")
    try:
        import narwhals
    except ImportError:
        raise MissingDependencyError(
            f"narwhals is not installed; it reads data frames of {kind}: pip install narwhals"
        ) from None
    try:
        return narwhals.from_native(df, eager_only=True).to_pandas()
    except ImportError as error:
        name = error.name or "pyarrow"
        raise MissingDependencyError(
            f"{name} is not installed; it reads data frames of {kind}: pip install {name}"
        ) from None
    except TypeError as error:
        hint = "collect it first" if hasattr(df, "collect") else first_line(error)
        raise UsageError(f"df is a {type(df).__name__}, not a data frame that can be read: {hint}") from None


def read(
    df: Any, columns: Columns, steps: int, freq: str | None, check: bool, saying: Saying | None = None
) -> Panel:
    """The series of a frame.

    Args:
        df: a row per series and time. steps: timestamps to add after the last of each series.
        freq: frequency of the timestamps; None finds it.
        check: sort the rows, refuse two at one time, and put rows without a value into gaps; without it they are
            taken as grouped, sorted and even.

    Raises:
        UsageError: see :meth:`~tsmerge_export.forecast.base.Forecaster.predict_df`.
    """
    pd = pandas()
    from tsmerge_export.tables import axis, times

    saying = saying or Saying()
    df = as_pandas(df)
    _check_columns(df, columns, saying.prefix)
    values = df[columns.target]
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        text = next(((row, v) for row, v in values.items() if isinstance(v, str)), None)
        hint = f" (it holds {text[1]!r} in row {text[0]})" if text is not None else ""
        raise UsageError(
            f"{saying.prefix}column {columns.target!r} is not numeric{hint}; choose another target, or clean it"
        )
    target = values.to_numpy(np.float64, na_value=np.nan)
    if df[columns.id].isna().any():
        row = df.index[int(df[columns.id].isna().to_numpy().argmax())]
        raise UsageError(
            f"{saying.prefix}column {columns.id!r} has rows without an id (row {row}); fill or drop them"
        )
    codes, ids = pd.factorize(df[columns.id])
    others = tuple(
        str(name) for name in df.columns if name not in (columns.id, columns.timestamp, columns.target)
    )
    stamps = None
    if columns.timestamp is not None:
        stamps = times.timestamps(df[columns.timestamp], f"{saying.prefix}column {columns.timestamp!r}")
        order = axis.in_order(codes, stamps, ids, saying.prefix) if check else np.arange(len(df))
        stamps = stamps.iloc[order]
    else:
        order = np.argsort(codes, kind="stable")
    codes, target = codes[order], target[order]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    if len(starts) != len(ids):
        raise UsageError(f"{saying.prefix}the rows are not grouped by id; leave validate_inputs on")
    ends = np.append(starts[1:], len(codes))
    series = [target[a:b] for a, b in zip(starts, ends, strict=True)]
    if stamps is None:
        ahead: Any = np.concatenate([np.arange(steps) + len(one) for one in series])
    else:
        rows = axis.Rows(
            pd.DatetimeIndex(stamps), starts, ends, list(ids), df.index.to_numpy()[order], saying.prefix
        )
        clock = axis.find_clock(rows, freq, saying.freq)
        if check:
            series = [
                _spread(v, at) for v, at in zip(series, axis.slots(rows, clock, saying.freq), strict=True)
            ]
        ahead = clock.after(rows.stamps[ends - 1], steps)
    future = pd.DataFrame({columns.id: np.repeat(np.asarray(ids), steps), columns.timestamp or STEP: ahead})
    return Panel(list(ids), series, future, [columns.target] * len(ids), others)


def _check_columns(df: pd.DataFrame, columns: Columns, prefix: str) -> None:
    for name in (columns.id, columns.timestamp, columns.target):
        if name is None:
            continue
        if not isinstance(name, str):
            raise UsageError(f"{name!r} is not the name of one column; forecasts are univariate")
        if name not in df.columns:
            raise UsageError(
                f"column {name!r} is not in the data; it has: {', '.join(map(str, df.columns[:20]))}"
            )
    if not len(df):
        raise UsageError(f"{prefix}the data have no rows")


def _spread(values: NDArray[np.float64], places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Values at their places, NaN between them."""
    found = np.full(int(places[-1]) + 1, np.nan)
    found[places] = values
    return found


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
    panel: Panel, quantiles: NDArray[np.float32], points: NDArray[np.float32], levels: Sequence[float]
) -> pd.DataFrame:
    """The panel's future with ``target_name``, ``predictions`` and a column per level."""
    out = panel.future.copy()
    out["target_name"] = np.repeat(np.asarray(panel.targets, object), points.shape[1])
    out["predictions"] = points.ravel()
    for index, level in enumerate(levels):
        out[str(level)] = quantiles[:, :, index].ravel()
    return out
