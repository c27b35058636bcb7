"""The losses against numpy and scipy-free closed forms, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import tsmerge_export as tsm
from tests.models import tiny
from tsmerge_export import families
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.families.objective import Kind, Predicted, unit_of
from tsmerge_export.forecast.distributions import PARAMETERS
from tsmerge_export.tools.distill.losses import distance, likelihood, terms
from tsmerge_export.verify import metrics

RNG = np.random.default_rng(0)


def normal(*shape: int) -> Tensor:
    return torch.from_numpy(RNG.normal(size=shape).astype(np.float32))


def predicted(
    kind: Kind, unit: Tensor, levels: tuple[float, ...] = (), name: str | None = None, **v: Tensor
) -> Predicted:
    return Predicted(kind, v, unit, levels, name)


def with_gap(*shape: int) -> Tensor:
    future = normal(*shape)
    future[0, 1] = float("nan")
    return future


def test_pinball_loss_in_units_of_the_context() -> None:
    levels, unit = (0.1, 0.5, 0.8), torch.tensor([2.0, 0.5])
    quantiles, teacher, future = normal(2, 3, 4), normal(2, 3, 4), with_gap(2, 4)
    found = likelihood(predicted("quantiles", unit, levels, quantiles=quantiles), future)
    # By the metric that everything else is measured with, row by row.
    rows = [
        sum(2 * metrics.pinball(quantiles[b, i].numpy(), future[b].numpy(), q) for i, q in enumerate(levels))
        / unit[b]
        for b in range(2)
    ]
    assert float(found) == pytest.approx(float(sum(rows)) / (3 * 7), rel=1e-5)
    gap = distance(
        predicted("quantiles", unit, levels, quantiles=quantiles),
        predicted("quantiles", unit, levels, quantiles=teacher),
    )
    by_hand = np.mean(np.abs((quantiles - teacher).numpy()) / unit.numpy()[:, None, None])
    assert float(gap) == pytest.approx(float(by_hand), rel=1e-5)


def test_points() -> None:
    unit, points, teacher, future = torch.tensor([2.0, 0.5]), normal(2, 4, 3), normal(2, 4, 3), with_gap(2, 4)
    found = likelihood(predicted("points", unit, points=points), future)
    error = (future.numpy()[:, :, None] - points.numpy()) / unit.numpy()[:, None, None]
    assert float(found) == pytest.approx(float(np.nanmean(error**2)), rel=1e-5)
    gap = (teacher - points).numpy() / unit.numpy()[:, None, None]
    apart = distance(predicted("points", unit, points=points), predicted("points", unit, points=teacher))
    assert float(apart) == pytest.approx(float(np.mean(gap**2)), rel=1e-5)


def test_logits() -> None:
    unit, logits, teacher = torch.ones(2), normal(2, 3, 5), normal(2, 3, 5)
    labels = torch.tensor([[0, 4, -100], [2, 2, 1]])
    found = likelihood(predicted("logits", unit, logits=logits), labels)

    def probabilities(of: Tensor) -> np.ndarray:
        e = np.exp(of.numpy().astype(np.float64))
        return e / e.sum(-1, keepdims=True)

    p, t = probabilities(logits), probabilities(teacher)
    by_hand = -np.mean(
        [math.log(p[b, i, labels[b, i]]) for b in range(2) for i in range(3) if labels[b, i] >= 0]
    )
    assert float(found) == pytest.approx(by_hand, rel=1e-5)
    gap = distance(predicted("logits", unit, logits=logits), predicted("logits", unit, logits=teacher))
    assert float(gap) == pytest.approx(float((t * np.log(t / p)).sum(-1).mean()), rel=1e-4)


def density(name: str, y: float, p: dict[str, float], loc: float, scale: float) -> float:
    """Log density in closed form; of the model's unit, or of the count."""
    if name == "negative_binomial":
        r, odds = p["total_count"], math.exp(p["logits"]) * scale
        y = round(y)
        share = odds / (1 + odds)
        count = math.lgamma(y + r) - math.lgamma(r) - math.lgamma(y + 1)
        return count + r * math.log(1 - share) + y * math.log(share)
    z = ((y - loc) / scale - p["loc"]) / p["scale"]
    if name == "normal":
        return -0.5 * z * z - 0.5 * math.log(2 * math.pi) - math.log(p["scale"])
    df = p["df"]
    constant = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    return constant - math.log(p["scale"]) - (df + 1) / 2 * math.log(1 + z * z / df)


