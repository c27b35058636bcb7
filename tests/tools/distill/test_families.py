"""Families are trained on what their own libraries train them on, and their checkpoints stay their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    PatchTSTForPrediction,
    T5ForConditionalGeneration,
    TimeSeriesTransformerForPrediction,
)

import tsmerge_export as tsm
from tests.families.lagged_subjects import WHOLE
from tests.models import PATCHTST, TST, tiny
from tests.tools.distill.subjects import HALF, QUICK, table
from tsmerge_export import families
from tsmerge_export.checkpoint import load_model
from tsmerge_export.families.objective import Batch, EveryToken, Predicted
from tsmerge_export.families.state_space import StateSpaceFamily
from tsmerge_export.tools.distill.losses import likelihood


def foreseen(model: Any, missing: bool = False) -> tuple[Batch, Predicted, np.ndarray]:
    """A batch of random walks, what the model says of it, and its future."""
    family, core = families.for_model(model)
    objective = family.objective(core)
    assert objective is not None
    length = family.context(core) - 5
    walks = np.random.default_rng(3).normal(size=(3, length + objective.horizon)).cumsum(1).astype(np.float32)
    if missing:
        walks[1, length + 1] = np.nan
    batch = objective.batch(core, walks[:, :length], walks[:, length:])
    with torch.no_grad():
        return batch, objective.outputs(core, batch), walks[:, length:]


@pytest.mark.parametrize("missing", [False, True])
def test_chronos_t5_s_likelihood_is_upstream_s(missing: bool) -> None:
    model = tiny("chronos-t5")
    batch, said, _ = foreseen(model, missing)
    assert int((batch.future == -100).sum()) == missing
    with torch.no_grad():
        inputs = {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}
        upstream = model(**inputs, labels=batch.future).loss
    assert float(likelihood(said, batch.future)) == pytest.approx(float(upstream), rel=1e-5)


def test_chronos_bolt_s_likelihood_is_upstream_s_but_for_the_unit() -> None:
    """Upstream divides by the deviation of the context too, and sums over steps where ours is their mean."""
    model = tiny("chronos-bolt", seed=0)
    batch, said, future = foreseen(model)
    with torch.no_grad():
        upstream = model(context=batch.inputs["context"], target=torch.from_numpy(future)).loss
    assert float(likelihood(said, batch.future)) == pytest.approx(float(upstream) / future.shape[1], rel=1e-4)


@pytest.mark.parametrize("config", [TST, WHOLE.config], ids=["student-t", "normal"])
def test_time_series_transformer_s_likelihood_is_upstream_s_but_for_the_unit(config: Any) -> None:
    model: Any = tiny("time-series-transformer", config=config)
    batch, said, future = foreseen(model)
    family, core = families.for_model(model)
    encoder: Any = family.components(core)[0]
    given = encoder.named([batch.inputs[spec.name] for spec in encoder.inputs])
    # Our clock stands in for a calendar; the features of the future go on from those of the past.
    from tsmerge_export.families.lagged import time_features
    from tsmerge_export.forecast.history import clock

    wave = torch.from_numpy(clock(0, future.shape[1], time_features(model.config)))
    values = batch.inputs["future_values"]
    with torch.no_grad():
        upstream = model(
            **given, future_values=values, future_time_features=wave.expand(len(values), -1, -1)
        ).loss
    scale = said.values["series_scale"].expand(*future.shape, -1)
    # Log density in the data's unit is that in the model's, less the logarithm of the scale.
    ours = likelihood(said, batch.future) + scale.log().mean()
    assert float(ours) * (scale.shape[-1] if values.dim() == 3 else 1) == pytest.approx(
        float(upstream), rel=1e-4
    )


@pytest.mark.parametrize("head", [None, "student_t", "negative_binomial", "normal"])
def test_patchtst_s_likelihood_is_upstream_s_but_for_the_unit(head: str | None) -> None:
    more = {"loss": "mse"} if head is None else {"loss": "nll", "distribution_output": head}
    model: Any = tiny("patchtst", config={**PATCHTST, **more, "num_input_channels": 2})
    batch, said, future = foreseen(model)
    if head == "negative_binomial":
        future = np.abs(future).round()
        batch = Batch(batch.inputs, torch.from_numpy(future), batch.unit)
    wanted = torch.from_numpy(future)[..., None].expand(-1, -1, 2)
    with torch.no_grad():
        upstream = float(model(**batch.inputs, future_values=wanted).loss)
    if head is None:
        said = Predicted(said.kind, said.values, torch.ones(3))
    ours = float(likelihood(said, batch.future))
    if head in ("student_t", "normal"):
        ours += float(said.values["series_scale"].expand(*wanted.shape).log().mean())
    # Densities of the channels are summed up there.
    assert ours * (1 if head is None else 2) == pytest.approx(upstream, rel=1e-4)


def test_mamba_foresees_with_its_last_token_alone() -> None:
    """A token that merged into a later one has seen the next: its label would be no secret."""
    model = tiny("mamba")
    batch, said, _ = foreseen(model)
    assert batch.future.shape == said.values["logits"].shape[:2]
    assert (batch.future[:, :-1] == -100).all() and (batch.future[:, -1] >= 0).all()
    with torch.no_grad():
        whole = model(input_ids=batch.inputs["input_ids"]).logits[:, -1]
    expected = torch.nn.functional.cross_entropy(whole, batch.future[:, -1])
    assert float(likelihood(said, batch.future)) == pytest.approx(float(expected), rel=1e-5)


def test_outputs_of_every_token_follow_the_teacher_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A family of one's own may say no more of its tokens."""
    monkeypatch.setattr(
        StateSpaceFamily,
        "objective",
        lambda self, model: EveryToken(self.components(model)[0], self.horizon(model), "logits"),
    )
    settings = {**QUICK, "steps": 2, "batch": 2, "validations": 1, "context": 24, "windows": 5}
    found = tsm.distill(tiny("mamba"), HALF, data=table(200, 1), **settings)
    assert [loss[1] for loss in found.history.losses] == [0] and found.history.losses[0][2] > 0
    # In the place of a likelihood: the teacher is at no distance from itself.
    assert found.history.curve[0]["increase"]["1/2"] > 0
    assert found.trained.unmerged is not None and found.trained.unmerged >= 0


