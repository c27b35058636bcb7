"""What is learnt from and what is scored: split in time, standardised by the training part, never mixed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tsmerge_export.errors import UsageError
from tsmerge_export.tools.distill import windows
from tsmerge_export.verify.data import Table

HORIZON = 8


def counted(rows: int, *, columns: int = 1) -> Table:
    """A value tells its row."""
    values = np.arange(rows, dtype=np.float64)[:, None] + 10_000 * np.arange(columns)
    return Table("rows", tuple(f"c{i}" for i in range(columns)), values)


def prepared(*tables: Table, **changes: Any) -> windows.Data:
    settings: dict[str, Any] = {
        "horizon": HORIZON, "longest": 64, "context": None, "any_length": True, "limit": None, "test_limit": None,
        "seed": 0,
    }  # fmt: skip
    return windows.prepare(tables, **{**settings, **changes})


def test_no_row_is_learnt_from_and_scored() -> None:
    data = prepared(counted(1000, columns=2))
    (scored,) = data.scored
    learnt = [column * np.std(range(600)) + np.mean(range(600)) for column in data.pool.real]
    assert [len(column) for column in learnt] == [600, 600]
    assert max(float(column.max()) for column in learnt) == pytest.approx(599, abs=1e-3)
    validated, tested = scored.validation.target[0], scored.test.target[0]
    assert validated.min() >= 600 and validated.max() < 800
    assert tested.min() >= 800 and tested.max() < 1000
    # They follow each other without a gap, and each context ends where its target begins.
    assert tested.size == 200 and len(np.unique(tested)) == 200
    for each in (scored.validation, scored.test):
        np.testing.assert_array_equal(each.context[0, :, -1] + 1, each.target[0, :, 0])


def test_columns_are_standardised_by_what_is_learnt_from() -> None:
    values = np.random.default_rng(0).normal(5, 3, size=(1000, 1))
    values[600:] += 1e6
    (column,) = prepared(Table("a", ("x",), values)).pool.real
    assert float(column.mean()) == pytest.approx(0, abs=1e-5) and float(column.std()) == pytest.approx(
        1, abs=1e-5
    )


def test_columns_that_do_not_vary_where_it_matters_are_left_out() -> None:
    values = np.random.default_rng(0).normal(size=(1000, 3))
    values[:, 0] = 7.0
    values[:600, 1] = 7.0
    data = prepared(Table("a", ("constant", "late", "fine"), values))
    assert data.scored[0].test.columns == ("fine",) and len(data.pool.real) == 1
    assert [note.partition("'")[2].partition("'")[0] for note in data.notes] == ["constant", "late"]
    with pytest.raises(UsageError, match="--data a: no column varies within the first 60 % of its rows"):
        prepared(Table("a", ("late",), values[:, 1:2]))


def test_a_short_table_shortens_the_context() -> None:
    data = prepared(counted(260), longest=200)
    # Its first 80 % without the five windows that are validated; what is learnt from ends at 60 %.
    assert data.scored[0].context == 208 - 41 and data.longest == 156 - HORIZON
    assert data.notes == ("rows: context 167 instead of 200: the data have only 260 rows",)
    with pytest.raises(UsageError, match=r"--data rows: 40 rows are too few .* give at least 250 rows$"):
        prepared(counted(40))
    with pytest.raises(UsageError, match=r"give at least 250 rows, or a shorter --context$"):
        prepared(counted(40), context=32)


def test_a_third_of_the_steps_see_the_longest_context_with_half_the_windows() -> None:
    data = prepared(counted(1000))
    sampler = data.sampler(np.random.default_rng(0))
    shapes = [data.draw(sampler, 8)[0].shape for _ in range(300)]
    assert set(shapes) == {(4, 64), (8, 32)}
    assert 70 < shapes.count((4, 64)) < 130
    fixed = prepared(counted(1000), any_length=False)
    assert {fixed.draw(fixed.sampler(np.random.default_rng(0)), 8)[0].shape for _ in range(5)} == {(8, 64)}


def test_synthetic_windows_are_three_streams() -> None:
    data = prepared()
    (scored,) = data.scored
    assert scored.name == "synthetic series" and not data.pool.real
    assert scored.validation.target.shape == scored.test.target.shape
    assert not np.array_equal(scored.validation.target, scored.test.target)
    again, other = prepared(), prepared(seed=1)
    np.testing.assert_array_equal(again.scored[0].test.target, scored.test.target)
    assert not np.array_equal(other.scored[0].test.target, scored.test.target)


def test_limits_are_per_column() -> None:
    data = prepared(counted(1000), limit=5, test_limit=7)
    assert data.scored[0].validation.target.shape[1] == 5 and data.scored[0].test.target.shape[1] == 7
