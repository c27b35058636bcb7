"""Which character separates the cells of a text, by how consistently it does so over many lines.

``csv.Sniffer`` looks at characters; here a candidate has to give every line as many cells, and of several that do, the
one whose cells are numbers and dates wins. Where two are as good, nobody can know, and the user is asked.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence

from tsmerge_export.errors import UsageError
from tsmerge_export.tables.numbers import is_missing, looks_numeric
from tsmerge_export.tables.times import looks_like_date

_SEPARATORS = ",;\t|"
SPACES = " "
# Stands for "one cell a line": a character that no text has.
NOTHING = "\x1f"
_NAMES = {",": "','", ";": "';'", "\t": "a tab", "|": "'|'", SPACES: "spaces", NOTHING: "nothing"}
_LINES = 500


def head(text: str, count: int = _LINES) -> list[str]:
    """The first lines that are not blank, the last one whole: a text is not cut within a line."""
    lines: list[str] = []
    start = 0
    while start < len(text) and len(lines) < count:
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        if text[start:end].strip():
            lines.append(text[start:end])
        start = end + 1
    return lines


def split(lines: Sequence[str], sep: str) -> list[list[str]]:
    """Cells of each line, stripped. Raises csv.Error for a cell longer than csv's limit."""
    if sep == NOTHING:
        return [[line.strip()] for line in lines]
    if sep == SPACES:
        return [line.split() for line in lines]
    rows = csv.reader((f"{line}\n" for line in lines), delimiter=sep, skipinitialspace=True)
    return [[cell.strip() for cell in row] for row in rows if row]


def separator(lines: Sequence[str], label: str) -> str:
    """The separator of a text: a character, :data:`SPACES` or :data:`NOTHING`.

    Args:
        lines: the first ones, not blank. label: what a message begins with.

    Raises:
        UsageError: several separators are as good.
    """
    scores: dict[str, float] = {}
    for sep in _SEPARATORS:
        rows = split(lines, sep)
        if len({len(row) for row in rows}) == 1 and len(rows[0]) > 1:
            scores[sep] = _typed(rows, sep)
    if not scores:
        return _last_resort(lines)
    best = max(scores.values())
    winners = [sep for sep, score in scores.items() if score == best]
    if len(winners) > 1:
        named = " or ".join(_NAMES[sep] for sep in winners)
        raise UsageError(f"{label}: its cells may be separated by {named}; say which with --sep")
    return winners[0]


def _last_resort(lines: Sequence[str]) -> str:
    """No separator is in every line as often: one column, spaces, or the most usual one with faulty rows."""
    alone = split(lines, NOTHING)
    if _typed(alone, NOTHING) == 1.0:
        return NOTHING
    spaced = split(lines, SPACES)
    if len({len(row) for row in spaced}) == 1 and len(spaced[0]) > 1 and _typed(spaced, SPACES) == 1.0:
        return SPACES
    counts = {sep: Counter(len(row) for row in split(lines, sep)).most_common(1)[0] for sep in _SEPARATORS}
    usual = {sep: times for sep, (width, times) in counts.items() if width > 1}
    return max(usual, key=lambda sep: usual[sep]) if usual else NOTHING


def _typed(rows: Sequence[Sequence[str]], sep: str) -> float:
    """Share of the cells below the first line that are numbers, dates or missing."""
    cells = [cell for row in (rows[1:] or rows) for cell in row]
    fits = sum(
        is_missing(c) or looks_numeric(c, ".") or (sep != "," and looks_numeric(c, ",")) or looks_like_date(c)
        for c in cells
    )
    return fits / max(1, len(cells))
