"""Long data frames: their series, the timestamps that follow, and the frame of forecasts."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
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
    """Names of the columns that are read; without a timestamp column rows are one step apart.

    Attributes:
        target: one, or for a model that forecasts series together several.
    """

    id: str
    timestamp: str | None
    target: str | tuple[str, ...]

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets, also if it is one."""
        return (self.target,) if isinstance(self.target, str) else self.target


@dataclass(frozen=True)
class Panel:
    """Series to forecast.

    Attributes:
        ids: in order of first appearance. values: ``[L]`` float64 of each, NaN is missing; or what else the forecaster
            that read them takes for a series.
        future: id and timestamp (or step) of every step to forecast, series by series.
        targets: name of the target, one for each row of the forecast: for each series, or each of its targets.
        covariates: names of the further columns that are used.
    """

    ids: list[Any]
    values: list[Any]
    future: pd.DataFrame
    targets: list[str]
    covariates: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return by_fields(self)


@dataclass(frozen=True)
class Saying:
    """How messages talk to the user: ``prefix`` in front of them, ``freq``, the name of that argument, and ``known``,
    the prefix of those about covariates whose future is known."""

    prefix: str = ""
    freq: str = "freq"
    known: str = "future_df: "


@dataclass(frozen=True)
class Layout:
    """How the rows of a frame are series.

    Attributes:
        ids: in order of first appearance. order: positions of the rows, by series and time.
        spans: of each series in that order. places: of its rows on a grid of even steps; None where they are even.
        future: id and timestamp (or step) of every step to forecast, series by series.
    """

    ids: list[Any]
    order: NDArray[np.intp]
    spans: list[slice]
    places: list[NDArray[np.int64]] | None
    future: pd.DataFrame

    def parted(self, values: NDArray[Any], missing: Any = np.nan) -> list[NDArray[Any]]:
        """Values of all rows -> those of each series ``[L]``, with ``missing`` in gaps."""
        parts = [values[self.order][span] for span in self.spans]
        if self.places is None:
            return parts
        return [_spread(part, places, missing) for part, places in zip(parts, self.places, strict=True)]


def pandas() -> Any:
    """The module. Raises MissingDependencyError where it is not installed."""
    try:
        import pandas
    except ImportError:
        raise MissingDependencyError(how_to_install("pandas")) from None
    return pandas


def as_pandas(df: Any, name: str = "df") -> pd.DataFrame:
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
        raise UsageError(f"{name} is a {type(df).__name__}, not a data frame")
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
        raise UsageError(
            f"{name} is a {type(df).__name__}, not a data frame that can be read: {hint}"
        ) from None


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
    saying = saying or Saying()
    df = as_pandas(df)
    if not isinstance(columns.target, str):
        raise UsageError(f"{columns.target!r} is not the name of one column; forecasts are univariate")
    check_columns(df, (columns.id, columns.timestamp, columns.target), saying.prefix)
    target = numbers(df, columns.target, saying.prefix)
    layout = lay_out(df, columns, steps, freq, check, saying)
    return Panel(layout.ids, layout.parted(target), layout.future, [columns.target] * len(layout.ids))


def numbers(df: pd.DataFrame, name: str, prefix: str) -> NDArray[np.float64]:
    """A column to forecast, NaN is missing. Raises UsageError where it is not numeric."""
    types, values = pandas().api.types, df[name]
    if not types.is_numeric_dtype(values) or types.is_bool_dtype(values):
        text = next(((row, v) for row, v in values.items() if isinstance(v, str)), None)
        hint = f" (it holds {text[1]!r} in row {text[0]})" if text is not None else ""
        raise UsageError(f"{prefix}column {name!r} is not numeric{hint}; choose another target, or clean it")
    found: NDArray[np.float64] = values.to_numpy(np.float64, na_value=np.nan)
    return found


def lay_out(
    df: pd.DataFrame, columns: Columns, steps: int, freq: str | None, check: bool, saying: Saying
) -> Layout:
    """Which rows are whose, in which order, and what follows; the arguments are those of :func:`read`."""
    pd = pandas()
    from tsmerge_export.tables import axis, times

    if df[columns.id].isna().any():
        row = df.index[int(df[columns.id].isna().to_numpy().argmax())]
        raise UsageError(
            f"{saying.prefix}column {columns.id!r} has rows without an id (row {row}); fill or drop them"
        )
    codes, ids = pd.factorize(df[columns.id])
    stamps = None
    if columns.timestamp is not None:
        stamps = times.timestamps(df[columns.timestamp], f"{saying.prefix}column {columns.timestamp!r}")
        order = axis.in_order(codes, stamps, ids, saying.prefix) if check else np.arange(len(df))
        stamps = stamps.iloc[order]
    else:
        order = np.argsort(codes, kind="stable")
    codes = codes[order]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    if len(starts) != len(ids):
        raise UsageError(f"{saying.prefix}the rows are not grouped by id; leave validate_inputs on")
    ends = np.append(starts[1:], len(codes))
    places = None
    if stamps is None:
        ahead: Any = np.concatenate(
            [np.arange(steps) + end - start for start, end in zip(starts, ends, strict=True)]
        )
    else:
        rows = axis.Rows(
            pd.DatetimeIndex(stamps), starts, ends, list(ids), df.index.to_numpy()[order], saying.prefix
        )
        clock = axis.find_clock(rows, freq, saying.freq)
        if check:
            places = axis.slots(rows, clock, saying.freq)
        ahead = clock.after(rows.stamps[ends - 1], steps)
    future = pd.DataFrame({columns.id: np.repeat(np.asarray(ids), steps), columns.timestamp or STEP: ahead})
    spans = [slice(start, end) for start, end in zip(starts, ends, strict=True)]
    return Layout(list(ids), order, spans, places, future)


def check_columns(
    df: pd.DataFrame, names: Sequence[str | None], prefix: str, where: str = "the data"
) -> None:
    """UsageError for a column that is not in a frame or in it twice, and for one without rows; None is no column."""
    for name in names:
        if name is not None and (not isinstance(name, Hashable) or name not in df.columns):
            raise UsageError(
                f"column {name!r} is not in {where}; it has: {', '.join(map(str, df.columns[:20]))}"
            )
        if name is not None and not df.columns.is_unique and (df.columns == name).sum() > 1:
            raise UsageError(f"{prefix}column {name!r} is there twice; rename or remove one")
    if not len(df):
        raise UsageError(f"{prefix}the data have no rows")


def _spread(values: NDArray[Any], places: NDArray[np.int64], missing: Any) -> NDArray[Any]:
    """Values at their places, ``missing`` between them."""
    found = np.full(int(places[-1]) + 1, missing, values.dtype)
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
    """The panel's future with ``target_name``, ``predictions`` and a column per level; once for each target."""
    steps, each = points.shape[1], len(points) // len(panel.ids)
    rows = np.arange(len(panel.future)).reshape(len(panel.ids), steps)
    out = panel.future.iloc[np.repeat(rows, each, axis=0).ravel()].reset_index(drop=True)
    out["target_name"] = np.repeat(np.asarray(panel.targets, object), points.shape[1])
    out["predictions"] = points.ravel()
    for index, level in enumerate(levels):
        out[str(level)] = quantiles[:, :, index].ravel()
    return out