@pytest.mark.parametrize("name", ["normal", "student_t", "negative_binomial"])
def test_distributions(name: str) -> None:
    shape = (2, 3, 1)
    positive = {
        key: normal(*shape).exp() + (2 if key == "df" else 0.1) for key in ("scale", "df", "total_count")
    }
    free = {key: normal(*shape) for key in ("loc", "logits")}
    values = {key: {**positive, **free}[key] for key in PARAMETERS[name]}
    series = {"series_loc": normal(2, 1, 1), "series_scale": normal(2, 1, 1).exp()}
    future = (normal(2, 3).abs() * 4).round() if name == "negative_binomial" else normal(2, 3)
    future[1, 2] = float("nan")
    ours = predicted("distribution", torch.ones(2), (), name, **values, **series)
    rows = [
        density(
            name, float(future[b, i]), {k: float(v[b, i, 0]) for k, v in values.items()},
            float(series["series_loc"][b]), float(series["series_scale"][b]),
        )
        for b in range(2) for i in range(3) if not torch.isnan(future[b, i])
    ]  # fmt: skip
    assert float(likelihood(ours, future)) == pytest.approx(-float(np.mean(rows)), rel=1e-4)
    assert float(distance(ours, ours)) == 0
    moved = {key: value + 0.25 for key, value in values.items()}
    assert float(distance(predicted("distribution", torch.ones(2), (), name, **moved, **series), ours)) > 0.1


def test_every_token_follows_the_teacher_alone() -> None:
    ours, theirs = normal(2, 5, 3), normal(2, 5, 3)
    one, other = (predicted("tokens", torch.ones(2), tokens=x) for x in (ours, theirs))
    assert float(likelihood(one, normal(2, 4))) == 0
    by_hand = ((ours - theirs).numpy() ** 2).mean() / (theirs.numpy() ** 2).mean()
    assert float(distance(one, other)) == pytest.approx(float(by_hand), rel=1e-5)


def test_a_missing_future_has_no_gradient_and_no_nan() -> None:
    quantiles = normal(1, 3, 4).requires_grad_()
    said = predicted("quantiles", torch.ones(1), (0.1, 0.5, 0.9), quantiles=quantiles)
    loss = likelihood(said, torch.full((1, 4), float("nan")))
    loss.backward()
    assert float(loss.detach()) == 0 and quantiles.grad is not None and not quantiles.grad.any()


def test_unit_is_the_deviation_of_what_is_known() -> None:
    context = np.array([[1.0, np.nan, 3.0, 5.0], [7.0, 7.0, 7.0, 7.0], [np.nan] * 4, [0.0] * 4], np.float32)
    known = np.std([1.0, 3.0, 5.0])
    assert unit_of(context) == pytest.approx([known, 7e-4, 1.0, 1.0], rel=1e-5)


def test_what_does_not_fit_is_said() -> None:
    unit = torch.ones(2)
    said = predicted("quantiles", unit, (0.5,), quantiles=normal(2, 1, 4))
    with pytest.raises(UsageError, match="does not fit quantiles"):
        likelihood(said, normal(2, 5))
    with pytest.raises(UsageError, match="the student gives quantiles, the teacher points"):
        terms(said, predicted("points", unit, points=normal(2, 4, 1)), normal(2, 4))
    with pytest.raises(UsageError, match="differ in shape"):
        terms(said, predicted("quantiles", unit, (0.5,), quantiles=normal(2, 1, 3)), normal(2, 4))
    logits = predicted("logits", unit, logits=normal(2, 4, 7))
    with pytest.raises(UsageError, match="give those of the batch"):
        likelihood(logits, normal(2, 4))


@pytest.mark.parametrize("name", ["chronos-bolt", "chronos-t5"])
def test_a_loop_of_ones_own(name: str) -> None:
    """As the docstring has it: the loss is that of both parts, and falls."""
    student, teacher = tiny(name), tiny(name)
    family, core = families.for_model(student)
    objective = family.objective(core)
    assert objective is not None
    rng = np.random.default_rng(0)
    walks = rng.normal(size=(4, 96 + objective.horizon)).cumsum(1).astype(np.float32)
    batch = objective.batch(core, walks[:, :96], walks[:, 96:])
    optimizer = torch.optim.SGD(student.parameters(), 1e-3)
    losses = []
    for _ in range(3):
        with torch.no_grad():
            taught = objective.outputs(teacher, batch)
        with tsm.merging(student, tsm.MergeConfig(ratio="1/2")):
            said = objective.outputs(core, batch)
        loss = tsm.distillation_loss(name, said, taught, batch.future)
        assert loss.item() == pytest.approx(sum(terms(said, taught, batch.future)).item(), rel=1e-6)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    # The same by the module, or its family.
    assert tsm.distillation_loss(student, said, taught, batch.future).item() == loss.item()
    assert tsm.distillation_loss(family, said, taught, batch.future).item() == loss.item()


def test_families_that_do_not_say_cannot() -> None:
    said = predicted("points", torch.ones(1), points=normal(1, 2, 1))
    with pytest.raises(UsageError, match="--family nothing is not known"):
        tsm.distillation_loss("nothing", said, said, normal(1, 2))
    with pytest.raises(UnsupportedError, match="autoformer: cannot be distilled"):
        tsm.distillation_loss("autoformer", said, said, normal(1, 2))
