"""The function bodies of dynamic merging in ONNX Runtime against the reference."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.cases import untouched
from tests.methods.dynamic.problems import above_one
from tests.ops.harness import merge_model, session
from tsmerge_export import ops


def attributes(k: int = 1, threshold: float = 0.9, **rest: int) -> dict[str, int | float]:
    """All attributes, the ones not given at their neutral value."""
    names = ("min_tokens", "protect_first", "protect_last")
    return {"k": k, "threshold": threshold, **{name: rest.get(name, 0) for name in names}}


def model_of(values: dict[str, int | float], opset: int = 18) -> onnx.ModelProto:
    return merge_model(values, opset=opset, op_type="DynamicMerge")


@pytest.mark.parametrize("k", [1, 2, 0])
@pytest.mark.parametrize("tokens", [1, 2, 3, 6, 33])
def test_nothing_to_merge_is_the_identity(k: int, tokens: int) -> None:
    x, size = untouched(tokens)
    size += 1
    for values in (
        attributes(k, 1.0),  # compared, and nothing exceeds it
        attributes(k, -1.0, min_tokens=50),
        attributes(k, -1.0, min_tokens=tokens),
        attributes(k, -1.0, min_tokens=1_000_000_000),
        attributes(k, -1.0, protect_first=20, protect_last=20),
    ):
        feed = {"x": x, "metric": x, "size": size}
        y, size_out, kept, target = session(model_of(values)).run(None, feed)
        assert y.tobytes() == x.tobytes()
        assert size_out.tobytes() == size.tobytes()
        assert kept.tolist() == target.tolist() == [list(range(tokens))] * 2


@pytest.mark.parametrize("k", [1, 2, 0])
def test_a_cosine_that_rounding_puts_above_one_is_one(k: int) -> None:
    x = above_one().numpy()
    feed = {"x": x, "metric": x, "size": np.ones((1, 400), np.float32)}
    assert session(model_of(attributes(k, 1.0))).run(None, feed)[0].shape == (1, 400, 2)


@pytest.mark.parametrize("k", [1, 2, 0])
def test_caps(k: int) -> None:
    x = np.ones((2, 11, 3), np.float32)
    feed = {"x": x, "metric": x, "size": np.ones((2, 11), np.float32)}
    for rest, left in (
        ({}, 6),
        ({"min_tokens": 7}, 7),
        ({"min_tokens": 10}, 10),
        ({"protect_first": 2, "protect_last": 3}, 8),
        ({"protect_last": 3, "min_tokens": 9}, 9),
    ):
        assert session(model_of(attributes(k, 0.5, **rest))).run(None, feed)[0].shape == (2, left, 3)


@pytest.mark.parametrize("k", [1, 2, 0])
def test_no_rows(k: int) -> None:
    x = np.ones((0, 6, 2), np.float32)
    feed = {"x": x, "metric": x, "size": np.ones((0, 6), np.float32)}
    assert session(model_of(attributes(k, -1.0))).run(None, feed)[0].shape == (0, 6, 2)


def test_one_session_leaves_as_many_tokens_as_the_data_say() -> None:
    """The same shape in, other shapes out: nothing of the first run may be reused for the next."""
    run = session(model_of(attributes(threshold=0.5)))
    rng = np.random.default_rng(2)
    lengths = []
    for share in (1.0, 0.0, 0.5, 0.25, 1.0):
        x = rng.standard_normal((2, 40, 64)).astype(np.float32)
        alike = int(20 * share)
        x[:, 1 : 2 * alike : 2] = 2 * x[:, 0 : 2 * alike : 2]
        y = run.run(None, {"x": x, "metric": x, "size": np.ones((2, 40), np.float32)})[0]
        lengths.append(y.shape[1])
    assert lengths == [20, 40, 30, 35, 20]


def test_variant_is_chosen_by_k_alone_and_thresholds_share_a_body() -> None:
    chosen = {k: ops.variant_key("DynamicMerge", attributes(k)) for k in (0, 1, 2, 32, 33)}
    assert chosen == {0: "dense", 1: "k1", 2: "band", 32: "band", 33: "dense"}
    assert ops.function("DynamicMerge", attributes(threshold=0.1)) == ops.function(
        "DynamicMerge", attributes(threshold=0.2)
    )


def test_only_dynamic_merging_has_lengths_that_depend_on_data() -> None:
    dependent = {name for name, schema in ops.SCHEMAS.items() if schema.data_dependent}
    assert dependent == {"DynamicMerge", "SeriesMerge"}
    assert dependent <= set(ops.merge_op_types())
