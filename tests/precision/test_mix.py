"""A mixture of two files computes what the quantiser's own file of that choice computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.precision.networks import PRODUCTS, WIDTH, low_of, network
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.precision.mix import mixed
from tsmerge_export.precision.quantise import as_products, quantised
from tsmerge_export.settings.precision import QUANTISED, Precision


def outputs(model: onnx.ModelProto) -> list[np.ndarray]:
    x = np.random.default_rng(1).standard_normal((5, WIDTH)).astype(np.float32)
    return open_session(model, 1).run(None, {"x": x})


def same(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(outputs(one), outputs(other), strict=True))


@pytest.mark.parametrize("kind", QUANTISED)
def test_every_choice(kind: str) -> None:
    twin = as_products(network())
    before = twin.SerializeToString()
    low = low_of(kind, twin)
    for choice in ([], ["first", "second"], ["out_MatMul"], list(PRODUCTS)):
        want = low_of(kind, twin, *choice) if choice else twin
        assert same(mixed(twin, low, choice), want), choice
    assert not same(mixed(twin, low, ["first"]), mixed(twin, low, ["out_MatMul"]))
    assert twin.SerializeToString() == before


def test_two_precisions() -> None:
    """As the quantiser does it, one after the other."""
    twin = as_products(network())
    four, eight = (
        quantised(twin, Precision(kind), list(PRODUCTS)) for kind in ("int4-weights", "int8-weights")
    )
    both = mixed(mixed(twin, eight, ["out_MatMul"]), four, ["first", "second"])
    want = quantised(
        quantised(twin, Precision("int4-weights"), ["first", "second"]),
        Precision("int8-weights"),
        ["out_MatMul"],
    )
    assert same(both, want)
    found = [a.i for node in want.graph.node for a in node.attribute if a.name == "bits"]
    assert sorted(found) == [4, 4, 8]
