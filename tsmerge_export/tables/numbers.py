"""Cells as numbers: the decimal sign, what is missing, and the first cell that is neither."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsmerge_export.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

# What pandas takes for missing, in any case.
_MISSING = frozenset(
    [
        "",
        "#n/a",
        "#n/a n/a",
        "#na",
        "-1.#ind",
        "-1.#qnan",
        "-nan",
        "1.#ind",
        "1.#qnan",
        "<na>",
        "n/a",
        "na",
        "null",
        "nan",
        "none",
    ]
)
_INFINITE = frozenset(sign + word for sign in ("", "+", "-") for word in ("inf", "infinity"))
_NUMBER = {
    sign: re.compile(rf"[+-]?(\d+{re.escape(sign)}?\d*|{re.escape(sign)}\d+)([eE][+-]?\d+)?", re.ASCII)
    for sign in ".,"
}
# A comma with three digits behind it may as well stand between thousands; one after a leading zero may not.
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+", re.ASCII)


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no value: empty, or one of pandas' words for it."""
    return cell.lower() in _MISSING


def looks_numeric(cell: str, decimal: str) -> bool:
    """Whether a cell is a number with that decimal sign."""
    return _NUMBER[decimal].fullmatch(cell) is not None or cell.lower() in _INFINITE


def decimal_sign(columns: Iterable[pd.Series], label: str) -> str:
    """``.`` or ``,``, whichever the cells of numbers have.

    Args:
        columns: text; those that may hold numbers.

    Raises:
        UsageError: both occur, or every comma may stand between thousands.
    """
    commas: list[tuple[object, str]] = []
    proof = dot = None
    for column in columns:
        found = column[column.str.contains(",", regex=False)]
        found = found[found.map(lambda cell: _NUMBER[","].fullmatch(cell) is not None)]
        commas += list(found.items())[:1]
        sure = found[found.map(lambda cell: _THOUSANDS.fullmatch(cell) is None)]
        proof = proof or next(iter(sure.items()), None)
        dots = column[column.str.contains(".", regex=False)]
        dot = dot or next(((r, c) for r, c in dots.items() if _NUMBER["."].fullmatch(c)), None)
    if not commas:
        return "."
    where = f"{(proof or commas[0])[1]!r} in row {(proof or commas[0])[0]}"
    if dot is not None:
        raise UsageError(
            f"{label}: has decimal commas ({where}) and decimal points ({dot[1]!r} in row {dot[0]}); mend one of them"
        )
    if proof is None:
        raise UsageError(
            f"{label}: {where} may be a decimal comma or stand between thousands; give --decimal , or remove the commas"
        )
    return ","


def to_numbers(column: pd.Series, decimal: str, label: str) -> NDArray[np.float64]:
    """A column of text as numbers, NaN where missing.

    Args:
        label: what a message begins with, the column's name in it.

    Raises:
        UsageError: a cell is no number, or infinite; it is named by its row, the column's index.
    """
    values, wrong = parsed(column, decimal)
    if wrong.any():
        row = int(wrong.argmax())
        raise UsageError(
            f"{label} is not numeric ({column.iloc[row][:40]!r} in row {column.index[row]}); mend the cell, or remove "
            "the column"
        )
    if np.isinf(values).any():
        row = column.index[int(np.isinf(values).argmax())]
        raise UsageError(f"{label} holds infinite values (in row {row}); leave those cells empty")
    return values


def parsed(column: pd.Series, decimal: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Numbers, NaN where there is none, and a mask of the cells that are neither a number nor missing."""
    text = column
    if decimal == ",":
        text = column.str.replace(".", "x", regex=False).str.replace(",", ".", regex=False)
    values = pd.to_numeric(text, errors="coerce").to_numpy(np.float64, na_value=np.nan).copy()
    doubtful = np.flatnonzero(np.isnan(values))
    wrong = np.zeros(len(values), bool)
    wrong[doubtful] = [not is_missing(cell) for cell in column.iloc[doubtful]]
    return values, wrong
