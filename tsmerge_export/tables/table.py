"""Series of one file, side by side."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tsmerge_export.console.one_line import called
from tsmerge_export.errors import UsageError
from tsmerge_export.tables.options import TableOptions


@dataclass(frozen=True)
class Table:
    """Series of one file.

    Attributes:
        name: of the file. columns: C names. values: ``[T, C]`` float64, NaN is missing, in order of time.
        path: as the user gave it, and options: how it was read; for a command to be repeated.
    """

    name: str
    columns: tuple[str, ...]
    values: npt.NDArray[np.float64]
    path: str | None = None
    options: TableOptions = field(default_factory=TableOptions)

    def __repr__(self) -> str:
        return called("Table", self.name, columns=self.columns, values=self.values)


def usable_columns(table: Table) -> tuple[Table, list[str]]:
    """The columns that say something, and a sentence for each that is left out: constant, or without a value.

    Raises:
        UsageError: nothing is left.
    """
    notes, kept = [], []
    for index, name in enumerate(table.columns):
        seen = table.values[:, index][~np.isnan(table.values[:, index])]
        if not len(seen) or seen.min() == seen.max():
            why = "is constant" if len(seen) else "holds no values"
            notes.append(f"column {name!r} {why}: left out")
        else:
            kept.append(index)
    if not kept:
        named = ", ".join(note.removesuffix(": left out") for note in notes)
        raise UsageError(f"--data {table.name}: no column to work with: {named}; give series that vary")
    columns = tuple(table.columns[i] for i in kept)
    return Table(table.name, columns, table.values[:, kept], table.path, table.options), notes
