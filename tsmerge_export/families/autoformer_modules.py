"""Modules of Autoformer for ONNX: auto-correlation of each series alone, with discrete Fourier transforms as products
with real matrices; values at the ends gathered, not put beside themselves as in graphs that grow without end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from transformers.models.autoformer.modeling_autoformer import (
    AutoformerAttention,
    AutoformerLayernorm,
    AutoformerSeriesDecompositionLayer,
)


@contextmanager
def each_alone() -> Iterator[None]:
    """Inside, auto-correlation of transformers shifts every series by its own delays.

    transformers hands the delays of a batch out to series and heads in another order than it has these in (series
    first): of two series, every other head is shifted by the delays of the other one, so that a forecast hangs on what
    is forecast beside it. For a batch of one it is right, and that is what a series gets here.
    """
    original = AutoformerAttention.forward

    def forward(
        attention: Any, hidden_states: Tensor, key_value_states: Tensor | None = None, **_: Any
    ) -> Any:
        states = hidden_states if key_value_states is None else key_value_states
        rows = [
            original(attention, own, None if key_value_states is None else others)[0]
            for own, others in zip(hidden_states.split(1), states.split(1), strict=True)
        ]
        return torch.cat(rows), None

    with patch.object(AutoformerAttention, "forward", forward):
        yield


def rewrite_modules(model: nn.Module) -> None:
    """Every module inside that has a form for ONNX here computes by that, for good."""
    for part in model.modules():
        for kind, forward in _FORMS.items():
            if isinstance(part, kind):
                part.forward = partial(forward, part)


def _attend(
    attention: Any, hidden_states: Tensor, key_value_states: Tensor | None = None, **_: Any
) -> tuple[Tensor, None]:
    states = hidden_states if key_value_states is None else key_value_states
    return auto_correlation(attention, hidden_states, states), None


def _decompose(layer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """``[B, T, D]`` -> what is left of it, and its moving average over first and last values repeated."""
    ends, steps = (layer.kernel_size - 1) // 2, x.shape[1]
    padded = x[:, torch.arange(-ends, steps + ends).clamp(0, steps - 1)]
    trend = layer.avg(padded.transpose(1, 2)).transpose(1, 2)
    return x - trend, trend


def _normalise(norm: Any, x: Tensor) -> Tensor:
    """Over the features of ``[B, T, D]``, and then less the mean over time."""
    out: Tensor = norm.layernorm(x)
    return out - out.mean(1, keepdim=True)


def _convolve(convolution: Any, x: Tensor) -> Tensor:
    """Over ``[B, D, T]`` in a circle: OpenVINO knows no Pad that goes round."""
    (ends,), steps = convolution.padding, x.shape[2]
    padded = x[:, :, torch.arange(steps - ends, 2 * steps + ends) % steps]
    return nn.functional.conv1d(padded, convolution.weight, convolution.bias)


_FORMS: dict[type, Callable[..., Any]] = {
    nn.Conv1d: _convolve,
    AutoformerAttention: _attend,
    AutoformerSeriesDecompositionLayer: _decompose,
    AutoformerLayernorm: _normalise,
}


def auto_correlation(attention: Any, hidden: Tensor, states: Tensor) -> Tensor:
    """What ``AutoformerAttention`` computes of each series alone, without a mask.

    The original takes the mean of the correlations over heads and channels. Taken before the inverse transform, one
    row of it is left. Values that are shifted by the best delays and weighed are a product with a circulant matrix.

    Args:
        attention: the module. hidden: of the queries ``[B, T, D]``. states: of keys and values ``[B, M, D]``; ``T`` and
            ``M`` are fixed numbers.

    Returns:
        ``[B, T, D]``.
    """
    query = attention.q_proj(hidden)
    key, value = attention.k_proj(states), attention.v_proj(states)
    steps, missing = query.shape[1], query.shape[1] - key.shape[1]
    if missing > 0:  # as the original: as many queries as values are missing
        query = query[:, :missing]
        value = nn.functional.pad(value, (0, 0, 0, missing))
    key, value = key[:, :steps], value[:, :steps]
    cosine, sine, weight = _waves(steps)
    (a, b), (c, d) = ((cosine[:, : x.shape[1]] @ x, sine[:, : x.shape[1]] @ x) for x in (query, key))
    real, imaginary = (a * c + b * d).mean(-1), (a * d - b * c).mean(-1)  # of q times conjugate k
    delays = real @ (weight * cosine) - imaginary @ (weight * sine)
    best, places = delays.topk(int(attention.autocorrelation_factor * math.log(steps)), dim=1)
    order = torch.arange(steps)
    weights = torch.where(places[..., None] == order, best.softmax(-1)[..., None], 0.0).sum(1)
    later = (order[None, :] + (steps - order[:, None])) % steps
    shifted = weights.index_select(1, later.flatten()).unflatten(1, (steps, steps))
    out: Tensor = attention.out_proj(shifted @ value)
    return out


def _waves(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines and sines ``[n // 2 + 1, n]``, and the weight of each ``[n // 2 + 1, 1]`` on the way back.

    The weights belong to the matrices: OpenVINO 2026.4 computes a mean that is multiplied by a row of numbers wrongly.
    """
    angle = 2 * np.pi * (np.outer(np.arange(n // 2 + 1), np.arange(n)) % n) / n
    weight = np.full((len(angle), 1), 2 / n)  # all but the first and, of an even n, the last stand for two
    weight[0] /= 2
    if n % 2 == 0:
        weight[-1] /= 2
    cosine, sine, weights = (
        torch.from_numpy(part).float() for part in (np.cos(angle), np.sin(angle), weight)
    )
    return cosine, sine, weights
