"""The native operator of dynamic merging per series: what the random problems of ``test_native`` do not reach."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.cases import untouched
from tests.ops.harness import merge_model, native_form, session
from tsmerge_export.merge import dynamic_merge, series_merge

PLAIN = {"k": 1, "threshold": 0.3, "min_tokens": 0, "protect_first": 0, "protect_last": 0}


#: As argument ``library``: that of the CPU, and that of CUDA's provider with its kernels emulated.
each_library = pytest.mark.parametrize("library", ["operators", "emulated_operators"], indirect=True)


@pytest.fixture
def library(request: pytest.FixtureRequest) -> Path:
    """The library that a fixture of this name builds."""
    built: Path = request.getfixturevalue(request.param)
    return built


def _merge(
    plugin: Path, x: np.ndarray, size: np.ndarray | None = None, *, threads: int = 1, **settings: float
) -> list[np.ndarray]:
    model = native_form(merge_model({**PLAIN, **settings}, op_type="SeriesMerge"))
    sizes = np.ones(x.shape[:2], np.float32) if size is None else size
    return session(model, threads, plugin).run(None, {"x": x, "metric": x, "size": sizes})


def _uneven(batch: int, tokens: int, features: int) -> np.ndarray:
    """Rows of which each has more tokens alike than the one before, the first one none."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((batch, tokens, features))
    for row in range(batch):
        alike = row * tokens // batch
        x[row, :alike] = x[row, 0] + 0.1 * x[row, :alike]
    return x.astype(np.float32)


@pytest.mark.parametrize("k", [1, 3, 0])
def test_long_rows_in_ranges_by_threads_and_alone(k: int, operators: Path) -> None:
    """The same bits by any number of threads, and in front of its padding what a row is alone."""
    x = _uneven(9, 1201, 37)
    expected = series_merge(torch.from_numpy(x), k=k or None, threshold=0.8, protect_last=2)
    many = _merge(operators, x, k=k, threshold=0.8, protect_last=2)
    for found, want in zip(many[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(found, want)
    np.testing.assert_allclose(many[0], expected.y, rtol=1e-5, atol=1e-6)
    threaded = _merge(operators, x, threads=3, k=k, threshold=0.8, protect_last=2)
    assert [value.tobytes() for value in threaded] == [value.tobytes() for value in many]
    own = []
    for row in range(len(x)):
        alone = dynamic_merge(torch.from_numpy(x[row : row + 1]), k=k or None, threshold=0.8, protect_last=2)
        real = np.flatnonzero(many[1][row])
        np.testing.assert_array_equal(many[2][row, real], alone.kept[0])
        own.append(len(real))
    assert own == sorted(own, reverse=True)
    assert own[0] > 1.5 * own[-1]


@each_library
@pytest.mark.parametrize("tokens", [1, 2, 3, 12])
def test_nothing_to_merge_is_the_identity(tokens: int, library: Path) -> None:
    x, size = untouched(tokens)
    y, size_out, kept, target = _merge(library, x, size + 1, threshold=-1.0, min_tokens=50)
    assert y.tobytes() == x.tobytes()
    assert size_out.tobytes() == (size + 1).tobytes()
    assert kept.tolist() == target.tolist() == [list(range(tokens))] * 2


@each_library
@pytest.mark.parametrize(("least", "left"), [(0, 1), (3, 3), (50, 8)])
def test_a_batch_of_no_rows_has_the_length_of_its_function(least: int, left: int, library: Path) -> None:
    x = np.zeros((0, 8, 3), np.float32)
    found = _merge(library, x, min_tokens=least, protect_last=2)
    plain = merge_model({**PLAIN, "min_tokens": least, "protect_last": 2}, op_type="SeriesMerge")
    want = session(plain).run(None, {"x": x, "metric": x, "size": np.zeros((0, 8), np.float32)})
    assert [value.shape for value in found] == [value.shape for value in want]
    assert found[0].shape == (0, left, 3)


@each_library
def test_sizes_that_do_not_fit_are_an_error(library: Path) -> None:
    with pytest.raises(Exception, match="differ in B or N"):
        _merge(library, np.zeros((2, 8, 3), np.float32), np.ones((2, 7), np.float32))


@pytest.mark.parametrize(
    ("op_type", "library"),
    [
        (name, library)
        for name in ("DynamicMerge", "SeriesMerge")
        for library in ("operators", "emulated_operators")
    ],
    indirect=["library"],
)
@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"threshold": 1.5}, "threshold = 1.500000 must be from -1 to 1"),
        ({"threshold": math.nan}, "threshold = nan must be from -1 to 1"),
        ({"threshold": None}, "attribute threshold is missing"),
        ({"min_tokens": -1}, "min_tokens = -1 must be from 0"),
        ({"causal": 1}, "causal needs k = 1 and protect_first >= 1"),
    ],
)
def test_attributes_out_of_range_are_an_error(
    settings: dict[str, float | None], why: str, op_type: str, library: Path
) -> None:
    model = native_form(merge_model(PLAIN, op_type=op_type))
    node = next(node for node in model.graph.node if node.op_type == op_type)
    del node.attribute[:]
    for name, value in {**PLAIN, **settings}.items():
        if value is not None:
            node.attribute.append(onnx.helper.make_attribute(name, value))
    with pytest.raises(Exception, match=re.escape(why)):
        session(model, plugin=library)
