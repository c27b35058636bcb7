"""Synthetic series, made once before training, and the sampler that cuts training windows from all series.

What ``recipes/train_nano.py`` trains the shipped models on, and ``tsmerge distill`` a merged one.

Mixtures of kernels follow the idea of KernelSynth (Chronos, arXiv 2403.07815, section 4.2): sums and products
of seasonal, trend, smooth and noise components. Here the components are sampled directly instead of through a
Gaussian process, which is linear in the length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, overload

import numpy as np
import numpy.typing as npt

from tsmerge_export.errors import UsageError

Array = npt.NDArray[np.float32]

SERIES_LENGTH = 1600
HORIZON = 64
SEASON = 24
# Periods of hourly, half-hourly, daily, monthly and quarter-hourly data, hourly ones most of the time.
PERIODS = (SEASON, 48, 12, 168, 7, 30, 96, 8)
PERIOD_WEIGHTS = (0.6, 0.07, 0.08, 0.06, 0.07, 0.04, 0.04, 0.04)
# So many windows in a row that nothing can be learnt from: there are no others.
_GIVE_UP = 20_000
# A future this far off the history cannot be learnt from; the bound is in standard deviations of the context.
MAX_DEVIATION = 8.0


def _period(rng: np.random.Generator) -> int:
    if rng.random() < 0.1:
        return int(rng.integers(4, 64))
    return int(rng.choice(PERIODS, p=PERIOD_WEIGHTS))


def _profile(rng: np.random.Generator, period: int) -> npt.NDArray[np.float64]:
    """One cycle of a random shape, [period], mean 0 and standard deviation 1."""
    phase = np.arange(period) / period
    kind = rng.integers(0, 4)
    if kind == 0:  # few harmonics: smooth daily curves
        shape = np.zeros(period)
        for order in range(1, int(rng.integers(2, 6))):
            shape += rng.normal() / order * np.sin(2 * np.pi * (order * phase + rng.random()))
    elif kind == 1:  # smoothed noise: irregular daily curves
        kernel = np.hanning(max(3, period // int(rng.integers(3, 9))) + 2)
        shape = np.real(np.fft.ifft(np.fft.fft(rng.normal(size=period)) * np.fft.fft(kernel, period)))
    elif kind == 2:  # peaks at certain hours
        shape = np.zeros(period)
        for _ in range(int(rng.integers(1, 4))):
            distance = np.abs((phase - rng.random() + 0.5) % 1.0 - 0.5)
            shape += rng.normal() * np.exp(-0.5 * (distance / rng.uniform(0.03, 0.15)) ** 2)
    else:  # white: every step of the cycle has its own level
        shape = rng.normal(size=period)
    std = float(shape.std())
    return np.asarray((shape - shape.mean()) / (std if std > 1e-6 else 1.0), dtype=np.float64)


def waveform(rng: np.random.Generator, length: int) -> Array:
    """A clean repeated waveform, [length], standard deviation 1: teaches copying the season first."""
    period = SEASON if rng.random() < 0.75 else _period(rng)
    profile = _profile(rng, period)
    start = int(rng.integers(0, period))
    return profile[(np.arange(length) + start) % period].astype(np.float32)


def _smooth_noise(rng: np.random.Generator, length: int, phi: float) -> npt.NDArray[np.float64]:
    """First-order autoregression with unit stationary variance, [length], by blocks of a geometric filter."""
    reach = min(length, int(np.ceil(np.log(1e-4) / np.log(phi))) if phi > 0 else 1)
    taps = phi ** np.arange(reach)
    size = 1 << int(np.ceil(np.log2(length + reach)))
    noise = np.fft.rfft(rng.normal(size=length + reach), size)
    filtered = np.fft.irfft(noise * np.fft.rfft(taps, size), size)[reach : reach + length]
    return np.asarray(filtered * np.sqrt(1 - phi**2), dtype=np.float64)


def mixture(rng: np.random.Generator, length: int) -> Array:
    """A random mix of season, trend, smooth noise, random walk and white noise, [length], std 1."""
    time = np.arange(length)
    total = np.zeros(length)
    if rng.random() < 0.8:
        for _ in range(int(rng.integers(1, 3))):
            period = _period(rng)
            season = _profile(rng, period)[(time + int(rng.integers(0, period))) % period]
            if rng.random() < 0.4:  # days differ in strength
                season = season * (1 + 0.5 * _smooth_noise(rng, length, float(rng.uniform(0.9, 0.995))))
            total += rng.gamma(2.0, 0.5) * season
    if rng.random() < 0.3:
        total += rng.normal() * 2.0 * (time / length - 0.5)
    if rng.random() < 0.6:
        total += rng.gamma(1.5, 0.4) * _smooth_noise(rng, length, float(rng.choice([0.8, 0.95, 0.98, 0.995])))
    if rng.random() < 0.2:
        total += rng.gamma(1.5, 0.5) * np.cumsum(rng.normal(size=length)) / np.sqrt(length)
    total += rng.gamma(1.0, 0.2) * rng.normal(size=length)
    if rng.random() < 0.1:
        total = np.exp(np.clip(total / max(float(total.std()), 1e-6), -3, 3))
    std = float(total.std())
    return ((total - total.mean()) / (std if std > 1e-6 else 1.0)).astype(np.float32)


class MadeWhenRead(Sequence[Array]):
    """Synthetic series that are made, and kept, when they are first read: number i of a stream is always the same.

    Args:
        make: :func:`waveform` or :func:`mixture`. stream: seeds of the series, to which their number is added.
        count: how many. length: of each, in steps.
    """

    def __init__(
        self,
        make: Callable[[np.random.Generator, int], Array],
        stream: Sequence[int],
        count: int,
        length: int,
    ) -> None:
        self._make, self._stream, self._count, self._length = make, tuple(stream), count, length
        self._made: dict[int, Array] = {}

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Array: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Array]: ...
    def __getitem__(self, index: int | slice) -> Array | Sequence[Array]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        if index not in self._made:
            self._made[index] = self._make(np.random.default_rng([*self._stream, index]), self._length)
        return self._made[index]


class Panel(Protocol):
    """Columns of one data set."""

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """``[rows, columns]``, NaN is missing."""

    @property
    def train_end(self) -> int:
        """First row that is not training data."""


@dataclass(frozen=True)
class Pool:
    """All series that training windows are cut from; each is a 1-D float32 array."""

    waveforms: Sequence[Array]
    mixtures: Sequence[Array]
    real: Sequence[Array]

    @classmethod
    def build(cls, seed: int, panels: Sequence[Panel], count: int) -> Pool:
        """`count` synthetic series of each kind plus the training part of every column of every panel."""
        rng = np.random.default_rng(seed)
        return cls(
            [waveform(rng, SERIES_LENGTH) for _ in range(count)],
            [mixture(rng, SERIES_LENGTH) for _ in range(count)],
            _training_parts(panels),
        )

    @classmethod
    def made_when_read(cls, seed: int, panels: Sequence[Panel], count: int, length: int) -> Pool:
        """The same kinds of series, `length` steps each, from streams of their own."""
        return cls(
            MadeWhenRead(waveform, (seed, 3), count, length),
            MadeWhenRead(mixture, (seed, 4), count, length),
            _training_parts(panels),
        )


def _training_parts(panels: Sequence[Panel]) -> list[Array]:
    return [
        panel.values[: panel.train_end, column].astype(np.float32)
        for panel in panels
        for column in range(panel.values.shape[1])
    ]


@dataclass(frozen=True)
class Shares:
    """Probability that a window comes from each kind of series; the rest comes from the mixtures."""

    waveforms: float
    real: float


class Sampler:
    """Cuts batches of (context, target) windows from a pool, with light augmentation."""

    def __init__(self, pool: Pool, rng: np.random.Generator) -> None:
        self.pool = pool
        self.rng = rng

    def _window(self, length: int, shares: Shares) -> Array:
        draw = self.rng.random()
        if draw < shares.waveforms:
            kind = self.pool.waveforms
        elif draw < shares.waveforms + shares.real and self.pool.real:
            kind = self.pool.real
        else:
            kind = self.pool.mixtures
        series = kind[int(self.rng.integers(0, len(kind)))]
        start = int(self.rng.integers(0, len(series) - length + 1))
        window = series[start : start + length].copy()
        if kind is self.pool.real and self.rng.random() < 0.4:
            return window  # as evaluated: standardised, not moved
        if kind is self.pool.real and self.rng.random() < 0.3:
            # A little of another signal keeps 22 columns from being learnt by heart.
            other = self.pool.mixtures[int(self.rng.integers(0, len(self.pool.mixtures)))]
            window += np.float32(self.rng.uniform(0.0, 0.4)) * other[:length]
        # Level matters to models that scale by the mean absolute value: mostly near zero, sometimes far.
        level = self.rng.normal() * (4.0 if self.rng.random() < 0.2 else 0.7)
        sign = -1.0 if self.rng.random() < 0.3 else 1.0
        return (sign * np.exp(self.rng.normal() * 0.5) * (window + level)).astype(np.float32)

    @staticmethod
    def usable(context: Array, target: Array) -> bool:
        """False for windows that are constant or whose future lies too far off: they only add noise."""
        known = context[~np.isnan(context)]
        if len(known) < 2:
            return False
        std = float(known.std())
        there = target[~np.isnan(target)]
        if std <= 1e-4 or not len(there):
            return False
        return float(np.abs(there - known.mean()).max()) <= MAX_DEVIATION * std

    def _hide(self, context: Array) -> None:
        """In place: a few windows get a gap or a short history, as NaN."""
        draw = self.rng.random()
        if draw < 0.05:
            width = int(self.rng.integers(1, max(2, len(context) // 8)))
            start = int(self.rng.integers(0, len(context) - width))
            context[start : start + width] = np.nan
        elif draw < 0.08:
            context[self.rng.random(len(context)) < 0.05] = np.nan
        elif draw < 0.14:
            context[: int(self.rng.integers(0, max(1, len(context) - 2 * SEASON)))] = np.nan

    def batch(self, size: int, context: int, shares: Shares, horizon: int = HORIZON) -> tuple[Array, Array]:
        """Contexts [size, context] with NaN where unknown, and targets [size, horizon], float32.

        Raises:
            UsageError: no window can be learnt from.
        """
        contexts: list[Array] = []
        targets: list[Array] = []
        refused = 0
        while len(contexts) < size:
            window = self._window(context + horizon, shares)
            past, future = window[:context], window[context:]
            self._hide(past)
            if self.usable(past, future):
                contexts.append(past)
                targets.append(future)
                refused = 0
                continue
            refused += 1
            if refused == _GIVE_UP:
                raise UsageError(
                    "--data: its training part (the first 60 % of the rows) holds no window of "
                    f"{context} + {horizon} steps to learn from: all are constant or without values"
                )
        return np.stack(contexts), np.stack(targets)
