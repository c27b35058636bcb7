"""Tables on stdout that fit the terminal: columns that do not are shown below, with the first one again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_GAP = 3  # between two columns
_WORDS = 12  # least width of a column that wraps


def console() -> Console:
    """Stdout, as wide as the terminal is; 80 columns in a pipe, or what COLUMNS says."""
    from rich.console import Console

    class Stdout(Console):
        def on_broken_pipe(self) -> None:  # rich would end the process with 1
            raise BrokenPipeError

    return Stdout(highlight=False, markup=False, emoji=False)


def table(header: Sequence[str], title: str = "", words: Collection[int] = (0,)) -> Table:
    """An empty table: figures to the right and in one line, the columns of ``words`` to the left and wrapped."""
    from rich import box
    from rich.table import Table

    made = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, title=title or None, title_justify="left", title_style=""
    )
    for index, name in enumerate(header):
        wraps = index in words
        made.add_column(
            name, justify="left" if wraps else "right", overflow="fold", no_wrap=not wraps,
            min_width=_WORDS if wraps and len(header) > 1 and name else None,
        )  # fmt: skip
    return made


def print_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str = "",
    words: Collection[int] = (0,),
    out: Console | None = None,
) -> None:
    """Print a table; in parts, one below the other, where it is wider than the terminal.

    Args:
        header, rows: texts. title: a line above. words: indices of columns of words, which wrap; the first is one.
    """
    out = out or console()
    for number, part in enumerate(_parts(header, rows, words, out.width)):
        made = table(
            [header[i] for i in part], "" if number else title, [part.index(i) for i in words if i in part]
        )
        made.show_header = any(header)
        for row in rows:
            made.add_row(*(row[i] for i in part))
        out.print(made)


def _parts(
    header: Sequence[str], rows: Sequence[Sequence[str]], words: Collection[int], width: int
) -> Iterator[list[int]]:
    """Indices of the columns that go into one table, for each table."""
    from rich.cells import cell_len

    widths = [max(cell_len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    least = [min(widths[i], max(_WORDS, width // 4)) if i in words else widths[i] for i in range(len(header))]
    part, used = [0], least[0]
    for index in range(1, len(header)):
        if len(part) > 1 and used + _GAP + least[index] > width - 2:
            yield part
            part, used = [0], least[0]
        part.append(index)
        used += _GAP + least[index]
    yield part
