"""How a user says a table is to be read."""

from __future__ import annotations

from dataclasses import dataclass, fields

_TAB = "\t"


@dataclass(frozen=True)
class TableOptions:
    """What the reader is told; None is found from the table.

    Attributes:
        sep: between cells: one character, a space being any run of spaces. decimal: ``.`` or ``,``.
        date_format: of the timestamps, as strptime has it. dayfirst: 01/02/2024 is 1 February, or January 2.
        freq: pandas frequency of the rows; gaps become rows without a value.
        id_column, timestamp_column, target: names of columns.
    """

    sep: str | None = None
    decimal: str | None = None
    date_format: str | None = None
    dayfirst: bool | None = None
    freq: str | None = None
    id_column: str | None = None
    timestamp_column: str | None = None
    target: str | None = None

    def words(self) -> list[str]:
        """The flags that say the same, for a command to be repeated."""
        found: list[str] = []
        for field in fields(self):
            value = getattr(self, field.name)
            flag = field.name.replace("_", "-")
            if isinstance(value, bool):
                found.append(f"--{flag}" if value else f"--no-{flag}")
            elif value is not None:
                written = "tab" if value == _TAB else str(value)
                # A value that begins with a minus sign would be read as a flag.
                found += [f"--{flag}={written}"] if written[:1] == "-" else [f"--{flag}", written]
        return found
