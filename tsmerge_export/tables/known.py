"""The table of covariates whose future is known, read as the table of their history was."""

from __future__ import annotations

import pandas as pd

from tsmerge_export.errors import UsageError
from tsmerge_export.tables.cells import Cells, known_as, read_cells
from tsmerge_export.tables.numbers import decimal_sign
from tsmerge_export.tables.options import TableOptions
from tsmerge_export.tables.read import Long, covariate, stamps_of
from tsmerge_export.tables.source import Source
from tsmerge_export.tables.times import holds_text


def read_known(source: Source, options: TableOptions, history: Long) -> pd.DataFrame:
    """Columns under the names that they have in the history, numbers where those are numbers.

    Args:
        history: with its covariates made numbers or words. A history of one series needs no ids here.

    Raises:
        UsageError: a table that cannot be read, without ids or times that the history has, or with other columns.
        MissingDependencyError: parquet without pyarrow.
    """
    cells = read_cells(source, options)
    names = {name: _same(cells, name, list(history.frame.columns)) for name in cells.frame.columns}
    if cells.unnamed_first:
        del names[cells.frame.columns[0]]
    found = set(names.values())
    ids = history.frame[history.id].unique()
    for needed in (history.id, history.time):
        if needed is not None and needed not in found and (needed != history.id or len(ids) > 1):
            raise UsageError(
                f"{cells.label}: has no column {needed!r}, as the table of the history has; add it"
            )
    numeric = {
        own: pd.api.types.is_numeric_dtype(history.frame[name])
        and not pd.api.types.is_bool_dtype(history.frame[name])
        for own, name in names.items()
        if name not in (history.id, history.time)
    }
    text = [cells.frame[own] for own, number in numeric.items() if number and holds_text(cells.frame[own])]
    sign = options.decimal or decimal_sign(text, cells.label)
    columns = {}
    for own, name in names.items():
        if name == history.id:
            columns[name] = cells.frame[own]
        elif name == history.time:
            columns[name] = stamps_of(cells, own, options)
        else:
            columns[name] = covariate(cells, own, sign, numeric[own])
    if history.id not in columns:
        columns[history.id] = pd.Series(ids[0], index=cells.frame.index)
    return pd.DataFrame(columns)


def _same(cells: Cells, name: str, names: list[str]) -> str:
    """The column of the history that has the same name, but for case and space."""
    if name in names:
        return name
    alike = [other for other in names if known_as(str(other)) == known_as(name)]
    if len(alike) == 1:
        return alike[0]
    raise UsageError(
        f"{cells.label}: column {name!r} has no history in the table; add it there, or remove it"
    )
