"""Test signals of known spectrum: a sum of two sinusoids, and three kinds of noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Signals = npt.NDArray[np.float64]


def clean(count: int, length: int, period: int, rng: np.random.Generator) -> Signals:
    """``[count, length]``: a sinusoid of ``period`` steps and one of four times that period and half its amplitude.

    Phases are random; the variance is 1.
    """
    time = np.arange(length)
    phases = rng.uniform(0, 2 * np.pi, (2, count, 1))
    parts = [
        np.sin(2 * np.pi * time / (period * slow) + phase) for slow, phase in zip((1, 4), phases, strict=True)
    ]
    return (parts[0] + 0.5 * parts[1]) * np.sqrt(2 / 1.25)


def white(count: int, length: int, period: int, rng: np.random.Generator) -> Signals:
    """``[count, length]``: independent normal values of variance 1; the spectrum is flat."""
    return rng.standard_normal((count, length))


def pink(count: int, length: int, period: int, rng: np.random.Generator) -> Signals:
    """``[count, length]``: normal, of power 1/f, mean 0 and expected variance 1."""
    coefficients = np.fft.rfft(rng.standard_normal((count, length)))
    weights = np.zeros(coefficients.shape[1])
    weights[1:] = np.arange(1, len(weights)) ** -0.5
    # Every frequency but the highest of an even length stands for two of the full transform.
    twice = np.full(len(weights), 2.0)
    twice[0] = 1.0
    twice[-1] = 1.0 if length % 2 == 0 else 2.0
    scale = np.sqrt(length / (twice * weights**2).sum())
    return np.fft.irfft(coefficients * weights * scale, length)


def harmonic(count: int, length: int, period: int, rng: np.random.Generator) -> Signals:
    """``[count, length]``: all overtones of ``period`` below the highest frequency, equal in power, random in phase.

    The variance is 1, so that the level of this noise is a total harmonic distortion.
    """
    numbers = np.arange(2, (period + 1) // 2)
    phases = rng.uniform(0, 2 * np.pi, (count, len(numbers), 1))
    waves = np.sin(2 * np.pi * np.arange(length) * numbers[:, None] / period + phases)
    return waves.sum(axis=1) * np.sqrt(2 / len(numbers))


NOISES: Mapping[str, Callable[[int, int, int, np.random.Generator], Signals]] = {
    "white": white,
    "pink": pink,
    "harmonic": harmonic,
}
