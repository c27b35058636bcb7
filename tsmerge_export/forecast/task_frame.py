"""Long data frames whose series are forecast together, with covariates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tsmerge_export.errors import UsageError
from tsmerge_export.forecast import frame, tasks
from tsmerge_export.forecast.frame import Columns, Layout, Panel, Saying

if TYPE_CHECKING:
    import pandas as pd


def read(
    df: Any,
    columns: Columns,
    steps: int,
    freq: str | None,
    check: bool,
    saying: Saying | None = None,
    known: Any = None,
) -> Panel:
    """A frame's series as tasks; columns that are neither id, timestamp nor target are covariates.

    Args:
        known: a frame with covariates whose future is known: the ids of ``df``, ``steps`` rows of each at the times
            that follow, and columns of ``df``. The other arguments are those of
            :func:`~tsmerge_export.forecast.frame.read`.

    Returns:
        A panel of :class:`~tsmerge_export.forecast.tasks.Task`.

    Raises:
        UsageError: see :meth:`~tsmerge_export.forecast.chronos2.Chronos2.predict_df`.
    """
    saying = saying or Saying()
    df = frame.as_pandas(df)
    targets = columns.targets
    twice = next((name for name in targets if targets.count(name) > 1), None)
    if twice is not None or not targets:
        raise UsageError(f"targets {list(targets)}: name each column once, and at least one")
    frame.check_columns(df, (columns.id, columns.timestamp, *targets, *df.columns), saying.prefix)
    values = [frame.numbers(df, name, saying.prefix) for name in targets]
    layout = frame.lay_out(df, columns, steps, freq, check, saying)
    parts = zip(*(layout.parted(value) for value in values), strict=True)
    items: list[dict[str, Any]] = [{"target": np.stack(part)} for part in parts]
    others = [name for name in df.columns if name not in (columns.id, columns.timestamp, *targets)]
    names = {}
    for name in others:
        past, missing = _values(df[name], f"{saying.prefix}column {name!r}")
        if hasattr(df[name], "cat"):
            names[name] = list(df[name].cat.categories)
        for item, part in zip(items, layout.parted(past, missing), strict=True):
            item.setdefault("past_covariates", {})[name] = part
    if known is not None:
        _add_known(items, frame.as_pandas(known, "future_df"), others, columns, layout, steps, check, saying)
    made = tasks.from_dicts(items, steps, names)
    return Panel(layout.ids, made, layout.future, list(targets) * len(layout.ids), tuple(map(str, others)))


def _values(column: pd.Series, label: str) -> tuple[NDArray[Any], Any]:
    """A covariate, and what is missing in it: numbers and NaN, or else objects and None.

    Raises:
        UsageError: which begins with ``label``: infinite values.
    """
    types = frame.pandas().api.types
    if types.is_numeric_dtype(column) and not types.is_bool_dtype(column):
        found = column.to_numpy(np.float64, na_value=np.nan)
        tasks.numbers(found, label)
        return found, np.nan
    return column.astype(object).where(column.notna(), None).to_numpy(object), None


def _add_known(
    items: Sequence[dict[str, Any]],
    known: pd.DataFrame,
    others: Sequence[str],
    columns: Columns,
    layout: Layout,
    steps: int,
    check: bool,
    saying: Saying,
) -> None:
    """Future covariates of each item, from a frame whose rows are those of the layout's future, in any order."""
    prefix = saying.known
    frame.check_columns(
        known, (columns.id, columns.timestamp, *known.columns), prefix, f"{prefix.removesuffix(': ')}"
    )
    for name in known.columns:
        if name in columns.targets:
            raise UsageError(f"{prefix}column {name!r} is a target, which is not known; remove it")
        if name not in (columns.id, columns.timestamp, *others):
            raise UsageError(
                f"{prefix}column {name!r} has no history in the data; add it there, or remove it"
            )
    codes = frame.pandas().Index(layout.ids).get_indexer(known[columns.id])
    counts = np.bincount(codes[codes >= 0], minlength=len(layout.ids))
    if (codes < 0).any():
        raise UsageError(
            f"{prefix}the data have no series {known[columns.id].iloc[int((codes < 0).argmax())]!r}"
        )
    if (counts != steps).any():
        at = int((counts != steps).argmax())
        raise UsageError(
            f"{prefix}series {layout.ids[at]!r} has {counts[at]} rows, expected {steps}, one a step of the horizon"
        )
    order = _known_order(known, codes, columns, layout, check, prefix)
    for name in (name for name in others if name in known.columns):
        label = f"{prefix}column {name!r}"
        ahead, _ = _values(known[name], label)
        if items[0]["past_covariates"][name].dtype.kind == "f":
            tasks.numbers(ahead, label)
        for item, part in zip(items, np.split(ahead[order], len(items)), strict=True):
            item.setdefault("future_covariates", {})[name] = part


def _known_order(
    known: pd.DataFrame, codes: NDArray[np.intp], columns: Columns, layout: Layout, check: bool, prefix: str
) -> NDArray[np.intp]:
    """Positions of the rows by series, then by time, which must be the times of the horizon."""
    from tsmerge_export.tables import axis, times

    if columns.timestamp is None or not check:
        return np.argsort(codes, kind="stable")
    stamps = times.timestamps(known[columns.timestamp], f"{prefix}column {columns.timestamp!r}")
    order = axis.in_order(codes, stamps, layout.ids, prefix)
    found, want = axis.in_utc(stamps.iloc[order]), axis.in_utc(layout.future[columns.timestamp])
    wrong = found != want
    if wrong.any():
        at = int(wrong.argmax())
        raise UsageError(
            f"{prefix}series {layout.future[columns.id].iloc[at]!r} has a row at {stamps.iloc[order[at]]}, where "
            f"{layout.future[columns.timestamp].iloc[at]} follows"
        )
    return order
