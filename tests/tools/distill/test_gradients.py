"""Gradients flow through every method, in every family that trains, down to what lies before the first merge."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tsmerge_export as tsm
from tests.models import tiny
from tsmerge_export import families
from tsmerge_export.merge.plan import make_plan
from tsmerge_export.settings.config import MergeConfig

METHODS = [
    MergeConfig(k=1, ratio="1/2"),
    MergeConfig("global", ratio="1/4"),
    MergeConfig("dynamic", threshold=0.0),
    MergeConfig("pitome", ratio="1/4"),
    MergeConfig("ssm", ratio="1/4"),
]
#: Of a family, a weight that every token passes before the first merge.
FIRST = {
    "chronos-2": "input_patch_embedding.hidden_layer.weight",
    "chronos-bolt": "input_patch_embedding.hidden_layer.weight",
    "chronos-t5": "encoder.block.0.layer.0.SelfAttention.v.weight",
    "informer": "model.encoder.value_embedding.value_projection.weight",
    "mamba": "backbone.embeddings.weight",
    "mamba2": "backbone.embeddings.weight",
    "patch-mamba": "embed.0.weight",
    "patchtst": "model.encoder.embedder.input_embedding.weight",
    "time-series-transformer": "model.encoder.value_embedding.value_projection.weight",
    "timesfm": "decoder.input_ff_layer.input_layer.weight",
    "timesfm-2.5": "model.input_ff_layer.input_layer.weight",
}


@pytest.mark.parametrize("merge", METHODS, ids=lambda merge: merge.method)
@pytest.mark.parametrize("name", sorted(FIRST))
def test_gradients_reach_what_lies_before_the_merge(name: str, merge: MergeConfig) -> None:
    model = tiny(name)
    family, core = families.for_model(model)
    objective = family.objective(core)
    assert objective is not None
    length = family.context(core) // 2
    walks = np.random.default_rng(1).normal(size=(3, length + objective.horizon)).cumsum(1).astype(np.float32)
    batch = objective.batch(core, walks[:, :length], walks[:, length:])
    with torch.no_grad():
        taught = objective.outputs(core, batch)
    with tsm.merging(core, merge) as run:
        said = objective.outputs(core, batch)
        removed = [step.removed for step in run.steps]
    assert len(removed) == family.merge_points(core).count and removed[0] > 0
    tsm.distillation_loss(family, said, taught, batch.future).backward()  # type: ignore[no-untyped-call]
    reached = {n: w.grad for n, w in core.named_parameters() if w.grad is not None}
    assert all(bool(torch.isfinite(gradient).all()) for gradient in reached.values())
    assert float(reached[FIRST[name]].abs().max()) > 1e-7
    # Nothing is left behind.
    with torch.no_grad():
        after = objective.outputs(core, batch)
    for key, value in taught.values.items():
        assert torch.equal(value, after.values[key])


@pytest.mark.parametrize("merge", METHODS, ids=lambda merge: merge.method)
def test_a_merge_has_the_gradient_of_its_means(merge: MergeConfig) -> None:
    """Against finite differences, the decisions held by a metric of their own: tokens that went have their share."""
    step = make_plan(merge, 1)[0]
    generator = torch.Generator().manual_seed(0)
    x, metric = torch.randn(2, 2, 9, 4, generator=generator, dtype=torch.float64)
    size = torch.tensor([[1.0, 2, 1, 3, 1, 1, 1, 2, 1], [0.0, 0, 1, 1, 1, 4, 1, 1, 1]])
    assert step(x, size, metric.float()).y.shape[1] < 9
    assert torch.autograd.gradcheck(
        lambda values: step(values, size, metric.float()).y, (x.requires_grad_(),)
    )
