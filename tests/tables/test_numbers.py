"""Cells as numbers: decimal signs, missing values, the bad cell by its row."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tsmerge_export.errors import UsageError
from tsmerge_export.tables import numbers


def column(*cells: str) -> pd.Series:
    return pd.Series(cells, index=range(2, len(cells) + 2), dtype=str)


@pytest.mark.parametrize(
    ("cells", "want"),
    [
        (["1.5", "2"], "."),
        (["1,5", "2"], ","),
        (["1,234", "12,5"], ","),  # the second comma stands between no thousands
        (["0,250", "0,125"], ","),
        (["1,2345"], ","),
        (["5", "x, y", ""], "."),
        ([], "."),
    ],
)
def test_decimal_sign(cells: list[str], want: str) -> None:
    assert numbers.decimal_sign([column(*cells)], "x.csv") == want


@pytest.mark.parametrize(
    ("cells", "match"),
    [
        (
            ["1,234", "12,345"],
            r"'1,234' in row 2 may be a decimal comma or stand between thousands; give --decimal ,",
        ),
        (["1,5", "2.5"], r"decimal commas \('1,5' in row 2\) and decimal points \('2.5' in row 3\)"),
        (["2.5", "1,234"], r"decimal commas \('1,234' in row 3\) and decimal points \('2.5' in row 2\)"),
    ],
)
def test_decimal_signs_that_nobody_can_tell(cells: list[str], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        numbers.decimal_sign([column(*cells)], "x.csv")


def test_values() -> None:
    cells = column("1.5", "-2e3", "+.5", "", "NA", "nan", "NULL", "#N/A", "7")
    want = [1.5, -2000, 0.5, *[np.nan] * 5, 7]
    np.testing.assert_array_equal(numbers.to_numbers(cells, ".", "x"), want)
    np.testing.assert_array_equal(numbers.to_numbers(column("1,5", "-3", ""), ",", "x"), [1.5, -3, np.nan])


@pytest.mark.parametrize(
    ("cells", "decimal", "match"),
    [
        (["1", "-"], ".", r"x is not numeric \('-' in row 3\)"),
        (["1", "1_000"], ".", r"'1_000' in row 3"),
        (["1,5", "1.5"], ",", r"'1.5' in row 3"),
        (["1.234,5"], ",", r"'1.234,5' in row 2"),
        (["1,5"], ".", r"'1,5' in row 2"),
        (["1", "-inf"], ".", r"x holds infinite values \(in row 3\)"),
        (
            ["1e999"],
            ".",
            r"infinite values \(in row 2\)|is not numeric \('1e999' in row 2\)",
        ),  # pandas 2.0: no number
    ],
)
def test_bad_cells_are_named(cells: list[str], decimal: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        numbers.to_numbers(column(*cells), decimal, "x")
