"""chronos-forecasting's own pipelines around the models of the tests, with given uniform numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from chronos import ChronosBoltPipeline, ChronosPipeline
from chronos.chronos import ChronosConfig, ChronosModel
from numpy.typing import NDArray

from tests import artefacts
from tsmerge_export.forecast.sampling import uniforms


def t5(name: str) -> ChronosPipeline:
    """The sampling pipeline around an eager model."""
    model: Any = artefacts.model(name)
    config = ChronosConfig(**model.config.chronos_config)
    return ChronosPipeline(config.create_tokenizer(), ChronosModel(config, model))


def bolt(name: str) -> ChronosBoltPipeline:
    """The quantile pipeline around an eager model."""
    return ChronosBoltPipeline(artefacts.model(name))


@contextmanager
def drawing(seed: int, batch: int, samples: int, lengths: list[int]) -> Iterator[list[torch.Tensor]]:
    """Inside the block ``torch.multinomial`` inverts the cumulative distribution at the numbers that a forecaster uses.

    Args:
        lengths: of the pieces in which the horizon is forecast.

    Yields:
        A list that gets a tensor ``[batch * samples]`` per step: how far, as a probability, each number was from the
        nearest edge between two tokens. A draw closer than float noise may go either way.
    """
    margins: list[torch.Tensor] = []
    numbers = [
        number
        for block, steps in enumerate(lengths)
        for number in np.stack([uniforms(seed, b, block, samples, steps) for b in range(batch)])
        .reshape(batch * samples, steps)
        .T
    ]
    original = torch.multinomial

    def multinomial(probs: torch.Tensor, num_samples: int) -> torch.Tensor:
        assert num_samples == 1
        cumulative = probs.double().cumsum(1)
        aim = torch.from_numpy(numbers.pop(0).copy()) * cumulative[:, -1]
        margins.append(((cumulative - aim[:, None]).abs().amin(1) / cumulative[:, -1]).cpu())
        return torch.searchsorted(cumulative, aim[:, None], right=True)

    torch.multinomial = multinomial  # type: ignore[assignment]
    try:
        yield margins
    finally:
        torch.multinomial = original
    assert not numbers


def walks(batch: int, length: int, seed: int = 0) -> NDArray[np.float32]:
    """Random walks with a season, some values missing."""
    rng = np.random.default_rng(seed)
    series = rng.standard_normal((batch, length)).cumsum(1) + 5 * np.sin(np.arange(length) / 4)
    series[rng.random(series.shape) < 0.05] = np.nan
    return series.astype(np.float32)
