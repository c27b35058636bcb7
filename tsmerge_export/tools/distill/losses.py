"""What a merged model is trained by: the likelihood of the future, and the distance to what the teacher says.

For every kind of output both are means over windows, steps and what else there is, in units that no series' scale
enters. With u the standard deviation of what is known of a window's context::

    kind           likelihood of the future y                        distance to the teacher t
    quantiles      mean of 2 max(q (y - f), (q - 1) (y - f)) / u     mean of |f - f_t| / u
    points         mean of ((y - f) / u)^2                           mean of ((f - f_t) / u)^2
    logits         cross-entropy of y's tokens, in nats              KL(t || student) of every token, in nats
    distribution   negative log density of (y - m) / s, in nats      mean of the parameters' distances, see below
    tokens         none                                              mean of (f - f_t)^2 / mean of f_t^2

m and s are the affine map with which the model scales the series. The distance of two distributions is that of their
places, in the teacher's scale, plus that of the logarithms of their scales (for Student's t also of 1 / df, which does
not grow where the number of degrees of freedom no longer matters; for the negative binomial, of the logarithms of means
and of counts). A missing step of the future takes no part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, NegativeBinomial, Normal, StudentT

from tsmerge_export import families
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.families.base import Family
from tsmerge_export.families.objective import Predicted

_SMALL = 1e-6


class Terms(NamedTuple):
    """Both parts of a loss, scalars. A kind without a likelihood has 0 there."""

    future: Tensor
    teacher: Tensor


def distillation_loss(
    family: str | Family | nn.Module, student_out: Predicted, teacher_out: Predicted, future: Tensor
) -> Tensor:
    """The loss of :func:`tsmerge_export.distill`, for a training loop of one's own.

    .. code-block:: python

        family, core = families.for_model(student)
        objective = family.objective(core)
        batch = objective.batch(core, context, future)  # numpy, [B, L] and [B, H]
        with torch.no_grad():
            taught = objective.outputs(teacher, batch)
        with tsm.merging(student, merge):
            loss = tsm.distillation_loss(family, objective.outputs(core, batch), taught, batch.future)
        loss.backward()

    Args:
        family: of both models, or one of them; it must be able to train.
        student_out: what the merged model says of a batch, with gradients. teacher_out: what the unmerged one says.
        future: of the batch, see :class:`~tsmerge_export.families.objective.Batch`.

    Returns:
        Likelihood of the future plus distance to the teacher (:mod:`tsmerge_export.tools.distill.losses` gives their
        definitions and units), a scalar float32.

    Raises:
        UsageError: no such family, or outputs and future that do not fit together.
        UnsupportedError: the family says nothing about training.
    """
    found = _family(family)
    if type(found).objective is Family.objective:
        raise UnsupportedError(cannot(found))
    future_part, teacher_part = terms(student_out, teacher_out, future)
    return future_part + teacher_part


def cannot(family: Family) -> str:
    """Why models of a family cannot be distilled, in one line."""
    return f"{family.name}: cannot be distilled: the family does not say what its models are trained on (its objective)"


def _family(given: str | Family | nn.Module) -> Family:
    if isinstance(given, Family):
        return given
    return families.get(given) if isinstance(given, str) else families.for_model(given)[0]


def terms(student: Predicted, teacher: Predicted, future: Tensor) -> Terms:
    """Both parts of the loss; see the head of this module.

    Raises:
        UsageError: the outputs are of two kinds, or of other shapes than the future.
    """
    if student.kind != teacher.kind:
        raise UsageError(f"the student gives {student.kind}, the teacher {teacher.kind}")
    for name, value in student.values.items():
        if value.shape != teacher.values[name].shape:
            raise UsageError(
                f"{name}: {list(value.shape)} of the student and {list(teacher.values[name].shape)} of the teacher "
                "differ in shape"
            )
    return Terms(likelihood(student, future), distance(student, teacher))


def likelihood(predicted: Predicted, future: Tensor) -> Tensor:
    """How badly a future is foreseen; a scalar float32, 0 where nothing of it is known."""
    return _LIKELIHOODS[predicted.kind](predicted.float(), future)


def distance(student: Predicted, teacher: Predicted) -> Tensor:
    """How far the student is from the teacher; a scalar float32, 0 where they say the same."""
    return _DISTANCES[student.kind](student.float(), teacher.float())


def _mean(values: Tensor, known: Tensor) -> Tensor:
    """Mean of those that are known; the others may hold NaN, and have no gradient."""
    known = known.expand_as(values)
    return values[known].sum() / known.sum().clamp(min=1)


def _in_units(future: Tensor, predicted: Predicted, shape: torch.Size, axes: tuple[int, ...]) -> Tensor:
    """``future [B, H]`` with axes of length 1 put in, checked against the shape of what is predicted."""
    for axis in axes:
        future = future.unsqueeze(axis)
    try:
        fits = torch.broadcast_shapes(future.shape, shape) == shape
    except RuntimeError:
        fits = False
    if not fits:
        raise UsageError(f"a future of {list(future.shape)} does not fit {predicted.kind} of {list(shape)}")
    return future


def _pinball(predicted: Predicted, future: Tensor) -> Tensor:
    quantiles = predicted.values["quantiles"]
    target = _in_units(future, predicted, quantiles.shape, (1,))
    levels = quantiles.new_tensor(predicted.levels)[:, None]
    error = (target - quantiles) / predicted.unit[:, None, None]
    return 2 * _mean(
        torch.maximum(levels * error, (levels - 1) * error), ~torch.isnan(target)
    )  # as in the WQL


def _apart(student: Predicted, teacher: Predicted) -> Tensor:
    gap = student.values["quantiles"] - teacher.values["quantiles"]
    return (gap / student.unit[:, None, None]).abs().mean()


def _squares(predicted: Predicted, future: Tensor) -> Tensor:
    points = predicted.values["points"]
    target = _in_units(future, predicted, points.shape, (2,))
    return _mean(((target - points) / predicted.unit[:, None, None]).square(), ~torch.isnan(target))


def _squares_apart(student: Predicted, teacher: Predicted) -> Tensor:
    gap = student.values["points"] - teacher.values["points"]
    return (gap / student.unit[:, None, None]).square().mean()


def _cross_entropy(predicted: Predicted, labels: Tensor) -> Tensor:
    logits = predicted.values["logits"]
    if labels.shape != logits.shape[:2] or labels.is_floating_point():
        raise UsageError(
            f"labels {list(labels.shape)} ({labels.dtype}) do not fit logits of {list(logits.shape)}; give "
            "those of the batch"
        )
    total = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="sum")
    return total / (labels != -100).sum().clamp(min=1)


def _divergence(student: Predicted, teacher: Predicted) -> Tensor:
    ours, theirs = (each.values["logits"].log_softmax(-1) for each in (student, teacher))
    return (theirs.exp() * (theirs - ours)).sum(-1).mean()


def _density(predicted: Predicted, future: Tensor) -> Tensor:
    values = predicted.values
    first = next(iter(values.values()))
    target = _in_units(future, predicted, first.shape, (2,)).expand_as(first)
    known = ~torch.isnan(target)
    counted = predicted.distribution == "negative_binomial"
    loc, scale = (values[name].expand_as(first)[known] for name in ("series_loc", "series_scale"))
    there = target[known]
    # Counts are counts in any unit: their mean is scaled, as transformers does. The other two live in the model's unit.
    where = there if counted else (there - loc) / scale
    parameters = {name: value[known] for name, value in values.items() if not name.startswith("series_")}
    if counted:
        parameters["logits"] = parameters["logits"] + scale.log()
        where = where.round().clamp(min=0)
    density = _DISTRIBUTIONS[predicted.distribution or ""](parameters).log_prob(where)
    return -density.sum() / known.sum().clamp(min=1)


def _parameters_apart(student: Predicted, teacher: Predicted) -> Tensor:
    ours, theirs = student.values, teacher.values
    if student.distribution == "negative_binomial":
        counts = (ours["total_count"] + _SMALL).log() - (theirs["total_count"] + _SMALL).log()
        means = counts + ours["logits"] - theirs["logits"]
        return means.abs().mean() + counts.abs().mean()
    place = (ours["loc"] - theirs["loc"]) / (theirs["scale"] + _SMALL)
    width = (ours["scale"] + _SMALL).log() - (theirs["scale"] + _SMALL).log()
    total = place.abs().mean() + width.abs().mean()
    if "df" in ours:
        total = total + (1 / ours["df"] - 1 / theirs["df"]).abs().mean()
    return total


def _nothing(predicted: Predicted, future: Tensor) -> Tensor:
    return next(iter(predicted.values.values())).new_zeros(())


def _tokens_apart(student: Predicted, teacher: Predicted) -> Tensor:
    ours, theirs = student.values["tokens"], teacher.values["tokens"]
    return (ours - theirs).square().mean() / theirs.square().mean().clamp(min=_SMALL)


_DISTRIBUTIONS: Mapping[str, Callable[[Mapping[str, Tensor]], Distribution]] = {
    "normal": lambda p: Normal(p["loc"], p["scale"], validate_args=False),
    "student_t": lambda p: StudentT(p["df"], p["loc"], p["scale"], validate_args=False),
    "negative_binomial": lambda p: NegativeBinomial(
        p["total_count"], logits=p["logits"], validate_args=False
    ),
}
_LIKELIHOODS: Mapping[str, Callable[[Predicted, Tensor], Tensor]] = {
    "quantiles": _pinball,
    "points": _squares,
    "logits": _cross_entropy,
    "distribution": _density,
    "tokens": _nothing,
}
_DISTANCES: Mapping[str, Callable[[Predicted, Predicted], Tensor]] = {
    "quantiles": _apart,
    "points": _squares_apart,
    "logits": _divergence,
    "distribution": _parameters_apart,
    "tokens": _tokens_apart,
}
