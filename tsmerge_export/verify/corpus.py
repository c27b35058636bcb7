"""The series that parity is checked on: generated, seeded, each kind with its own difficulty."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Series = npt.NDArray[np.float32]
Generator = Callable[[np.random.Generator, int, int], npt.NDArray[np.float64]]


def _random(rng: np.random.Generator, batch: int, length: int) -> npt.NDArray[np.float64]:
    """White noise in the first row, random walks in the others."""
    steps = rng.normal(size=(batch, length))
    steps[1:] = np.cumsum(steps[1:], axis=1)
    return steps


def _constant(rng: np.random.Generator, batch: int, length: int) -> npt.NDArray[np.float64]:
    """One value per row, 0 in the first: every token ties with every other.

    Quarters, because their float32 sums are exact in any order: a normalisation then finds variance 0 everywhere.
    Otherwise the variance is rounding noise, which a model blows up to full scale, differently in every runtime.
    """
    values = np.concatenate([[0.0], rng.integers(-100, 100, size=batch - 1) / 4])
    return np.repeat(values[:, None], length, axis=1)


def _piecewise_constant(rng: np.random.Generator, batch: int, length: int) -> npt.NDArray[np.float64]:
    """Steps of random height (quarters, as above) that last about 24 values: many tokens tie."""
    level = np.cumsum(rng.random((batch, length)) < 1 / 24, axis=1, dtype=np.int64)
    return np.take_along_axis(rng.integers(-8, 9, size=(batch, length + 1)) / 4, level, axis=1)


def _periodic(rng: np.random.Generator, batch: int, length: int) -> npt.NDArray[np.float64]:
    """A clean sine per row; the second has a period of 24, the others a random one."""
    period = rng.uniform(5, 60, size=(batch, 1))
    period[1:2] = 24.0
    return np.sin(2 * np.pi * (np.arange(length) / period + rng.random((batch, 1))))


def _seasonal(rng: np.random.Generator, batch: int, length: int) -> npt.NDArray[np.float64]:
    """What real data look like: level, daily season of 24, trend and noise."""
    t = np.arange(length)
    season = np.sin(2 * np.pi * (t / 24 + rng.random((batch, 1)))) * rng.uniform(0.5, 3, (batch, 1))
    trend = t / 500 * rng.normal(size=(batch, 1))
    return rng.normal(scale=5, size=(batch, 1)) + season + trend + 0.3 * rng.normal(size=(batch, length))


def _nan_gaps(rng: np.random.Generator, batch: int, length: int) -> npt.NDArray[np.float64]:
    """Seasonal with runs of missing values (whole patches fall out) and single ones; the first value is missing."""
    x = _seasonal(rng, batch, length)
    for row in x:
        for _ in range(max(1, length // 100)):
            start = int(rng.integers(0, length))
            row[start : start + int(rng.integers(1, max(2, length // 10)))] = np.nan
        row[rng.random(length) < 0.05] = np.nan
        row[0] = np.nan
        if length > 1 and np.isnan(row).all():
            row[-1] = 1.0
    return x


def _left_padding(rng: np.random.Generator, batch: int, length: int) -> npt.NDArray[np.float64]:
    """Seasonal; each row is shorter than the one before and padded with NaN on its left."""
    x = _seasonal(rng, batch, length)
    for b in range(batch):
        x[b, : (b * length) // (batch + 1) if batch > 1 else length // 3] = np.nan
    return x


def _all_nan(rng: np.random.Generator, batch: int, length: int) -> npt.NDArray[np.float64]:
    """Nothing was observed in the last row (in the only one, if there is one)."""
    x = _seasonal(rng, batch, length)
    x[-1] = np.nan
    return x


def _scaled(*amplitudes: float) -> Generator:
    def generate(rng: np.random.Generator, batch: int, length: int) -> npt.NDArray[np.float64]:
        return _seasonal(rng, batch, length) * np.resize(amplitudes, batch)[:, None]

    return generate


@dataclass(frozen=True)
class Entry:
    """One kind of series.

    Attributes:
        name: how reports call it.
        generate: (rng, batch, length) to ``[batch, length]``, NaN is missing.
        degenerate: tokens repeat by construction, so that scores tie and decision flips are expected.
    """

    name: str
    generate: Generator
    degenerate: bool = False


ENTRIES: tuple[Entry, ...] = (
    Entry("random", _random),
    Entry("seasonal", _seasonal),
    Entry("constant", _constant, degenerate=True),
    Entry("piecewise-constant", _piecewise_constant, degenerate=True),
    Entry("periodic", _periodic, degenerate=True),
    Entry("nan-gaps", _nan_gaps),
    Entry("left-padding", _left_padding),
    Entry("huge-scale", _scaled(1e12, 1e6, 1e9)),
    Entry("tiny-scale", _scaled(1e-12, 1e-6, 1e-9)),
    Entry("all-nan", _all_nan),
)

BATCHES = (1, 2, 5)


def series(name: str, batch: int, length: int, seed: int = 0) -> Series:
    """The corpus entry ``name`` as float32 ``[batch, length]``; the same arguments give the same values.

    Raises:
        KeyError: no such entry.
    """
    index = {entry.name: i for i, entry in enumerate(ENTRIES)}[name]
    rng = np.random.default_rng([seed, index, batch, length])
    return ENTRIES[index].generate(rng, batch, length).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """One run: an entry at a size. ``ratio``: of files whose ratio is chosen at run time; None is their default."""

    entry: Entry
    batch: int
    length: int
    seed: int
    ratio: Fraction | None = None

    @property
    def name(self) -> str:
        """Such as ``nan-gaps B=5 L=333``."""
        chosen = "" if self.ratio is None else f" ratio={self.ratio}"
        return f"{self.entry.name} B={self.batch} L={self.length}{chosen}"

    @property
    def degenerate(self) -> bool:
        """Whether tokens repeat by construction."""
        return self.entry.degenerate

    def series(self) -> Series:
        """float32 ``[batch, length]``."""
        return series(self.entry.name, self.batch, self.length, self.seed)


def lengths(context: int) -> tuple[int, ...]:
    """Series lengths to check for a model that reads at most ``context`` values.

    One value, less than a patch, a few tokens, odd, even, no multiple of a patch, the whole context, and more.
    """
    short = (1, 2, 5, context // 40 | 1, context // 5 | 1)
    long = (context * 2 // 3 | 1, context, context + context // 4 + 1)
    return tuple(sorted({n for n in (*short, *long) if n > 0}))


def cases(context: int, *, seed: int = 0, avoid: tuple[int, int] | None = None) -> Iterator[Case]:
    """Every entry at every length; batch sizes 1, 2 and 5 take turns so that every entry and length meets each.

    Args:
        context: values that the model reads at most.
        seed: other seeds, other series.
        avoid: (batch, length) of the export: that length is moved by one, since parity there proves little.
    """
    for j, length in enumerate(lengths(context)):
        moved = length + 1 if avoid is not None and length == avoid[1] else length
        for i, entry in enumerate(ENTRIES):
            yield Case(entry, BATCHES[(i + j) % len(BATCHES)], moved, seed)
