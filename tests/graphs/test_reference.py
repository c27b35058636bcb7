"""The reference for graphs, against merging written into a model's forward by hand; and what parity then notices."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from tests.rewrite.encoders import Encoder, export
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.families.base import Arrays
from tsmerge_export.graphs.prepare import prepare
from tsmerge_export.graphs.reference import Reference, Where
from tsmerge_export.graphs.sizes import find_sizes
from tsmerge_export.inspection.feeds import make, read_inputs
from tsmerge_export.inspection.measure import measure
from tsmerge_export.merge.plan import make_plan
from tsmerge_export.rewrite.points import find_points
from tsmerge_export.settings.config import MergeConfig

KINDS: dict[str, dict[str, Any]] = {
    "rope": {"positions": "rope"},
    "relative-mean": {"positions": "relative", "post_norm": True, "head": "mean"},
    "absolute-causal-last": {"positions": "absolute", "causal": True, "head": "last"},
}
# Nodes that use tokens one by one, or mix them, once all layers are done.
BARRIERS = {"rope": [], "relative-mean": ["ReduceMean"], "absolute-causal-last": ["Gather", "Slice"]}


@cache
def encoder(kind: str) -> Encoder:
    torch.manual_seed(1)
    return Encoder(**KINDS[kind]).eval()


@cache
def graph(kind: str) -> tuple[onnx.ModelProto, list[tuple[str, str | None]]]:
    plain = prepare(ir.to_proto(export(encoder(kind))), kind)
    inputs = read_inputs(plain, kind)
    session = open_session(plain)
    found = find_sizes(lambda feeds: session.run(None, feeds), inputs, kind)
    measured, _ = measure(plain, found.inputs, found.sizes)
    points, _ = find_points(measured.graph)
    return plain, [(str(p.value.name), None if p.keys is None else p.keys.name) for p in points]


def reference(kind: str, config: MergeConfig) -> Reference:
    plain, points = graph(kind)
    plan = make_plan(config, len(points))
    wheres = [
        Where(value, plan[layer], keys if config.metric == "key" else None)
        for layer, (value, keys) in enumerate(points)
        if layer in plan
    ]
    last = [n.name for n in plain.graph.node if n.op_type in BARRIERS[kind]]
    # Only what comes after the last merge: before it, the same operators make up positions.
    order = {node.name: index for index, node in enumerate(plain.graph.node)}
    end = max(i for i, node in enumerate(plain.graph.node) if points[-1][0] in node.output)
    barriers = [name for name in last if order[name] > end]
    return Reference(plain, wheres, barriers, token_mask="mask", prop_attn=config.prop_attn)


def feed(batch: int, tokens: int) -> Arrays:
    rng = np.random.default_rng(batch * 100 + tokens)
    mask = np.ones((batch, tokens), np.int64)
    mask[0, : tokens // 3] = 0
    return {"x": rng.standard_normal((batch, tokens, 4)).astype(np.float32), "mask": mask}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{"k": 1}, {"k": 3, "prop_attn": True}, {"k": None, "metric": "key"}])
def test_equals_merging_written_by_hand(kind: str, options: dict[str, Any]) -> None:
    made = reference(kind, MergeConfig(ratio="1/3", min_tokens=2, **options))
    for batch, tokens in ((1, 3), (2, 9), (5, 30)):
        inputs = feed(batch, tokens)
        with torch.no_grad():
            want = encoder(kind).merged_forward(
                torch.from_numpy(inputs["x"]),
                torch.from_numpy(inputs["mask"]),
                ratio="1/3",
                min_tokens=2,
                **options,
            )
        got, decided = made.run(inputs)
        np.testing.assert_allclose(got["y"], want.numpy(), rtol=1e-4, atol=2e-5)
        assert len(decided) == 3
        kept = decided[0].kept
        for decision in decided[1:]:
            kept = np.take_along_axis(kept, decision.kept, 1)
        np.testing.assert_array_equal(kept, encoder(kind).survivors[-1].numpy())


def test_without_merging_it_is_the_original() -> None:
    plain, _ = graph("rope")
    inputs = feed(2, 11)
    got, decided = Reference(plain, [], []).run(inputs)
    want = open_session(plain).run(["y"], inputs)[0]
    np.testing.assert_allclose(got["y"], want, rtol=1e-5, atol=1e-6)
    assert decided == []


def test_tokens_that_are_mixed_without_a_barrier_are_an_error() -> None:
    kind = "relative-mean"
    made = reference(kind, MergeConfig(ratio="1/3"))
    made._barriers = set()
    with pytest.raises(UnsupportedError, match=r"ReduceMean.*cannot follow merged tokens"):
        made.run(feed(2, 20))


def test_inputs_are_recognised() -> None:
    plain, _ = graph("rope")
    kinds = {item.spec.name: (item.kind, item.spec.dims[0]) for item in read_inputs(plain, "")}
    assert kinds == {"x": ("values", "batch"), "mask": ("mask", "batch")}
    sizes = {dim: 6 for item in read_inputs(plain, "") for dim in item.spec.dims if isinstance(dim, str)}
    again = [make(read_inputs(plain, ""), sizes, seed=3) for _ in range(2)]
    assert all(np.array_equal(again[0][name], again[1][name]) for name in again[0])
