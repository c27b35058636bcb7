"""The corpus holds what it promises."""

from __future__ import annotations

import numpy as np
import pytest

from tsmerge_export.verify import corpus

NAMES = [entry.name for entry in corpus.ENTRIES]


@pytest.mark.parametrize("name", NAMES)
def test_shape_type_and_seed(name: str) -> None:
    for batch, length in ((1, 1), (2, 2), (5, 333)):
        x = corpus.series(name, batch, length)
        assert x.shape == (batch, length)
        assert x.dtype == np.float32
        assert not np.isinf(x).any()
        np.testing.assert_array_equal(x, corpus.series(name, batch, length))
    assert name == "constant" or not np.array_equal(x, corpus.series(name, 5, 333, seed=1), equal_nan=True)


def test_design_part_six_is_covered() -> None:
    assert {"random", "constant", "piecewise-constant", "periodic", "nan-gaps", "left-padding", "huge-scale",
            "tiny-scale", "all-nan"} <= set(NAMES)  # fmt: skip
    huge, tiny = (np.abs(corpus.series(name, 5, 200)).max(axis=1) for name in ("huge-scale", "tiny-scale"))
    assert huge.max() > 1e11
    assert huge.min() > 1e5
    assert tiny.min() < 1e-10
    assert np.isnan(corpus.series("all-nan", 2, 50)[-1]).all()
    padded = np.isnan(corpus.series("left-padding", 5, 60))
    assert len({int(row.sum()) for row in padded}) == 5
    assert all((np.diff(row.astype(int)) <= 0).all() for row in padded)
    gaps = np.isnan(corpus.series("nan-gaps", 2, 400))
    assert gaps.any(axis=1).all()
    assert not gaps.all(axis=1).any()


def test_constants_have_exact_sums() -> None:
    """Their float32 mean must be the value itself, in whatever order it is summed."""
    for length in corpus.lengths(1024):
        x = corpus.series("constant", 5, length)
        for row in x:
            total = np.float32(0)
            for value in row:
                total = np.float32(total + value)
            assert total / np.float32(length) == row[0]


@pytest.mark.parametrize("context", [16, 512, 1024, 2048])
def test_sizes(context: int) -> None:
    lengths = corpus.lengths(context)
    assert lengths[0] == 1
    assert context in lengths
    assert max(lengths) > context
    assert any(n % 2 and n > 1 for n in lengths)
    cases = list(corpus.cases(context))
    for entry in corpus.ENTRIES:
        assert {case.batch for case in cases if case.entry is entry} == {1, 2, 5}
        assert {case.length for case in cases if case.entry is entry} == set(lengths)
    for length in lengths:
        assert {case.batch for case in cases if case.length == length} == {1, 2, 5}


def test_the_exports_length_is_avoided() -> None:
    taken = corpus.lengths(1024)[4]
    lengths = {case.length for case in corpus.cases(1024, avoid=(3, taken))}
    assert taken not in lengths
    assert taken + 1 in lengths
