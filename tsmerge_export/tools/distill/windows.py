"""The windows of a distillation: those that it learns from, and those that it is scored on.

A table is split in time, never shuffled across: its first 60 % are training, targets of validation lie before 80 %,
those of the test behind. Columns and windows are those of ``tsmerge tune``. Without a table all three are synthetic
series, each from a stream of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tsmerge_export.errors import UsageError
from tsmerge_export.tools.distill import synthetic
from tsmerge_export.tools.distill.synthetic import Pool, Sampler, Shares
from tsmerge_export.tools.tune.contender import context_of, split
from tsmerge_export.verify.data import Table, Windows, rolling_windows, usable_columns

#: Synthetic series of each kind to learn from.
_SERIES = 3000
#: Of the synthetic windows that are scored: series, and windows of each.
_SCORED_SERIES, _SCORED_WINDOWS = 24, 5
_TRAINED_ON = 0.6
#: Probability that a step sees the longest context, with half as many windows; else it is half as long.
_LONG = 1 / 3
# Where windows come from, with and without tables; the rest are mixtures.
_WITH_DATA, _WITHOUT = Shares(waveforms=0.1, real=0.6), Shares(waveforms=0.1, real=0.0)


@dataclass(frozen=True)
class Part:
    """The columns of a table that say something, standardised by its training part; a synthetic.Panel.

    Attributes:
        name: of the data. values: ``[T, C]`` in standard deviations. train_end: first row that is not training.
    """

    name: str
    values: npt.NDArray[np.float64]
    train_end: int


@dataclass(frozen=True)
class Scored:
    """One table, or the synthetic series.

    Attributes:
        name: of the data. context: steps of its windows. validation, test: windows.
    """

    name: str
    context: int
    validation: Windows
    test: Windows


@dataclass(frozen=True)
class Data:
    """All windows of a distillation.

    Attributes:
        scored: by table. longest: steps of the longest context that is learnt from. notes: what was left out.
    """

    pool: Pool
    scored: tuple[Scored, ...]
    longest: int
    horizon: int
    any_length: bool
    shares: Shares
    notes: tuple[str, ...]

    def sampler(self, rng: np.random.Generator) -> Sampler:
        """Windows to learn from, drawn by ``rng``."""
        return Sampler(self.pool, rng)

    def draw(self, sampler: Sampler, batch: int) -> tuple[synthetic.Array, synthetic.Array]:
        """Contexts ``[B, L]`` and futures ``[B, H]`` of one step; B is ``batch``, or half of it for the longest L."""
        length, size = self.longest, batch
        if self.any_length and self.longest >= 4 * self.horizon:
            if sampler.rng.random() < _LONG:
                size = max(1, batch // 2)
            else:
                length = self.longest // 2
        return sampler.batch(size, length, self.shares, self.horizon)


def prepare(
    tables: Sequence[Table],
    *,
    horizon: int,
    longest: int,
    context: int | None,
    any_length: bool,
    limit: int | None,
    test_limit: int | None,
    seed: int,
) -> Data:
    """Split tables, and make the synthetic series.

    Args:
        horizon: steps of a forecast. longest: steps that the model reads.
        context: of the windows that are scored; None is the longest that there is room for.
        any_length: see :class:`~tsmerge_export.families.objective.Objective`.
        limit, test_limit: at most so many windows per column are validated, and tested; None is all.
        seed: of the synthetic series.

    Raises:
        UsageError: ``context`` is longer than the model reads; a table is too short, or has no column that varies.
    """
    if context is not None and context > longest:
        raise UsageError(f"--context {context}: the model reads at most {longest} steps")
    parts, scored, notes = [], [], []
    for table in tables:
        part, windows, said = _of_table(table, horizon, longest, context, (limit, test_limit))
        parts.append(part)
        scored.append(windows)
        notes += said
    if not tables:
        scored.append(_synthetic_scored(horizon, context or longest, seed))
    reach = min([longest, *(part.train_end - horizon for part in parts)])
    length = max(synthetic.SERIES_LENGTH, reach + 2 * horizon)
    count = max(50, _SERIES * synthetic.SERIES_LENGTH // length)
    pool = Pool.made_when_read(seed, parts, count, length)
    shares = _WITH_DATA if tables else _WITHOUT
    return Data(pool, tuple(scored), reach, horizon, any_length, shares, tuple(notes))


def _of_table(
    table: Table, horizon: int, longest: int, context: int | None, limits: tuple[int | None, int | None]
) -> tuple[Part, Scored, list[str]]:
    usable, notes = usable_columns(table)
    rows = len(usable.values)
    try:
        fits = context_of(table.name, rows, longest, horizon, context)
    except UsageError as error:
        raise UsageError(str(error).replace("--length", "--context")) from None
    train_end = int(rows * _TRAINED_ON)
    head = usable.values[:train_end]
    usable, head, left_out = _learnable(usable, head)
    notes += left_out
    if context is None and fits < longest:
        notes.append(f"{table.name}: context {fits} instead of {longest}: the data have only {rows} rows")
    mean, deviation = np.nanmean(head, axis=0), np.nanstd(head, axis=0)
    scored = Scored(
        table.name,
        fits,
        rolling_windows(split(usable), fits, horizon, limit=limits[0]),
        rolling_windows(usable, fits, horizon, limit=limits[1]),
    )
    return Part(table.name, (usable.values - mean) / deviation, train_end), scored, notes


def _learnable(
    table: Table, head: npt.NDArray[np.float64]
) -> tuple[Table, npt.NDArray[np.float64], list[str]]:
    """The columns that vary in the training part, too. Raises UsageError where none does."""
    lowest = np.where(np.isnan(head), np.inf, head).min(axis=0)
    varies = np.where(np.isnan(head), -np.inf, head).max(axis=0) > lowest
    if not varies.any():
        raise UsageError(
            f"--data {table.name}: no column varies within the first 60 % of its rows, which are learnt "
            "from; give more rows"
        )
    names = [name for name, good in zip(table.columns, varies, strict=True) if not good]
    notes = [f"column {name!r} does not vary in the training part: left out" for name in names]
    kept = np.flatnonzero(varies)
    columns = tuple(table.columns[i] for i in kept)
    return Table(table.name, columns, table.values[:, kept], table.path, table.options), head[:, kept], notes


def _synthetic_scored(horizon: int, context: int, seed: int) -> Scored:
    """Windows of series that nothing is learnt from: another stream for validation, and another for the test."""
    rows = max(5 * _SCORED_WINDOWS * horizon, context + _SCORED_WINDOWS * horizon)
    names = tuple(f"series {i + 1}" for i in range(_SCORED_SERIES))

    def windows(part: int) -> Windows:
        rng = np.random.default_rng([seed, part])
        values = np.stack([synthetic.mixture(rng, rows) for _ in names], axis=1).astype(np.float64)
        return rolling_windows(
            Table("synthetic series", names, values), context, horizon, limit=_SCORED_WINDOWS
        )

    return Scored("synthetic series", context, windows(1), windows(2))


def in_batches(windows: Windows, size: int) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[Any]]]:
    """Contexts ``[b, L]`` and futures ``[b, H]`` float32 of all columns, at most ``size`` at a time."""
    context = windows.context.reshape(-1, windows.context.shape[-1])
    target = windows.target.reshape(-1, windows.target.shape[-1]).astype(np.float32)
    for start in range(0, len(context), size):
        yield context[start : start + size], target[start : start + size]