CLASSES = {
    "chronos-t5": T5ForConditionalGeneration,
    "patchtst": PatchTSTForPrediction,
    "time-series-transformer": TimeSeriesTransformerForPrediction,
    "patch-mamba": None,
}


def merged_loss(model: Any) -> float:
    """How badly all windows of the table's training part, standardised as they are learnt from, are foreseen.

    Not the distance to the teacher: these are random models, and any improvement leads away from them.
    """
    family, core = families.for_model(model)
    objective = family.objective(core)
    assert objective is not None
    values = ((table(columns=1).values[:720, 0] - 10) / 3).astype(np.float32)
    length = min(128, family.context(core))
    starts = range(length, 720 - objective.horizon, 16)
    contexts = np.stack([values[s - length : s] for s in starts])
    futures = np.stack([values[s : s + objective.horizon] for s in starts])
    batch = objective.batch(core, contexts, futures)
    with torch.no_grad(), tsm.merging(model, HALF):
        return float(likelihood(objective.outputs(core, batch), batch.future))


SETTINGS = {**QUICK, "steps": 16, "validations": 2}


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_checkpoint_of_the_family_is_what_its_library_reads(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = tsm.distill(model, HALF, data=table(columns=1), **SETTINGS)
    assert found.history.best_step > 0
    assert merged_loss(found.model) < merged_loss(model), "the loss falls"
    folder = found.save(tmp_path / "model")
    batch, _, _ = foreseen(model)
    family, core = families.for_model(found.model)
    objective = family.objective(core)
    assert objective is not None
    loaded = load_model(folder)
    others: list[Any] = [loaded.model]
    if CLASSES[name] is not None:
        others.append(CLASSES[name].from_pretrained(folder).eval())
    with torch.no_grad():
        expected = objective.outputs(core, batch).values
        for other in others:
            for key, value in objective.outputs(other, batch).values.items():
                assert torch.equal(value, expected[key]), key
    moved = [key for key, value in found.model.state_dict().items() if not torch.equal(value, before[key])]
    assert moved and loaded.trained == found.trained
    # A table of positions is no weight to train.
    assert not [key for key in moved if "embed_positions" in key or "position_enc" in key]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CLASSES))
def test_the_exported_file_merges_as_the_distilled_model_does(name: str, tmp_path: Path) -> None:
    found = tsm.distill(tiny(name), HALF, data=table(columns=1), **SETTINGS)
    folder = found.save(tmp_path / "model")
    bundle = tsm.export(folder, output=tmp_path / "bundle", threads=1, data=table(300, 1))
    assert bundle.verdicts["parity"]["passed"]
    assert bundle.merge == HALF


@pytest.mark.parametrize(("name", "rate"), [("chronos-bolt", 1e-3), ("chronos-t5", 2e-3)])
def test_the_rate_is_the_familys_multiple_of_the_default_one(name: str, rate: float) -> None:
    """Both tiny models have less than a million weights."""
    settings = {"steps": 1, "batch": 4, "validations": 1, "threads": 1}
    own, given, other = (
        tsm.distill(tiny(name, seed=0), HALF, data=table(columns=1), **settings, lr=lr)
        for lr in (None, rate, 2 * rate)
    )
    losses = [one.history.curve[-1]["mean"] for one in (own, given, other)]
    assert losses[0] == losses[1] != losses[2]
